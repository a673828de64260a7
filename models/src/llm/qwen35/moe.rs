//! The sparse feed-forward layer: a few of many experts, and one that all tokens share.

use atelico_engine::Result;
use atelico_engine::load::Weights;
use atelico_engine::nn::{Linear, RmsNorm};
use atelico_kernels::ops::{self, GateScope, MoeGatingSpec, MoeScores};
use burn::tensor::Tensor;

use crate::parts::{ExpertActivation, ExpertsConfig, RoutedExperts, Router, SwiGlu};

/// Shape of a sparse layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoeConfig {
    pub(super) hidden_size: usize,
    pub(super) num_experts: usize,
    pub(super) num_experts_per_tok: usize,
    pub(super) moe_intermediate_size: usize,
    pub(super) shared_expert_intermediate_size: usize,
}

/// `experts(x) + sigmoid(shared_expert_gate(x)) * shared_expert(x)`.
#[derive(Debug)]
pub(super) struct SparseMoe {
    gate: Router,
    experts: RoutedExperts,
    /// The shared expert and its gate, where it is not one of `experts`.
    shared: Option<(SwiGlu, Linear)>,
}

impl SparseMoe {
    pub(super) fn load(config: &MoeConfig, weights: &Weights<'_>) -> Result<Self> {
        let MoeConfig { hidden_size, num_experts, .. } = *config;
        let shape = ExpertsConfig {
            hidden_size,
            intermediate_size: config.moe_intermediate_size,
            count: num_experts,
            activation: ExpertActivation::SwiGlu,
        };
        let (experts, shared_expert) = (weights.at("experts"), weights.at("shared_expert"));
        let width = config.shared_expert_intermediate_size;
        // One more expert that everyone takes costs less than launches of its own.
        let joins = width == shape.intermediate_size && RoutedExperts::take(&shape, &experts, &shared_expert)?;
        let gating = MoeGatingSpec {
            experts: num_experts,
            top_k: config.num_experts_per_tok,
            shared: joins,
            scores: MoeScores::Softmax,
            groups: 1,
            top_groups: 1,
            normalize: true,
            scale: 1.0,
        };
        let projections = [("gate", num_experts), ("shared_expert_gate", 1)];
        let gate = weights.linear_fused(if joins { &projections } else { &projections[..1] }, hidden_size)?;
        let shared = match joins {
            true => None,
            false => Some((
                SwiGlu::load(hidden_size, width, &shared_expert)?,
                weights.linear("shared_expert_gate", 1, hidden_size)?,
            )),
        };
        Ok(Self {
            gate: Router::new(gate, gating)?,
            experts: RoutedExperts::load(&shape, &experts, joins.then_some(&shared_expert))?,
            shared,
        })
    }

    /// `residual + mixture(norm(residual))`, `[m, hidden_size]`.
    pub(super) fn forward_residual(&self, residual: Tensor<2>, norm: &RmsNorm) -> Tensor<2> {
        let (x, norm) = norm.for_products(residual.clone());
        let route = self.gate.forward(x.clone(), norm);
        let residual = match &self.shared {
            Some((expert, gate)) => {
                let gate = gate.forward_normed(x.clone(), norm); // [m, 1]
                residual + ops::sigmoid_gate(expert.forward(x.clone(), norm), gate, 0, GateScope::Row)
            }
            None => residual,
        };
        self.experts.forward(&x, norm, &route, Some(residual))
    }
}
