//! The sparse feed-forward layer: a few of many experts, and one that all tokens share.

use atelico_engine::Result;
use atelico_engine::load::Weights;
use atelico_engine::nn::Linear;
use atelico_kernels::ops::{self, GateScope, MoeGatingSpec, MoeScores};
use burn::tensor::Tensor;

use crate::parts::{ExpertActivation, RoutedExperts, Router, SwiGlu};

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
    shared_expert: SwiGlu,
    shared_expert_gate: Linear,
}

impl SparseMoe {
    pub(super) fn load(config: &MoeConfig, weights: &Weights<'_>) -> Result<Self> {
        let MoeConfig { hidden_size, num_experts, moe_intermediate_size, .. } = *config;
        let gating = MoeGatingSpec {
            experts: num_experts,
            top_k: config.num_experts_per_tok,
            scores: MoeScores::Softmax,
            groups: 1,
            top_groups: 1,
            normalize: true,
            scale: 1.0,
        };
        let (activation, experts) = (ExpertActivation::SwiGlu, weights.at("experts"));
        let shared = config.shared_expert_intermediate_size;
        Ok(Self {
            gate: Router::new(weights.linear("gate", num_experts, hidden_size)?, gating)?,
            experts: RoutedExperts::load(hidden_size, moe_intermediate_size, num_experts, activation, &experts)?,
            shared_expert: SwiGlu::load(hidden_size, shared, &weights.at("shared_expert"))?,
            shared_expert_gate: weights.linear("shared_expert_gate", 1, hidden_size)?,
        })
    }

    /// `residual + mixture(x)`, `[m, hidden_size]` each.
    pub(super) fn forward_add(&self, x: &Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        let gate = self.shared_expert_gate.forward(x.clone()); // [m, 1]
        let shared = ops::sigmoid_gate(self.shared_expert.forward(x.clone()), gate, 0, GateScope::Row);
        let route = self.gate.forward(x.clone());
        self.experts.forward(x, &route, Some(residual + shared))
    }
}
