//! Qwen 3.5 and 3.6 (Alibaba, 2026): three layers of Gated DeltaNet to one of gated attention, each
//! with a dense or a sparse feed-forward layer.
//!
//! Of a multimodal checkpoint only the language model is read; so are none of the layers that predict
//! further tokens (`mtp`). Reference: transformers `modeling_qwen3_5.py`, `modeling_qwen3_5_moe.py`.

mod config;
mod moe;

use atelico_engine::Result;
use atelico_engine::config::Config;
use atelico_engine::load::{Placement, Weights};
use atelico_engine::model::{LanguageModel, LogitRows, Step};
use atelico_engine::nn::{Embedding, Linear, RmsNorm, Rope};
use atelico_engine::state::{DecodeState, KvCache, LayerState};
use burn::tensor::Tensor;

use self::config::{FeedForwardConfig, Qwen35Config};
use self::moe::SparseMoe;
use crate::parts::{Attention, GatedDeltaNet, SwiGlu};

/// Where the language model lies: in multimodal checkpoints, and in others.
const PREFIXES: [&str; 2] = ["model.language_model", "model"];

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    Ok(Box::new(Qwen35::load(Qwen35Config::new(config)?, weights)?))
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of these a layer")]
enum Mixer {
    Linear(GatedDeltaNet),
    Full(Attention),
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of these a layer")]
enum FeedForward {
    Dense(SwiGlu),
    Sparse(SparseMoe),
}

#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

#[derive(Debug)]
struct Qwen35 {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    config: Qwen35Config,
    placement: Placement,
}

impl Qwen35 {
    fn load(config: Qwen35Config, weights: &Weights<'_>) -> Result<Self> {
        let Qwen35Config { vocab_size, hidden_size, .. } = config;
        let placement = weights.placement().clone();
        let [multimodal, text] = PREFIXES.map(|prefix| weights.at(prefix));
        let model = if multimodal.contains("embed_tokens.weight") { multimodal } else { text };
        let rope = Rope::new(&config.rope, config.rotary_dim, None, placement.context, &placement.device);
        let embed_tokens = model.embedding("embed_tokens", vocab_size, hidden_size)?;
        let layers = (0..config.full_attention.len())
            .map(|index| Layer::load(&config, index, &rope, &model.at("layers").at(index)))
            .collect::<Result<Vec<_>>>()?;
        let norm = config.norm("norm", &model)?;
        let lm_head = if config.tie_word_embeddings {
            embed_tokens.tied_head(placement.precision)
        } else {
            weights.linear("lm_head", vocab_size, hidden_size)?
        };
        Ok(Self { embed_tokens, layers, norm, lm_head, config, placement })
    }
}

impl Layer {
    fn load(config: &Qwen35Config, index: usize, rope: &Rope, weights: &Weights<'_>) -> Result<Self> {
        let mixer = if config.full_attention[index] {
            Mixer::Full(Attention::load(&config.attention, rope, &weights.at("self_attn"))?)
        } else {
            Mixer::Linear(GatedDeltaNet::load(&config.delta_net, &weights.at("linear_attn"))?)
        };
        let mlp = weights.at("mlp");
        let mlp = match &config.feed_forward {
            FeedForwardConfig::Dense { intermediate_size } => {
                FeedForward::Dense(SwiGlu::load(config.hidden_size, *intermediate_size, &mlp)?)
            }
            FeedForwardConfig::Sparse(moe) => FeedForward::Sparse(SparseMoe::load(moe, &mlp)?),
        };
        Ok(Self {
            input_layernorm: config.norm("input_layernorm", weights)?,
            mixer,
            post_attention_layernorm: config.norm("post_attention_layernorm", weights)?,
            mlp,
        })
    }
}

impl LanguageModel for Qwen35 {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn new_state(&self) -> Result<DecodeState> {
        let Qwen35Config { attention, delta_net, .. } = &self.config;
        let state = |layer: &Layer| match layer.mixer {
            Mixer::Linear(_) => Ok(LayerState::Recurrent(delta_net.new_state(&self.placement))),
            Mixer::Full(_) => {
                KvCache::new(attention.num_key_value_heads, attention.head_dim, &self.placement).map(LayerState::Kv)
            }
        };
        Ok(DecodeState { layers: self.layers.iter().map(state).collect::<Result<_>>()? })
    }

    fn forward(&self, step: &Step, state: &mut DecodeState) -> Tensor<2> {
        let mut residual = self.embed_tokens.forward(step.tokens.clone()); // [m, hidden_size]
        for (layer, memory) in self.layers.iter().zip(&mut state.layers) {
            let norm = &layer.input_layernorm;
            residual = match &layer.mixer {
                Mixer::Linear(delta_net) => delta_net.forward_residual(residual, norm, step, memory.recurrent()),
                Mixer::Full(attention) => attention.forward_residual(residual, norm, step, memory.kv()),
            };
            let norm = &layer.post_attention_layernorm;
            residual = match &layer.mlp {
                FeedForward::Dense(mlp) => mlp.forward_residual(residual, norm),
                FeedForward::Sparse(moe) => moe.forward_residual(residual, norm),
            };
        }
        if step.logits == LogitRows::Last {
            let m = residual.dims()[0];
            residual = residual.narrow(0, m - 1, 1);
        }
        self.lm_head.forward_normed(residual, Some(&self.norm)) // [rows, vocab_size]
    }
}
