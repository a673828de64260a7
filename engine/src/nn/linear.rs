//! A linear layer over stored weights.

use atelico_kernels::ops::{self, Activation, Fusion, Precision, Weight};
use burn::tensor::Tensor;

use super::RmsNorm;

/// `y = x Wᵀ (+ b)`; several matrices of one input can be merged, their outputs side by side.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The merged matrices, `[out_i, in]` each; neighbours of one format are one matrix.
    pub(crate) weights: Vec<Weight>,
    /// `[Σ out_i]`.
    pub(crate) bias: Option<Tensor<1>>,
    /// Arithmetic of products with many rows.
    pub(crate) precision: Precision,
}

impl Linear {
    /// Applies the layer.
    ///
    /// # Shapes
    /// x `[m, in]` float32; returns `[m, Σ out_i]` float32.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.fused(x, Fusion::default())
    }

    /// Norms x if asked to, then applies the layer.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    pub fn forward_normed(&self, x: Tensor<2>, norm: Option<&RmsNorm>) -> Tensor<2> {
        self.fused(x, Fusion { norm: norm.map(RmsNorm::parts), ..Fusion::default() })
    }

    /// Norms x if asked to, applies the layer, and gates the second half of the result by the first:
    /// `silu(a) * b`.
    ///
    /// # Shapes
    /// x `[m, in]` float32; returns `[m, Σ out_i / 2]` float32.
    pub fn forward_gated(&self, x: Tensor<2>, norm: Option<&RmsNorm>) -> Tensor<2> {
        self.fused(x, Fusion { norm: norm.map(RmsNorm::parts), activation: Activation::SwiGlu, ..Fusion::default() })
    }

    /// Norms x if asked to, applies the layer, and squares what is positive: `relu(a)²`.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    pub fn forward_relu2(&self, x: Tensor<2>, norm: Option<&RmsNorm>) -> Tensor<2> {
        self.fused(x, Fusion { norm: norm.map(RmsNorm::parts), activation: Activation::Relu2, ..Fusion::default() })
    }

    /// Applies the layer and adds `residual`, which has the result's shape.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    pub fn forward_add(&self, x: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        self.fused(x, Fusion { residual: Some(residual), ..Fusion::default() })
    }

    fn fused(&self, x: Tensor<2>, fusion: Fusion) -> Tensor<2> {
        let fusion = Fusion { bias: self.bias.clone(), ..fusion };
        ops::linear_fused(x, &self.weights, fusion, self.precision)
    }

    /// The same layer in float32 at any number of rows, for small products whose rounding decides:
    /// a router's choice of experts.
    #[must_use]
    pub fn exact(self) -> Self {
        Self { precision: Precision::F32, ..self }
    }

    /// Features that come out.
    pub fn out_features(&self) -> usize {
        self.weights.iter().map(|w| w.spec().rows).sum()
    }
}
