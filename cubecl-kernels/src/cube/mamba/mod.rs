//! The selective state-space recurrence of Mamba2: token by token, or for prompts on tensor cores in chunks.

mod chunks;
mod scan;

use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty};
use crate::ops::{MambaOps, MambaSpec};

/// What the recurrence reads, but for the state.
struct Inputs {
    xbc: CubeTensor,
    dt: CubeTensor,
    heads: CubeTensor,
    positions: CubeTensor,
    slots: CubeTensor,
}

impl MambaOps for CubeBackend {
    fn mamba_scan(
        xbc: CubeTensor,
        dt: CubeTensor,
        heads: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        state: CubeTensor,
        spec: MambaSpec,
        dtype: FloatDType,
    ) -> (CubeTensor, CubeTensor) {
        let [m, _] = dims(&xbc);
        let y = empty(&xbc, [m, spec.inner_size()], DType::F32);
        let inputs = Inputs { xbc: contiguous(xbc), dt: contiguous(dt), heads: contiguous(heads), positions, slots };
        match chunks::shape(&y, spec, m, dtype.into()) {
            Some(shape) => chunks::launch(inputs, &state, &y, spec, shape, dtype.into()),
            None => scan::launch(inputs, &state, &y, spec),
        }
        (y, state)
    }
}

/// `ln(1 + exp(x))`, without overflow.
#[cube]
fn softplus(x: f32) -> f32 {
    max(x, 0.0f32) + f32::ln(1.0f32 + f32::exp(-f32::abs(x)))
}
