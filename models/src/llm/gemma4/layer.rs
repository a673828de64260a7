//! One layer: attention, a dense feed-forward layer, experts beside it, and the layer's own input.

use atelico_engine::Result;
use atelico_engine::load::Weights;
use atelico_engine::model::Step;
use atelico_engine::nn::{Linear, RmsNorm, Rope};
use atelico_engine::state::KvCache;
use atelico_kernels::ops::{self, MoeGatingSpec, MoeScores, RopePairing};
use burn::tensor::Tensor;

use super::config::{Gemma4Config, MoeConfig};
use crate::parts::{Attention, AttentionConfig, ExpertActivation, ExpertsConfig, GeGlu, RoutedExperts, Router};

/// A block with norms before and after attention and feed-forward layer.
#[derive(Debug)]
pub(super) struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GeGlu,
    moe: Option<Moe>,
    post_feedforward_layernorm: RmsNorm,
    per_layer_input: Option<PerLayerInput>,
    layer_scalar: f32,
}

impl Layer {
    pub(super) fn load(config: &Gemma4Config, index: usize, rope: &Rope, weights: &Weights<'_>) -> Result<Self> {
        let layer = config.layers[index];
        let hidden_size = config.hidden_size;
        let norm = |name| weights.rms_norm(name, hidden_size, config.rms_norm_eps);
        let attention = AttentionConfig {
            hidden_size,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: layer.num_key_value_heads,
            head_dim: layer.head_dim,
            pairing: RopePairing::Half,
            qk_norm_eps: Some(config.rms_norm_eps),
            sliding_window: layer.sliding_window,
            scale: 1.0,
            kv: layer.kv,
            norm_offset: 0.0,
            output_gate: false,
        };
        let per_layer_input = |size| -> Result<PerLayerInput> {
            Ok(PerLayerInput {
                gate: weights.linear("per_layer_input_gate", size, hidden_size)?,
                projection: weights.linear("per_layer_projection", hidden_size, size)?,
                norm: norm("post_per_layer_input_norm")?,
                offset: index * size,
            })
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(&attention, rope, &weights.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            mlp: GeGlu::load(hidden_size, layer.intermediate_size, &weights.at("mlp"))?,
            moe: config.moe.map(|moe| Moe::load(config, moe, weights)).transpose()?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            per_layer_input: config.per_layer_input.map(|input| per_layer_input(input.size)).transpose()?,
            layer_scalar: weights.host_vector("layer_scalar", 1)?[0],
        })
    }

    /// x `[m, hidden_size]`, the per-layer inputs `[m, layers size]` where the model has them; returns
    /// `[m, hidden_size]`.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        per_layer_inputs: Option<&Tensor<2>>,
        step: &Step,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let attended = self.self_attn.forward(self.input_layernorm.forward(x.clone()), step, cache);
        let attended = self.post_attention_layernorm.forward(attended);
        let (x, normed) = self.pre_feedforward_layernorm.forward_add(attended, x);
        let mut update = self.mlp.forward(normed);
        if let Some(moe) = &self.moe {
            update = moe.forward(&x, update);
        }
        // The layer's scalar rides in its last addition.
        let norm = &self.post_feedforward_layernorm;
        match (&self.per_layer_input, per_layer_inputs) {
            (Some(input), Some(inputs)) => input.forward(norm.add_normed(update, x, 1.0), inputs, self.layer_scalar),
            _ => norm.add_normed(update, x, self.layer_scalar),
        }
    }
}

/// Experts whose output is added to that of the dense layer, each behind a norm of its own.
#[derive(Debug)]
struct Moe {
    /// Without a weight in the reference; it carries the router's scale.
    router_norm: RmsNorm,
    router: Router,
    experts: RoutedExperts,
    post_feedforward_layernorm_1: RmsNorm,
    pre_feedforward_layernorm_2: RmsNorm,
    post_feedforward_layernorm_2: RmsNorm,
}

impl Moe {
    fn load(config: &Gemma4Config, moe: MoeConfig, weights: &Weights<'_>) -> Result<Self> {
        let hidden_size = config.hidden_size;
        let norm = |name| weights.rms_norm(name, hidden_size, config.rms_norm_eps);
        let spec = MoeGatingSpec {
            experts: moe.num_experts,
            top_k: moe.top_k_experts,
            shared: false,
            scores: MoeScores::Softmax,
            groups: 1,
            top_groups: 1,
            normalize: true,
            scale: 1.0,
        };
        let router = weights.at("router");
        let scale = router.vector("scale", hidden_size)? * (hidden_size as f64).powf(-0.5);
        let experts = ExpertsConfig {
            hidden_size,
            intermediate_size: moe.intermediate_size,
            count: moe.num_experts,
            activation: ExpertActivation::GeGlu,
        };
        Ok(Self {
            router_norm: RmsNorm::new(scale, config.rms_norm_eps),
            router: Router::new(router.linear("proj", moe.num_experts, hidden_size)?, spec)?
                .with_expert_scale(router.vector("per_expert_scale", moe.num_experts)?),
            experts: RoutedExperts::load(&experts, &weights.at("experts"), None)?,
            post_feedforward_layernorm_1: norm("post_feedforward_layernorm_1")?,
            pre_feedforward_layernorm_2: norm("pre_feedforward_layernorm_2")?,
            post_feedforward_layernorm_2: norm("post_feedforward_layernorm_2")?,
        })
    }

    /// x, the residual after attention, and the dense layer's output, both `[m, hidden_size]`.
    fn forward(&self, x: &Tensor<2>, dense: Tensor<2>) -> Tensor<2> {
        let route = self.router.forward(x.clone(), Some(&self.router_norm));
        let experts = self.experts.forward(x, Some(&self.pre_feedforward_layernorm_2), &route, None);
        let dense = self.post_feedforward_layernorm_1.forward(dense);
        self.post_feedforward_layernorm_2.add_normed(experts, dense, 1.0)
    }
}

/// What a layer adds from its part of the second embedding.
#[derive(Debug)]
struct PerLayerInput {
    gate: Linear,
    projection: Linear,
    norm: RmsNorm,
    /// First column of the layer's part.
    offset: usize,
}

impl PerLayerInput {
    /// x `[m, hidden_size]`, inputs `[m, layers size]`; returns the sum times `scale`.
    fn forward(&self, x: Tensor<2>, inputs: &Tensor<2>, scale: f32) -> Tensor<2> {
        let gated = ops::gelu_mul_table(self.gate.forward(x.clone()), inputs.clone(), self.offset); // [m, size]
        self.norm.add_normed(self.projection.forward(gated), x, scale)
    }
}
