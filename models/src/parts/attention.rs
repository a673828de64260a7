//! Grouped-query attention with rotary embedding over a key-value cache.

use atelico_engine::load::{Rows, Weights};
use atelico_engine::model::Step;
use atelico_engine::nn::{Linear, RmsNorm, Rope};
use atelico_engine::state::KvCache;
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{AttentionSpec, KvSource, Precision, RopePairing, RopeSpec};
use burn::tensor::Tensor;

/// Shape and options of an attention layer.
#[derive(Clone, Debug)]
pub(crate) struct AttentionConfig {
    pub(crate) hidden_size: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) head_dim: usize,
    /// Pairing of the rotary embedding; `None` in layers without one.
    pub(crate) pairing: RopePairing,
    /// Epsilon of the head norms (`q_norm`, `k_norm`), where there are any.
    pub(crate) qk_norm_eps: Option<f64>,
    pub(crate) sliding_window: Option<usize>,
    /// Added to the weights of the head norms: 1 where they are stored as differences from it.
    pub(crate) norm_offset: f32,
    /// `q_proj` has rows for a gate after those of each query head, whose sigmoid scales the output.
    pub(crate) output_gate: bool,
    /// Factor on the scores.
    pub(crate) scale: f32,
    /// Source of the keys and values.
    pub(crate) kv: KvSource,
}

/// `o_proj(softmax(q kᵀ) v)` with merged query, key and value projections.
#[derive(Debug)]
pub(crate) struct Attention {
    qkv_proj: Linear,
    o_proj: Linear,
    /// `[head_dim]`; ones where the layer has no head norms.
    q_norm: Tensor<1>,
    k_norm: Tensor<1>,
    rope: Rope,
    rope_spec: RopeSpec,
    spec: AttentionSpec,
    /// Column of the merged projection where the output gate begins.
    gate_offset: Option<usize>,
}

impl Attention {
    pub(crate) fn load(config: &AttentionConfig, rope: &Rope, weights: &Weights<'_>) -> Result<Self> {
        let AttentionConfig {
            hidden_size, num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, ..
        } = *config;
        if heads % kv_heads != 0 {
            let problem = format!("is {kv_heads}, which does not divide the {heads} attention heads");
            return Err(Error::Config { key: "num_key_value_heads".into(), problem });
        }
        if head_dim % 4 != 0 || head_dim > 512 {
            let problem = format!("is {head_dim}; expected a multiple of 4 up to 512");
            return Err(Error::Config { key: "head_dim".into(), problem });
        }
        let kv = kv_heads * head_dim;
        let q = heads * head_dim;
        let (keys, values) = (Rows::all("k_proj", kv), Rows::all("v_proj", kv));
        let gated = |range| Rows::of_each("q_proj", 2 * q, 2 * head_dim, range);
        let queries = if config.output_gate { gated(0..head_dim) } else { Rows::all("q_proj", q) };
        let mut projections = match config.kv {
            KvSource::Projected | KvSource::NormedValues => vec![queries, keys, values],
            KvSource::KeysAsValues => vec![queries, keys],
            KvSource::Shared => vec![queries],
        };
        let gate_offset = config.output_gate.then_some(q + (projections.len() - 1) * kv);
        if config.output_gate {
            projections.push(gated(head_dim..2 * head_dim));
        }
        let qkv_proj = weights.linear_rows(&projections, hidden_size)?;
        let norm = |name, used: bool| match config.qk_norm_eps {
            Some(_) if used => weights.vector(name, head_dim).map(|weight| weight + config.norm_offset),
            _ => Ok(Tensor::ones([head_dim], &weights.placement().device)),
        };
        Ok(Self {
            qkv_proj,
            o_proj: weights.linear("o_proj", hidden_size, q)?,
            q_norm: norm("q_norm.weight", true)?,
            k_norm: norm("k_norm.weight", config.kv != KvSource::Shared)?,
            rope: rope.clone(),
            rope_spec: RopeSpec {
                heads,
                kv_heads,
                head_dim,
                pairing: config.pairing,
                qk_norm_eps_bits: config.qk_norm_eps.map(|eps| (eps as f32).to_bits()),
                kv: config.kv,
            },
            spec: AttentionSpec {
                heads,
                kv_heads,
                head_dim,
                scale: config.scale,
                window: config.sliding_window,
                consecutive: false,
                narrow: weights.placement().precision != Precision::F32,
            },
            gate_offset,
        })
    }

    /// x `[m, hidden_size]`; returns `[m, hidden_size]`.
    pub(crate) fn forward(&self, x: Tensor<2>, step: &Step, cache: &mut KvCache) -> Tensor<2> {
        // [m, (heads + 2 kv_heads) head_dim], or fewer; then the gate
        let qkv = self.qkv_proj.forward(x);
        self.o_proj.forward(self.attend(qkv, step, cache))
    }

    /// `residual + attention(norm(residual))`, `[m, hidden_size]`.
    pub(crate) fn forward_residual(
        &self,
        residual: Tensor<2>,
        norm: &RmsNorm,
        step: &Step,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let qkv = self.qkv_proj.forward_normed(residual.clone(), Some(norm));
        let attended = self.attend(qkv, step, cache); // [m, heads head_dim]
        self.o_proj.forward_add(attended, residual)
    }

    fn attend(&self, qkv: Tensor<2>, step: &Step, cache: &mut KvCache) -> Tensor<2> {
        cache.attend(
            qkv,
            self.q_norm.clone(),
            self.k_norm.clone(),
            self.rope.table().clone(),
            step.positions.clone(),
            step.slots.clone(),
            self.rope_spec,
            AttentionSpec { consecutive: step.consecutive, ..self.spec },
            self.gate_offset,
        )
    }
}
