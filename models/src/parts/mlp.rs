//! Feed-forward layers.

use atelico_engine::Result;
use atelico_engine::load::Weights;
use atelico_engine::nn::{Linear, RmsNorm};
use atelico_kernels::ops;
use burn::tensor::Tensor;

/// Merged gate and up projections, and down.
#[derive(Debug)]
struct Glu {
    gate_up_proj: Linear,
    down_proj: Linear,
}

impl Glu {
    fn load(hidden_size: usize, intermediate_size: usize, weights: &Weights<'_>) -> Result<Self> {
        let names = [("gate_proj", intermediate_size), ("up_proj", intermediate_size)];
        Ok(Self {
            gate_up_proj: weights.linear_fused(&names, hidden_size)?,
            down_proj: weights.linear("down_proj", hidden_size, intermediate_size)?,
        })
    }
}

/// `down_proj(silu(gate_proj(x)) * up_proj(x))` (Shazeer, 2020).
#[derive(Debug)]
pub(crate) struct SwiGlu(Glu);

impl SwiGlu {
    pub(crate) fn load(hidden_size: usize, intermediate_size: usize, weights: &Weights<'_>) -> Result<Self> {
        Glu::load(hidden_size, intermediate_size, weights).map(Self)
    }

    /// x `[m, hidden_size]`, normed first if asked to; returns `[m, hidden_size]`.
    pub(crate) fn forward(&self, x: Tensor<2>, norm: Option<&RmsNorm>) -> Tensor<2> {
        self.0.down_proj.forward(self.0.gate_up_proj.forward_gated(x, norm))
    }

    /// `residual + mlp(norm(residual))`, `[m, hidden_size]`.
    pub(crate) fn forward_residual(&self, residual: Tensor<2>, norm: &RmsNorm) -> Tensor<2> {
        let gated = self.0.gate_up_proj.forward_gated(residual.clone(), Some(norm)); // [m, intermediate_size]
        self.0.down_proj.forward_add(gated, residual)
    }
}

/// `down_proj(gelu(gate_proj(x)) * up_proj(x))` with the tanh form of GELU.
#[derive(Debug)]
pub(crate) struct GeGlu(Glu);

impl GeGlu {
    pub(crate) fn load(hidden_size: usize, intermediate_size: usize, weights: &Weights<'_>) -> Result<Self> {
        Glu::load(hidden_size, intermediate_size, weights).map(Self)
    }

    /// x `[m, hidden_size]`; returns `[m, hidden_size]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.0.down_proj.forward(ops::gelu_mul(self.0.gate_up_proj.forward(x)))
    }
}

/// `down_proj(relu(up_proj(x))²)` (So et al., 2021).
#[derive(Debug)]
pub(crate) struct Relu2Mlp {
    up_proj: Linear,
    down_proj: Linear,
}

impl Relu2Mlp {
    pub(crate) fn load(hidden_size: usize, intermediate_size: usize, weights: &Weights<'_>) -> Result<Self> {
        Ok(Self {
            up_proj: weights.linear("up_proj", intermediate_size, hidden_size)?,
            down_proj: weights.linear("down_proj", hidden_size, intermediate_size)?,
        })
    }

    /// `residual + mlp(x)`, `[m, hidden_size]` each, x normed first if asked to.
    pub(crate) fn forward_add(&self, x: Tensor<2>, norm: Option<&RmsNorm>, residual: Tensor<2>) -> Tensor<2> {
        let up = self.up_proj.forward_relu2(x, norm); // [m, intermediate_size]
        self.down_proj.forward_add(up, residual)
    }
}
