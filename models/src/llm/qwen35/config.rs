//! What a Qwen 3.5 or 3.6 config says.

use atelico_engine::config::Config;
use atelico_engine::load::Weights;
use atelico_engine::nn::{RmsNorm, RopeConfig};
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{KvSource, RopePairing};
use serde_json::Value;

use super::moe::MoeConfig;
use crate::parts::{AttentionConfig, DeltaNetConfig};

/// Most layers of a model.
const MAX_LAYERS: usize = 1024;

/// Part of a head that is rotated where a config does not say.
const PARTIAL_ROTARY_FACTOR: f64 = 0.25;

/// The feed-forward layers of a checkpoint, all of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum FeedForwardConfig {
    Dense { intermediate_size: usize },
    Sparse(MoeConfig),
}

/// The text settings of a checkpoint.
#[derive(Debug)]
pub(super) struct Qwen35Config {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) feed_forward: FeedForwardConfig,
    pub(super) tie_word_embeddings: bool,
    rms_norm_eps: f64,
    /// Added to the weights of all norms but those of DeltaNet layers.
    norm_offset: f32,
    /// Whether each layer is one of attention; the others are of DeltaNet.
    pub(super) full_attention: Vec<bool>,
    pub(super) attention: AttentionConfig,
    pub(super) delta_net: DeltaNetConfig,
    pub(super) rope: RopeConfig,
    /// Elements of a head that are rotated. Text has the same position in every section of the
    /// multimodal rotation, which is then an ordinary one.
    pub(super) rotary_dim: usize,
}

impl Qwen35Config {
    /// Reads `text_config`, or `config` itself in files without the multimodal parts.
    pub(super) fn new(config: &Config<'_>) -> Result<Self> {
        let text = config.text();
        for (key, known) in [("hidden_act", "silu"), ("output_gate_type", "swish")] {
            match text.str(key) {
                // Two names of one function.
                None | Some("silu" | "swish") => {}
                Some(other) => return refuse(key, format!("is `{other}`; this architecture is known with `{known}`")),
            }
        }
        for (key, known) in [("attention_bias", false), ("attn_output_gate", true)] {
            if text.flag_or(key, known)? != known {
                return refuse(key, format!("is {}; this architecture is known with {known}", !known));
            }
        }
        let hidden_size = text.size("hidden_size")?;
        let rms_norm_eps = text.positive_or("rms_norm_eps", 1e-6)?;
        // Folders store the weights of norms as differences from 1, GGUF files as they are.
        let norm_offset = if text.flag_or("zero_centered_norms", true)? { 1.0 } else { 0.0 };
        let head_dim = text.size("head_dim")?;
        Ok(Self {
            vocab_size: text.size("vocab_size")?,
            hidden_size,
            feed_forward: feed_forward(&text, hidden_size)?,
            tie_word_embeddings: match text.value("tie_word_embeddings") {
                Some(_) => text.flag_or("tie_word_embeddings", false)?,
                None => config.flag_or("tie_word_embeddings", false)?,
            },
            rms_norm_eps,
            norm_offset,
            full_attention: full_attention(&text)?,
            attention: AttentionConfig {
                hidden_size,
                num_attention_heads: text.size("num_attention_heads")?,
                num_key_value_heads: text.size("num_key_value_heads")?,
                head_dim,
                pairing: RopePairing::Half,
                qk_norm_eps: Some(rms_norm_eps),
                sliding_window: None,
                scale: (head_dim as f32).powf(-0.5),
                kv: KvSource::Projected,
                norm_offset,
                output_gate: true,
            },
            delta_net: DeltaNetConfig {
                hidden_size,
                num_key_heads: text.size("linear_num_key_heads")?,
                num_value_heads: text.size("linear_num_value_heads")?,
                key_head_dim: text.size("linear_key_head_dim")?,
                value_head_dim: text.size("linear_value_head_dim")?,
                conv_kernel_dim: text.size("linear_conv_kernel_dim")?,
                norm_eps: rms_norm_eps,
                tiled: text.flag_or("linear_value_heads_tiled", false)?,
            },
            rope: RopeConfig::from_config(&text)?,
            rotary_dim: rotary_dim(&text, head_dim)?,
        })
    }

    /// The norm `name` over the residual stream.
    pub(super) fn norm(&self, name: &str, weights: &Weights<'_>) -> Result<RmsNorm> {
        let weight = weights.vector(&format!("{name}.weight"), self.hidden_size)?;
        Ok(RmsNorm::new(weight + self.norm_offset, self.rms_norm_eps))
    }
}

fn refuse<T>(key: &str, problem: String) -> Result<T> {
    Err(Error::Config { key: key.into(), problem })
}

/// Sparse layers in a checkpoint with experts, else dense ones.
fn feed_forward(text: &Config<'_>, hidden_size: usize) -> Result<FeedForwardConfig> {
    if text.value("num_experts").is_none() {
        return Ok(FeedForwardConfig::Dense { intermediate_size: text.size("intermediate_size")? });
    }
    if text.value("mlp_only_layers").and_then(Value::as_array).is_some_and(|layers| !layers.is_empty()) {
        return refuse("mlp_only_layers", "names layers; every layer of this architecture has experts".into());
    }
    Ok(FeedForwardConfig::Sparse(MoeConfig {
        hidden_size,
        num_experts: text.size("num_experts")?,
        num_experts_per_tok: text.size("num_experts_per_tok")?,
        moe_intermediate_size: text.size("moe_intermediate_size")?,
        shared_expert_intermediate_size: text.size("shared_expert_intermediate_size")?,
    }))
}

/// The kinds of the layers: `layer_types`, or every `full_attention_interval`-th one of attention.
fn full_attention(text: &Config<'_>) -> Result<Vec<bool>> {
    let layers = text.size("num_hidden_layers")?;
    if layers > MAX_LAYERS {
        return refuse("num_hidden_layers", format!("is {layers}; expected at most {MAX_LAYERS}"));
    }
    let Some(list) = text.value("layer_types") else {
        let interval = text.size_or("full_attention_interval", 4)?;
        return Ok((1..=layers).map(|index| index.is_multiple_of(interval)).collect());
    };
    let kind = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(true),
        Some("linear_attention") => Ok(false),
        _ => refuse("layer_types", format!("has a layer {kind}; known: full_attention, linear_attention")),
    };
    match list.as_array() {
        Some(list) if list.len() == layers => list.iter().map(kind).collect(),
        _ => refuse("layer_types", format!("is not a list of {layers} layers")),
    }
}

/// `rotary_dim`, or the part of a head that `partial_rotary_factor` names.
fn rotary_dim(text: &Config<'_>, head_dim: usize) -> Result<usize> {
    let dim = if text.value("rotary_dim").is_some() {
        text.size("rotary_dim")?
    } else {
        let parameters = text.value("rope_parameters").filter(|parameters| parameters.is_object()).map(Config::new);
        let stated = parameters.filter(|parameters| parameters.value("partial_rotary_factor").is_some());
        let factor = stated.unwrap_or(*text).positive_or("partial_rotary_factor", PARTIAL_ROTARY_FACTOR)?;
        (head_dim as f64 * factor) as usize
    };
    if dim == 0 || dim > head_dim || !dim.is_multiple_of(2) {
        return refuse("rotary_dim", format!("is {dim}; expected an even number up to head_dim {head_dim}"));
    }
    Ok(dim)
}
