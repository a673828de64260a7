//! Gated activations.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty, grid, line};
use crate::ops::ActivationOps;

const UNITS: u32 = 256;

impl ActivationOps for CubeBackend {
    fn silu_mul(gate_up: CubeTensor) -> CubeTensor {
        let gate_up = contiguous(gate_up);
        let [m, width] = dims(&gate_up);
        let n = width / 2;
        let out = empty(&gate_up, [m, n], DType::F32);
        let count = grid((m * n).div_ceil(UNITS as usize));
        let (input, output) = (gate_up.into_buffer_arg(), out.clone().into_buffer_arg());
        silu_mul::launch(&out.client, count, line(UNITS), input, output, n as u32, (m * n) as u32);
        out
    }

    fn relu_squared(x: CubeTensor) -> CubeTensor {
        let x = contiguous(x);
        let [m, n] = dims(&x);
        let out = empty(&x, [m, n], DType::F32);
        let count = grid((m * n).div_ceil(UNITS as usize));
        let (input, output) = (x.into_buffer_arg(), out.clone().into_buffer_arg());
        relu_squared::launch(&out.client, count, line(UNITS), input, output, (m * n) as u32);
        out
    }
}

#[cube(launch)]
fn silu_mul(gate_up: &[f32], out: &mut [f32], n: u32, total: u32) {
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < total {
        let at = (i / n) * 2 * n + i % n;
        let gate = gate_up[at as usize];
        out[i as usize] = gate / (1.0f32 + f32::exp(-gate)) * gate_up[(at + n) as usize];
    }
}

#[cube(launch)]
fn relu_squared(x: &[f32], out: &mut [f32], total: u32) {
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < total {
        let kept = max(x[i as usize], 0.0f32);
        out[i as usize] = kept * kept;
    }
}
