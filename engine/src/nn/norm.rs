//! Normalization layers.

use atelico_kernels::ops;
use burn::tensor::Tensor;

/// Root-mean-square norm over the last axis.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[hidden_size]` float32.
    pub(crate) weight: Tensor<1>,
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// A norm with the given weight, `[hidden_size]` float32.
    pub fn new(weight: Tensor<1>, eps: f64) -> Self {
        Self { weight, eps: eps as f32 }
    }

    /// `x * rsqrt(mean(x²) + eps) * weight`.
    ///
    /// # Shapes
    /// x `[m, hidden_size]` float32.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::rms_norm(x, self.weight.clone(), self.eps)
    }

    /// What several products of `norm(x)` take: x itself with the norm, where they apply it for less than a launch
    /// costs, or else x normed once.
    ///
    /// # Shapes
    /// both `[m, hidden_size]` float32.
    pub fn for_products(&self, x: Tensor<2>) -> (Tensor<2>, Option<&Self>) {
        if ops::products_take_norm(&x) { (x, Some(self)) } else { (self.forward(x), None) }
    }

    /// Adds `x` to the residual stream and norms the sum: `(sum, norm)`.
    ///
    /// # Shapes
    /// both `[m, hidden_size]` float32.
    pub fn forward_add(&self, x: Tensor<2>, residual: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        ops::add_rms_norm(x, residual, self.weight.clone(), self.eps)
    }

    /// Weight and epsilon, for a product that norms its input.
    pub(crate) fn parts(&self) -> (Tensor<1>, f32) {
        (self.weight.clone(), self.eps)
    }

    /// Norms `x`, adds it to the residual stream and multiplies the sum by `scale`.
    ///
    /// # Shapes
    /// both `[m, hidden_size]` float32.
    pub fn add_normed(&self, x: Tensor<2>, residual: Tensor<2>, scale: f32) -> Tensor<2> {
        ops::rms_norm_add(x, residual, self.weight.clone(), self.eps, scale)
    }

    /// The weight, `[hidden_size]` float32.
    pub fn weight(&self) -> &Tensor<1> {
        &self.weight
    }
}
