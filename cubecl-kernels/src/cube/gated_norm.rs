//! RMS norm with a gate, a cube a group.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::norm::cube_sum;
use super::{contiguous, dims, empty, line};
use crate::ops::{GateOrder, GatedNormOps, GatedNormSpec};

impl GatedNormOps for CubeBackend {
    fn gated_rms_norm(
        x: CubeTensor,
        gate: CubeTensor,
        weight: CubeTensor,
        eps: f32,
        spec: GatedNormSpec,
    ) -> CubeTensor {
        let (x, gate) = (contiguous(x), contiguous(gate));
        let ([m, width], [_, gate_width], [weights]) = (dims(&x), dims(&gate), dims(&weight));
        let n = spec.group_size;
        let out = empty(&x, [m, width], DType::F32);
        let units = if n <= 128 { 128 } else { 256 };
        gated_rms_norm::launch(
            &out.client,
            CubeCount::Static((width / n) as u32, m as u32, 1),
            line(units),
            x.into_buffer_arg(),
            gate.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width as u32,
            gate_width as u32,
            spec.gate_offset as u32,
            eps,
            n as u32,
            weights == n,
            spec.order,
            units,
        );
        out
    }
}

#[cube]
fn silu(x: f32) -> f32 {
    x / (1.0f32 + f32::exp(-x))
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn gated_rms_norm(
    x: &[f32],
    gate: &[f32],
    weight: &[f32],
    out: &mut [f32],
    width: u32,
    gate_width: u32,
    gate_offset: u32,
    eps: f32,
    #[comptime] n: u32,
    #[comptime] shared_weight: bool,
    #[comptime] order: GateOrder,
    #[comptime] units: u32,
) {
    let (group, row) = (CUBE_POS_X, CUBE_POS_Y);
    let first = group * n;
    let gate_first = comptime!(matches!(order, GateOrder::GateFirst));
    let per_unit = comptime!(n.div_ceil(units));
    let mut values = Array::<f32>::new(comptime!(per_unit as usize));
    let mut squares = 0.0f32;
    #[unroll]
    for o in 0..per_unit {
        let i = UNIT_POS_X + o * units;
        let mut value = 0.0f32;
        if i < n {
            value = x[(row * width + first + i) as usize];
            if comptime!(gate_first) {
                value *= silu(gate[(row * gate_width + gate_offset + first + i) as usize]);
            }
        }
        values[o as usize] = value;
        squares += value * value;
    }
    let scale = 1.0f32 / f32::sqrt(cube_sum(squares, units) / f32::cast_from(n) + eps);
    #[unroll]
    for o in 0..per_unit {
        let i = UNIT_POS_X + o * units;
        if i < n {
            let w = if comptime!(shared_weight) { weight[i as usize] } else { weight[(first + i) as usize] };
            let mut value = values[o as usize] * scale * w;
            if comptime!(!gate_first) {
                value *= silu(gate[(row * gate_width + gate_offset + first + i) as usize]);
            }
            out[(row * width + first + i) as usize] = value;
        }
    }
}
