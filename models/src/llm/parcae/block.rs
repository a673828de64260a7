//! The blocks of Parcae: pre-norm attention with value embeddings, and a squared-ReLU MLP.

use atelico_engine::load::Weights;
use atelico_engine::model::Step;
use atelico_engine::nn::{Embedding, Linear, RmsNorm, Rope};
use atelico_engine::state::KvCache;
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{self, AttentionSpec, KvSource, Precision, RopePairing, RopeSpec};
use burn::tensor::Tensor;

use super::config::BlockConfig;
use crate::parts::Residual;

/// Epsilon of the norms of query and key heads: that of float32, which torch's `rms_norm` takes
/// where none is given.
const QK_NORM_EPS: f32 = f32::EPSILON;
/// Features of the block's input that the gates of value embeddings see.
const VE_GATE_CHANNELS: usize = 32;

/// One block.
#[derive(Debug)]
pub(super) struct Block {
    norm_1: RmsNorm,
    attn: CausalSelfAttention,
    norm_2: RmsNorm,
    fc: Linear,
    proj: Linear,
    value_embed: Option<Embedding>,
}

impl Block {
    /// `value_embed` is the embedding of the block's position, where there is one.
    pub(super) fn load(
        config: &BlockConfig,
        rope: &Rope,
        weights: &Weights<'_>,
        value_embed: Option<Embedding>,
    ) -> Result<Self> {
        let BlockConfig { hidden_size, intermediate_size, norm_eps, .. } = *config;
        let mlp = weights.at("mlp");
        Ok(Self {
            norm_1: weights.rms_norm("norm_1", hidden_size, norm_eps)?,
            attn: CausalSelfAttention::load(config, rope, &weights.at("attn"))?,
            norm_2: weights.rms_norm("norm_2", hidden_size, norm_eps)?,
            fc: mlp.linear("fc", intermediate_size, hidden_size)?,
            proj: mlp.linear("proj", hidden_size, intermediate_size)?,
            value_embed,
        })
    }

    /// What each row's token adds to the values, `[m, kv_heads head_dim]`; the same in every loop.
    pub(super) fn value_embeds(&self, step: &Step) -> Option<Tensor<2>> {
        let embed = self.value_embed.as_ref().filter(|_| self.attn.ve_gate.is_some())?;
        Some(embed.forward(step.tokens.clone()))
    }

    /// Adds the block's outputs to the residual stream, `[m, hidden_size]`.
    pub(super) fn forward(&self, x: &mut Residual, values: Option<Tensor<2>>, step: &Step, cache: &mut KvCache) {
        let attended = self.attn.forward(x.normed(&self.norm_1), values, step, cache);
        x.add(attended);
        let hidden = self.fc.forward(x.normed(&self.norm_2)); // [m, intermediate_size]
        x.add(self.proj.forward(ops::relu2(hidden) * 0.5));
    }
}

/// Attention whose values can take a gated embedding of the token.
#[derive(Debug)]
struct CausalSelfAttention {
    /// `c_q`, `c_k` and `c_v` merged.
    qkv: Linear,
    c_proj: Linear,
    /// `[kv_heads, 32]` in float32.
    ve_gate: Option<Tensor<2>>,
    /// The head norms have no weights: `[head_dim]` ones.
    ones: Tensor<1>,
    rope: Rope,
    rope_spec: RopeSpec,
    spec: AttentionSpec,
}

impl CausalSelfAttention {
    fn load(config: &BlockConfig, rope: &Rope, weights: &Weights<'_>) -> Result<Self> {
        let BlockConfig { hidden_size, num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } =
            *config;
        if heads % kv_heads != 0 {
            let problem = format!("is {kv_heads}, which does not divide the {heads} attention heads");
            return Err(Error::Config { key: "num_key_value_heads".into(), problem });
        }
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let ve_gate = match weights.contains("ve_gate.weight") {
            true if hidden_size < VE_GATE_CHANNELS => {
                let problem = format!("is {hidden_size}; the gates of value embeddings read {VE_GATE_CHANNELS}");
                return Err(Error::Config { key: "n_embd".into(), problem });
            }
            true => Some(weights.float_tensor("ve_gate.weight", [kv_heads, VE_GATE_CHANNELS])?),
            false => None,
        };
        Ok(Self {
            qkv: weights.linear_fused(&[("c_q", q), ("c_k", kv), ("c_v", kv)], hidden_size)?,
            c_proj: weights.linear("c_proj", hidden_size, q)?,
            ve_gate,
            ones: Tensor::ones([head_dim], &weights.placement().device),
            rope: rope.clone(),
            // The model norms its heads after the rotation. A rotation keeps a head's length and the
            // norm has no weights, so the order makes no difference.
            rope_spec: RopeSpec {
                heads,
                kv_heads,
                head_dim,
                pairing: RopePairing::Interleaved,
                qk_norm_eps_bits: config.qk_norm.then_some(QK_NORM_EPS.to_bits()),
                kv: KvSource::Projected,
            },
            spec: AttentionSpec {
                heads,
                kv_heads,
                head_dim,
                scale: (head_dim as f32).powf(-0.5),
                window: None,
                consecutive: false,
                narrow: weights.placement().precision != Precision::F32,
            },
        })
    }

    /// x `[m, hidden_size]`, values `[m, kv_heads head_dim]`; returns `[m, hidden_size]`.
    fn forward(&self, x: Tensor<2>, values: Option<Tensor<2>>, step: &Step, cache: &mut KvCache) -> Tensor<2> {
        let mut qkv = self.qkv.forward(x.clone()); // [m, (heads + 2 kv_heads) head_dim]
        if let Some((gate, values)) = self.ve_gate.as_ref().zip(values) {
            qkv = ops::add_value_embeds(qkv, x, gate.clone(), values);
        }
        let attended = cache.attend(
            qkv,
            self.ones.clone(),
            self.ones.clone(),
            self.rope.table().clone(),
            step.positions.clone(),
            step.slots.clone(),
            self.rope_spec,
            AttentionSpec { consecutive: step.consecutive, ..self.spec },
            None,
        );
        self.c_proj.forward(attended)
    }
}
