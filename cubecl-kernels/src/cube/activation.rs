//! Activations of feed-forward layers.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty, grid, line};
use crate::ops::{ActivationOps, Gate};

const UNITS: u32 = 256;

impl ActivationOps for CubeBackend {
    fn gated(gate_up: CubeTensor, gate: Gate) -> CubeTensor {
        let gate_up = contiguous(gate_up);
        let [m, width] = dims(&gate_up);
        let n = width / 2;
        let out = empty(&gate_up, [m, n], DType::F32);
        let count = grid((m * n).div_ceil(UNITS as usize));
        let (input, output) = (gate_up.into_buffer_arg(), out.clone().into_buffer_arg());
        gated::launch(&out.client, count, line(UNITS), input, output, n as u32, (m * n) as u32, gate);
        out
    }

    fn gated_table(x: CubeTensor, table: CubeTensor, offset: usize, gate: Gate) -> CubeTensor {
        let (x, table) = (contiguous(x), contiguous(table));
        let ([m, n], [_, width]) = (dims(&x), dims(&table));
        let out = empty(&x, [m, n], DType::F32);
        gated_table::launch(
            &out.client,
            grid((m * n).div_ceil(UNITS as usize)),
            line(UNITS),
            x.into_buffer_arg(),
            table.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            n as u32,
            width as u32,
            offset as u32,
            (m * n) as u32,
            gate,
        );
        out
    }

    fn relu2(x: CubeTensor) -> CubeTensor {
        let x = contiguous(x);
        let [m, n] = dims(&x);
        let out = empty(&x, [m, n], DType::F32);
        let count = grid((m * n).div_ceil(UNITS as usize));
        let (input, output) = (x.into_buffer_arg(), out.clone().into_buffer_arg());
        squared_relu::launch(&out.client, count, line(UNITS), input, output, (m * n) as u32);
        out
    }
}

#[cube]
pub(super) fn activate(x: f32, #[comptime] gate: Gate) -> f32 {
    if comptime!(matches!(gate, Gate::Silu)) {
        x / (1.0f32 + f32::exp(-x))
    } else {
        // 0.5 x (1 + tanh(u)) = x σ(2 u), which no large u overflows.
        let u = 0.797_884_6f32 * (x + 0.044_715f32 * x * x * x);
        x / (1.0f32 + f32::exp(-2.0f32 * u))
    }
}

#[cube(launch)]
fn gated(gate_up: &[f32], out: &mut [f32], n: u32, total: u32, #[comptime] gate: Gate) {
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < total {
        let at = (i / n) * 2 * n + i % n;
        out[i as usize] = activate(gate_up[at as usize], gate) * gate_up[(at + n) as usize];
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn gated_table(
    x: &[f32],
    table: &[f32],
    out: &mut [f32],
    n: u32,
    width: u32,
    offset: u32,
    total: u32,
    #[comptime] gate: Gate,
) {
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < total {
        let at = (i / n) * width + offset + i % n;
        out[i as usize] = activate(x[i as usize], gate) * table[at as usize];
    }
}

#[cube]
pub(super) fn relu2(x: f32) -> f32 {
    let v = max(x, 0.0f32);
    v * v
}

#[cube(launch)]
fn squared_relu(x: &[f32], out: &mut [f32], total: u32) {
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < total {
        out[i as usize] = relu2(x[i as usize]);
    }
}
