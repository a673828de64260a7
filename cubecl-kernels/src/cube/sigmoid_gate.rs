//! Outputs scaled by the sigmoid of a gate.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dependent::{begin_next, wait_for_launches};
use super::{contiguous, dims, empty, grid, line};
use crate::ops::{GateScope, SigmoidGateOps};

const UNITS: u32 = 256;

impl SigmoidGateOps for CubeBackend {
    fn sigmoid_gate(x: CubeTensor, gate: CubeTensor, offset: usize, scope: GateScope) -> CubeTensor {
        let (x, gate) = (contiguous(x), contiguous(gate));
        let ([m, width], [_, gate_width]) = (dims(&x), dims(&gate));
        let out = empty(&x, [m, width], DType::F32);
        sigmoid_gate::launch(
            &out.client,
            grid((m * width).div_ceil(UNITS as usize)),
            line(UNITS),
            x.into_buffer_arg(),
            gate.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width as u32,
            gate_width as u32,
            offset as u32,
            (m * width) as u32,
            scope,
        );
        out
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn sigmoid_gate(
    x: &[f32],
    gate: &[f32],
    out: &mut [f32],
    width: u32,
    gate_width: u32,
    offset: u32,
    total: u32,
    #[comptime] granularity: GateScope,
) {
    begin_next();
    wait_for_launches();
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < total {
        let mut at = i / width * gate_width + offset;
        if comptime!(matches!(granularity, GateScope::Element)) {
            at += i % width;
        }
        out[i as usize] = x[i as usize] / (1.0f32 + f32::exp(-gate[at as usize]));
    }
}
