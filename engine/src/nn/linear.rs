//! A linear layer over stored weights.

use atelico_kernels::ops::{self, Precision, Weight};
use burn::tensor::Tensor;

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
        let y = ops::linear_fused(x, &self.weights, self.precision);
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze::<2>(),
            None => y,
        }
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
