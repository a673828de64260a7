//! The gated delta rule: a row of each slot, many rows one by one, or for prompts on tensor cores in chunks.

mod chunks;
mod prepare;
mod rows;
mod step;

use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty};
use crate::ops::{DeltaOps, DeltaSpec};

/// What the rule reads, but for the state.
struct Inputs {
    qkv: CubeTensor,
    gates: CubeTensor,
    a: CubeTensor,
    dt_bias: CubeTensor,
    positions: CubeTensor,
    slots: CubeTensor,
}

impl DeltaOps for CubeBackend {
    fn delta_rule(
        qkv: CubeTensor,
        gates: CubeTensor,
        a: CubeTensor,
        dt_bias: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        state: CubeTensor,
        spec: DeltaSpec,
        dtype: FloatDType,
    ) -> (CubeTensor, CubeTensor) {
        let [m, _] = dims(&qkv);
        let out = empty(&qkv, [m, spec.value_heads * spec.value_dim], DType::F32);
        let inputs = Inputs { qkv: contiguous(qkv), gates: contiguous(gates), a, dt_bias, positions, slots };
        match chunks::shape(&out, spec, m, dtype.into()) {
            Some(shape) => chunks::launch(inputs, &state, &out, spec, shape, dtype.into()),
            None if step::takes(&out, spec) => step::launch(inputs, &state, &out, spec),
            None => rows::launch(inputs, &state, &out, spec),
        }
        (out, state)
    }
}

/// Logarithm of a row's decay, and its writing strength: `x` and `b` are the inputs of the two.
#[cube]
fn decay_and_strength(x: f32, a: f32, b: f32) -> (f32, f32) {
    let softplus = max(x, 0.0f32) + f32::ln(1.0f32 + f32::exp(-f32::abs(x)));
    (a * softplus, 1.0f32 / (1.0f32 + f32::exp(-b)))
}
