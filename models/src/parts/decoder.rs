//! The pre-norm decoder that LLaMA and its relatives share.

use atelico_engine::config::Config;
use atelico_engine::load::{Placement, Weights};
use atelico_engine::model::{LanguageModel, LogitRows, Step};
use atelico_engine::nn::{Embedding, Linear, RmsNorm, Rope, RopeConfig};
use atelico_engine::state::{DecodeState, KvCache, LayerState};
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{KvSource, RopePairing};
use burn::tensor::Tensor;

use super::{Attention, AttentionConfig, SwiGlu};

/// The config fields that all architectures of this decoder read, as in `config.json`.
#[derive(Clone, Debug)]
pub(crate) struct DecoderConfig {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rms_norm_eps: f64,
    pub(crate) tie_word_embeddings: bool,
    pub(crate) rope: RopeConfig,
    pub(crate) pairing: RopePairing,
}

/// What may differ from layer to layer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LayerConfig {
    pub(crate) no_rope: bool,
    pub(crate) sliding_window: Option<usize>,
    pub(crate) qk_norm: bool,
}

impl DecoderConfig {
    pub(crate) fn from_config(config: &Config<'_>) -> Result<Self> {
        let hidden_size = config.size("hidden_size")?;
        let num_attention_heads = config.size("num_attention_heads")?;
        let head_dim = match config.value("head_dim") {
            Some(_) => config.size("head_dim")?,
            None if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
            None => {
                let problem = format!("is {num_attention_heads}, which does not divide hidden_size {hidden_size}");
                return Err(Error::Config { key: "num_attention_heads".into(), problem });
            }
        };
        match config.str("hidden_act") {
            None | Some("silu") => {}
            Some(other) => {
                let problem = format!("is `{other}`; this architecture is known with `silu`");
                return Err(Error::Config { key: "hidden_act".into(), problem });
            }
        }
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            hidden_size,
            intermediate_size: config.size("intermediate_size")?,
            num_hidden_layers: config.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: config.size_or("num_key_value_heads", num_attention_heads)?,
            head_dim,
            rms_norm_eps: config.positive_or("rms_norm_eps", 1e-6)?,
            tie_word_embeddings: config.flag_or("tie_word_embeddings", false)?,
            rope: RopeConfig::from_config(config)?,
            pairing: match config.str("rope_pairing") {
                Some("interleaved") => RopePairing::Interleaved,
                _ => RopePairing::Half,
            },
        })
    }
}

#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: SwiGlu,
}

/// Embedding, layers of attention and SwiGLU, final norm and output head.
#[derive(Debug)]
pub(crate) struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    config: DecoderConfig,
    placement: Placement,
}

impl Decoder {
    /// Loads the decoder; `layer` says what is particular about each layer.
    pub(crate) fn load(
        config: DecoderConfig,
        weights: &Weights<'_>,
        layer: impl Fn(usize) -> LayerConfig,
    ) -> Result<Self> {
        let DecoderConfig { vocab_size, hidden_size, rms_norm_eps, .. } = config;
        let placement = weights.placement().clone();
        let model = weights.at("model");
        let factors = match model.contains("rope_freqs.weight") {
            true => Some(model.host_vector("rope_freqs.weight", config.head_dim / 2)?),
            false => None,
        };
        let rope = Rope::new(&config.rope, config.head_dim, factors.as_deref(), placement.context, &placement.device);
        let embed_tokens = model.embedding("embed_tokens", vocab_size, hidden_size)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                let weights = model.at("layers").at(index);
                let options = layer(index);
                let attention = AttentionConfig {
                    hidden_size,
                    num_attention_heads: config.num_attention_heads,
                    num_key_value_heads: config.num_key_value_heads,
                    head_dim: config.head_dim,
                    pairing: if options.no_rope { RopePairing::None } else { config.pairing },
                    qk_norm_eps: options.qk_norm.then_some(rms_norm_eps),
                    sliding_window: options.sliding_window,
                    norm_offset: 0.0,
                    output_gate: false,
                    scale: (config.head_dim as f32).powf(-0.5),
                    kv: KvSource::Projected,
                };
                Ok(Layer {
                    input_layernorm: weights.rms_norm("input_layernorm", hidden_size, rms_norm_eps)?,
                    self_attn: Attention::load(&attention, &rope, &weights.at("self_attn"))?,
                    post_attention_layernorm: weights.rms_norm(
                        "post_attention_layernorm",
                        hidden_size,
                        rms_norm_eps,
                    )?,
                    mlp: SwiGlu::load(hidden_size, config.intermediate_size, &weights.at("mlp"))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let norm = model.rms_norm("norm", hidden_size, rms_norm_eps)?;
        let lm_head = if config.tie_word_embeddings {
            embed_tokens.tied_head(placement.precision)
        } else {
            weights.linear("lm_head", vocab_size, hidden_size)?
        };
        Ok(Self { embed_tokens, layers, norm, lm_head, config, placement })
    }
}

impl LanguageModel for Decoder {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn new_state(&self) -> Result<DecodeState> {
        let cache = |_: &Layer| {
            KvCache::new(self.config.num_key_value_heads, self.config.head_dim, &self.placement).map(LayerState::Kv)
        };
        Ok(DecodeState { layers: self.layers.iter().map(cache).collect::<Result<_>>()? })
    }

    fn forward(&self, step: &Step, state: &mut DecodeState) -> Tensor<2> {
        let mut residual = self.embed_tokens.forward(step.tokens.clone()); // [m, hidden_size]
        for (layer, memory) in self.layers.iter().zip(&mut state.layers) {
            residual = layer.self_attn.forward_residual(residual, &layer.input_layernorm, step, memory.kv());
            residual = layer.mlp.forward_residual(residual, &layer.post_attention_layernorm);
        }
        if step.logits == LogitRows::Last {
            let m = residual.dims()[0];
            residual = residual.narrow(0, m - 1, 1);
        }
        self.lm_head.forward_normed(residual, Some(&self.norm)) // [rows, vocab_size]
    }
}
