//! The mixture of experts of Nemotron 3: a sigmoid router, experts that may work on a narrower
//! projection of the token, and a shared expert that sees the token itself.

use atelico_engine::Result;
use atelico_engine::config::Config;
use atelico_engine::load::Weights;
use atelico_engine::nn::{Linear, RmsNorm};
use atelico_kernels::ops::{MoeGatingSpec, MoeScores};
use burn::tensor::Tensor;

use crate::parts::{ExpertActivation, ExpertsConfig, Relu2Mlp, RoutedExperts, Router};

/// `fc2_latent_proj(Σ w_e expert_e(fc1_latent_proj(x))) + shared_experts(x)`; without a latent size
/// the experts read and write the token's own width.
#[derive(Debug)]
pub(super) struct Moe {
    router: Router,
    /// To and from the width that the experts work on.
    latent: Option<(Linear, Linear)>,
    experts: RoutedExperts,
    shared_experts: Option<Relu2Mlp>,
}

impl Moe {
    pub(super) fn load(config: &Config<'_>, hidden_size: usize, weights: &Weights<'_>) -> Result<Self> {
        let experts = config.size("n_routed_experts")?;
        let spec = MoeGatingSpec {
            experts,
            top_k: config.size("num_experts_per_tok")?,
            shared: false,
            scores: MoeScores::Sigmoid,
            groups: config.size_or("n_group", 1)?,
            top_groups: config.size_or("topk_group", 1)?,
            normalize: config.flag_or("norm_topk_prob", true)?,
            scale: config.positive_or("routed_scaling_factor", 1.0)? as f32,
        };
        let router = Router::new(weights.linear("gate", experts, hidden_size)?, spec)?
            .with_bias(weights.vector("gate.e_score_correction_bias", experts)?);
        let (width, latent) = match config.value("moe_latent_size") {
            None => (hidden_size, None),
            Some(_) => {
                let width = config.size("moe_latent_size")?;
                let down = weights.linear("fc1_latent_proj", width, hidden_size)?;
                (width, Some((down, weights.linear("fc2_latent_proj", hidden_size, width)?)))
            }
        };
        let shape = ExpertsConfig {
            hidden_size: width,
            intermediate_size: config.size("moe_intermediate_size")?,
            count: experts,
            activation: ExpertActivation::Relu2,
        };
        let shared_experts = match config.value("n_shared_experts").and_then(serde_json::Value::as_u64) {
            Some(0) => None,
            _ => {
                let width = config.size("moe_shared_expert_intermediate_size")?;
                Some(Relu2Mlp::load(hidden_size, width, &weights.at("shared_experts"))?)
            }
        };
        Ok(Self { router, latent, experts: RoutedExperts::load(&shape, &weights.at("experts"), None)?, shared_experts })
    }

    /// `residual + mixture(norm(residual))`, `[m, hidden_size]`.
    pub(super) fn forward_residual(&self, residual: Tensor<2>, norm: &RmsNorm) -> Tensor<2> {
        let (x, norm) = norm.for_products(residual.clone());
        let route = self.router.forward(x.clone(), norm);
        let residual = match &self.shared_experts {
            Some(shared) => shared.forward_add(x.clone(), norm, residual),
            None => residual,
        };
        match &self.latent {
            Some((down, up)) => {
                let latent = down.forward_normed(x, norm); // [m, moe_latent_size]
                up.forward_add(self.experts.forward(&latent, None, &route, None), residual)
            }
            None => self.experts.forward(&x, norm, &route, Some(residual)),
        }
    }
}
