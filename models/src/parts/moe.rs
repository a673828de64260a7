//! Mixture of experts: a router chooses a few experts for each token, whose outputs are summed.

use atelico_engine::load::Weights;
use atelico_engine::nn::{Experts, Linear};
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{self, Activation, MoeGatingSpec, MoeRoute};
use burn::tensor::Tensor;

/// Most experts of a layer.
const MAX_EXPERTS: usize = 1024;

/// Chooses experts from a projection of the token.
#[derive(Debug)]
pub(crate) struct Router {
    proj: Linear,
    /// Added to the scores for the choice alone, `[experts]`.
    bias: Option<Tensor<1>>,
    /// Factor on each expert's weight, `[experts]`.
    expert_scale: Option<Tensor<1>>,
    spec: MoeGatingSpec,
}

impl Router {
    /// A router with projection `proj`, `[experts, hidden_size]`.
    ///
    /// # Errors
    /// When `spec` asks for more experts than there are, or its groups do not divide them.
    pub(crate) fn new(proj: Linear, spec: MoeGatingSpec) -> Result<Self> {
        let MoeGatingSpec { experts, top_k, groups, top_groups, .. } = spec;
        let problem = |key: &str, problem: String| Err(Error::Config { key: key.into(), problem });
        if experts > MAX_EXPERTS {
            return problem("num_experts", format!("is {experts}; expected at most {MAX_EXPERTS}"));
        }
        if groups == 0 || !experts.is_multiple_of(groups) {
            return problem("n_group", format!("is {groups}, which does not divide the {experts} experts"));
        }
        if top_groups == 0 || top_groups > groups {
            return problem("topk_group", format!("is {top_groups}, of {groups} groups"));
        }
        if top_k == 0 || top_k > experts / groups * top_groups {
            return problem("num_experts_per_tok", format!("is {top_k}, of {experts} experts"));
        }
        // In float32 at any number of rows: rounding could choose other experts.
        Ok(Self { proj: proj.exact(), bias: None, expert_scale: None, spec })
    }

    /// The same router whose choice goes by score plus `bias`, `[experts]`.
    pub(crate) fn with_bias(self, bias: Tensor<1>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The same router with a factor on the weight of each expert, `[experts]`.
    pub(crate) fn with_expert_scale(self, expert_scale: Tensor<1>) -> Self {
        Self { expert_scale: Some(expert_scale), ..self }
    }

    /// The experts of each row of x `[m, hidden_size]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> MoeRoute {
        ops::moe_gate(self.proj.forward(x), self.bias.clone(), self.expert_scale.clone(), self.spec)
    }
}

/// What stands between the projections of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpertActivation {
    /// `silu(gate_proj(x)) * up_proj(x)`.
    SwiGlu,
    /// `gelu(gate_proj(x)) * up_proj(x)`.
    GeGlu,
    /// `relu(up_proj(x))²`, without a gate.
    Relu2,
}

/// The experts of a layer: `down_proj(activation(…))` each.
#[derive(Debug)]
pub(crate) struct RoutedExperts {
    /// Gate and up merged, or up alone.
    up_proj: Experts,
    down_proj: Experts,
    activation: ExpertActivation,
}

impl RoutedExperts {
    /// Loads `count` experts from the tensors `gate_up_proj` or `gate_proj` and `up_proj`, and
    /// `down_proj`, stacked or one per expert; without a gate from `up_proj` and `down_proj`.
    pub(crate) fn load(
        hidden_size: usize,
        intermediate_size: usize,
        count: usize,
        activation: ExpertActivation,
        weights: &Weights<'_>,
    ) -> Result<Self> {
        let gate_up = [("gate_proj", intermediate_size), ("up_proj", intermediate_size)];
        let (name, parts) = match activation {
            ExpertActivation::Relu2 => ("up_proj", &gate_up[1..]),
            _ => ("gate_up_proj", &gate_up[..]),
        };
        Ok(Self {
            up_proj: weights.experts(name, parts, count, hidden_size)?,
            down_proj: weights.experts("down_proj", &[("down_proj", hidden_size)], count, intermediate_size)?,
            activation,
        })
    }

    /// x `[m, hidden_size]`; returns the weighted sum of each row's experts plus `residual`, `[m, hidden_size]`.
    pub(crate) fn forward(&self, x: &Tensor<2>, route: &MoeRoute, residual: Option<Tensor<2>>) -> Tensor<2> {
        let up = |activation| self.up_proj.forward(x, route, activation); // [m top_k, outputs]
        let h = match self.activation {
            ExpertActivation::SwiGlu => ops::silu_mul(up(Activation::None)),
            ExpertActivation::GeGlu => ops::gelu_mul(up(Activation::None)),
            ExpertActivation::Relu2 => up(Activation::Relu2),
        }; // [m top_k, intermediate_size]
        self.down_proj.forward_sum(&h, route, residual)
    }
}
