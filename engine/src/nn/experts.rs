//! The matrices of a mixture of experts.

use atelico_kernels::ops::{self, Activation, MoeRoute, Precision, Weight};
use burn::tensor::Tensor;

use super::RmsNorm;

/// One linear layer of every expert, `[experts, out, in]`, stored as the checkpoint stores it.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[experts * out_i, in]` each; the outputs of an expert lie side by side.
    pub(crate) weights: Vec<Weight>,
    /// Arithmetic of the products.
    pub(crate) precision: Precision,
}

impl Experts {
    /// Norms x if asked to, applies each row's experts, then `activation`.
    ///
    /// # Shapes
    /// x `[m, in]`, or `[m top_k, in]` with a row for each choice; returns `[m top_k, Σ out_i]`, or half as
    /// wide with a gate.
    pub fn forward(
        &self,
        x: &Tensor<2>,
        norm: Option<&RmsNorm>,
        route: &MoeRoute,
        activation: Activation,
    ) -> Tensor<2> {
        ops::moe_linear(x, &self.weights, route, norm.map(RmsNorm::parts), activation, self.precision)
    }

    /// Applies each row's experts, sums their outputs by the weights of the route and adds `residual`.
    ///
    /// # Shapes
    /// h `[m top_k, in]`, residual `[m, out]`; returns `[m, out]`.
    pub fn forward_sum(&self, h: &Tensor<2>, route: &MoeRoute, residual: Option<Tensor<2>>) -> Tensor<2> {
        if let [weight] = &*self.weights {
            return ops::moe_linear_sum(h.clone(), weight, route, residual, self.precision);
        }
        let part = |weight| ops::moe_linear_sum(h.clone(), weight, route, None, self.precision);
        let sum = Tensor::cat(self.weights.iter().map(part).collect(), 1);
        match residual {
            Some(residual) => sum + residual,
            None => sum,
        }
    }
}
