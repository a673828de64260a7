//! Feed-forward layers.

use atelico_engine::Result;
use atelico_engine::load::Weights;
use atelico_engine::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;

/// `down_proj(silu(gate_proj(x)) * up_proj(x))` (Shazeer, 2020).
#[derive(Debug)]
pub(crate) struct SwiGlu {
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl SwiGlu {
    pub(crate) fn load(hidden_size: usize, intermediate_size: usize, weights: &Weights<'_>) -> Result<Self> {
        let names = [("gate_proj", intermediate_size), ("up_proj", intermediate_size)];
        Ok(Self {
            gate_up_proj: weights.linear_fused(&names, hidden_size)?,
            down_proj: weights.linear("down_proj", hidden_size, intermediate_size)?,
        })
    }

    /// `residual + mlp(norm(residual))`, `[m, hidden_size]`.
    pub(crate) fn forward_residual(&self, residual: Tensor<2>, norm: &RmsNorm) -> Tensor<2> {
        let gated = self.gate_up_proj.forward_gated(residual.clone(), Some(norm)); // [m, intermediate_size]
        self.down_proj.forward_add(gated, residual)
    }
}
