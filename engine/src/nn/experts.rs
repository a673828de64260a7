//! The matrices of a mixture of experts.

use atelico_kernels::ops::{self, MoeRoute, Precision, Weight};
use burn::tensor::Tensor;

/// One linear layer of every expert, `[experts, out, in]`, stored as the checkpoint stores it.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[experts * out_i, in]` each; the outputs of an expert lie side by side.
    pub(crate) weights: Vec<Weight>,
    /// Arithmetic of the products.
    pub(crate) precision: Precision,
}

impl Experts {
    /// Applies each row's experts.
    ///
    /// # Shapes
    /// x `[m, in]`, or `[m top_k, in]` with a row for each choice; returns `[m top_k, Σ out_i]`.
    pub fn forward(&self, x: &Tensor<2>, route: &MoeRoute) -> Tensor<2> {
        ops::moe_linear(x, &self.weights, route, self.precision)
    }

    /// Applies each row's experts and sums their outputs by the weights of the route.
    ///
    /// # Shapes
    /// h `[m top_k, in]`; returns `[m, out]`.
    pub fn forward_sum(&self, h: &Tensor<2>, route: &MoeRoute) -> Tensor<2> {
        let parts = self.weights.iter().map(|weight| ops::moe_linear_sum(h.clone(), weight, route, self.precision));
        let mut parts = parts.collect::<Vec<_>>();
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) }
    }
}
