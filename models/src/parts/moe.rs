//! Mixture of experts: a router chooses a few experts for each token, whose outputs are summed.

use atelico_engine::load::Weights;
use atelico_engine::nn::{Experts, Linear, RmsNorm};
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

    /// The experts of each row of x `[m, hidden_size]`, normed first if asked to.
    pub(crate) fn forward(&self, x: Tensor<2>, norm: Option<&RmsNorm>) -> MoeRoute {
        let logits = self.proj.forward_normed(x, norm); // [m, experts]
        ops::moe_gate(logits, self.bias.clone(), self.expert_scale.clone(), self.spec)
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

/// Shape of the experts of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpertsConfig {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) count: usize,
    pub(crate) activation: ExpertActivation,
}

/// Merged name of a layer of all experts, names and outputs of its parts, and inputs.
type ExpertLayer = (&'static str, Vec<(&'static str, usize)>, usize);

impl ExpertsConfig {
    /// The first layer and the second.
    fn layers(&self) -> [ExpertLayer; 2] {
        let Self { hidden_size, intermediate_size, .. } = *self;
        let (gate, up) = (("gate_proj", intermediate_size), ("up_proj", intermediate_size));
        let first = match self.activation {
            ExpertActivation::Relu2 => ("up_proj", vec![up], hidden_size),
            ExpertActivation::SwiGlu | ExpertActivation::GeGlu => ("gate_up_proj", vec![gate, up], hidden_size),
        };
        [first, ("down_proj", vec![("down_proj", hidden_size)], intermediate_size)]
    }
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
    /// Loads the experts from the tensors `gate_up_proj` or `gate_proj` and `up_proj`, and `down_proj`, stacked or
    /// one per expert; without a gate from `up_proj` and `down_proj`. The expert at `shared` becomes the last.
    pub(crate) fn load(config: &ExpertsConfig, weights: &Weights<'_>, shared: Option<&Weights<'_>>) -> Result<Self> {
        let [up_proj, down_proj] =
            config.layers().map(|(merged, parts, input)| weights.experts(merged, &parts, config.count, input, shared));
        Ok(Self { up_proj: up_proj?, down_proj: down_proj?, activation: config.activation })
    }

    /// Whether the expert at `shared` can be loaded as one of these.
    pub(crate) fn take(config: &ExpertsConfig, weights: &Weights<'_>, shared: &Weights<'_>) -> Result<bool> {
        let [up_proj, down_proj] = config
            .layers()
            .map(|(merged, parts, input)| weights.experts_take(merged, &parts, config.count, input, shared));
        Ok(up_proj? && down_proj?)
    }

    /// x `[m, hidden_size]`, normed first if asked to; returns the weighted sum of each row's experts plus
    /// `residual`, `[m, hidden_size]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor<2>,
        norm: Option<&RmsNorm>,
        route: &MoeRoute,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let up = |activation| self.up_proj.forward(x, norm, route, activation); // [m top_k, outputs]
        let h = match self.activation {
            ExpertActivation::SwiGlu => up(Activation::SwiGlu),
            ExpertActivation::GeGlu => ops::gelu_mul(up(Activation::None)),
            ExpertActivation::Relu2 => up(Activation::Relu2),
        }; // [m top_k, intermediate_size]
        self.down_proj.forward_sum(&h, route, residual)
    }
}
