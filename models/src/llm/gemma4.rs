//! Gemma 4 (Google, 2026), the text model of the whole family: E2B, E4B, 12B, 31B and 26B-A4B.
//!
//! Layers with a sliding window alternate with layers of full attention, whose heads are larger and
//! whose rotary embedding turns a quarter of a head. Values are normed; the large models take them
//! from the keys; in the small ones the last layers read the keys and values of earlier layers, and
//! every layer has an embedding of its own. 26B-A4B has experts beside each feed-forward layer. The
//! multimodal parts of released files are left unread. Reference: transformers
//! `modeling_gemma4.py`.

mod config;
mod layer;

use atelico_engine::Result;
use atelico_engine::config::Config;
use atelico_engine::load::{Placement, Weights};
use atelico_engine::model::{LanguageModel, LogitRows, Step};
use atelico_engine::nn::{Embedding, Linear, RmsNorm, Rope, RopeConfig};
use atelico_engine::state::{DecodeState, KvCache, LayerState};
use burn::tensor::Tensor;

use config::Gemma4Config;
use layer::Layer;

/// Where files keep the text model: with the multimodal parts, and alone.
const PREFIXES: [&str; 2] = ["model.language_model", "model"];

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    let config = Gemma4Config::new(config)?;
    let prefix = PREFIXES.into_iter().find(|prefix| weights.contains(&format!("{prefix}.embed_tokens.weight")));
    let model = weights.at(prefix.unwrap_or("model"));
    let Gemma4Config { vocab_size, hidden_size, rms_norm_eps, .. } = config;
    let placement = weights.placement().clone();
    let embed_tokens = model.embedding("embed_tokens", vocab_size, hidden_size)?;
    let per_layer_embedding = PerLayerEmbedding::load(&config, &model)?;
    let ropes = Ropes::new(&config, &model)?;
    let layers = (0..config.layers.len())
        .map(|index| {
            let rope = if config.layers[index].sliding_window.is_some() { &ropes.sliding } else { &ropes.full };
            Layer::load(&config, index, rope, &model.at("layers").at(index))
        })
        .collect::<Result<Vec<_>>>()?;
    let norm = model.rms_norm("norm", hidden_size, rms_norm_eps)?;
    let lm_head = if config.tie_word_embeddings {
        embed_tokens.tied_head(placement.precision)
    } else {
        weights.linear("lm_head", vocab_size, hidden_size)?
    };
    Ok(Box::new(Gemma4 { embed_tokens, per_layer_embedding, layers, norm, lm_head, config, placement }))
}

#[derive(Debug)]
struct Gemma4 {
    embed_tokens: Embedding,
    per_layer_embedding: Option<PerLayerEmbedding>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    config: Gemma4Config,
    placement: Placement,
}

impl LanguageModel for Gemma4 {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// A cache for every layer that has keys and values of its own: the first ones.
    fn new_state(&self) -> Result<DecodeState> {
        let owners = self.config.layers.iter().enumerate().filter(|(index, layer)| layer.kv_layer == *index);
        let cache = |(_, layer): (usize, &config::LayerConfig)| {
            KvCache::new(layer.num_key_value_heads, layer.head_dim, &self.placement).map(LayerState::Kv)
        };
        Ok(DecodeState { layers: owners.map(cache).collect::<Result<_>>()? })
    }

    fn forward(&self, step: &Step, state: &mut DecodeState) -> Tensor<2> {
        let embedded = self.embed_tokens.forward(step.tokens.clone());
        let mut x = embedded * (self.config.hidden_size as f64).sqrt(); // [m, hidden_size]
        let inputs = self.per_layer_embedding.as_ref().map(|table| table.forward(step, x.clone()));
        for (layer, config) in self.layers.iter().zip(&self.config.layers) {
            x = layer.forward(x, inputs.as_ref(), step, state.layers[config.kv_layer].kv());
        }
        if step.logits == LogitRows::Last {
            let m = x.dims()[0];
            x = x.narrow(0, m - 1, 1);
        }
        let logits = self.lm_head.forward(self.norm.forward(x)); // [rows, vocab_size]
        match self.config.final_logit_softcapping {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }
}

/// The rotary embeddings of the two kinds of layers.
struct Ropes {
    sliding: Rope,
    full: Rope,
}

impl Ropes {
    fn new(config: &Gemma4Config, model: &Weights<'_>) -> Result<Self> {
        let head_dim = |sliding: bool| {
            let mut layers = config.layers.iter().filter(|layer| layer.sliding_window.is_some() == sliding);
            layers.next().map_or(2, |layer| layer.head_dim)
        };
        let factors = match model.contains("rope_freqs.weight") {
            true => Some(model.host_vector("rope_freqs.weight", head_dim(false) / 2)?),
            false => None,
        };
        let placement = model.placement();
        let rope = |rope: &RopeConfig, sliding: bool| {
            Rope::new(rope, head_dim(sliding), factors.as_deref(), placement.context, &placement.device)
        };
        Ok(Self { sliding: rope(&config.sliding_rope, true), full: rope(&config.full_rope, false) })
    }
}

/// The second embedding: a part for every layer, from the token and from its first embedding.
#[derive(Debug)]
struct PerLayerEmbedding {
    embed_tokens: Embedding,
    model_projection: Linear,
    projection_norm: RmsNorm,
    size: usize,
}

impl PerLayerEmbedding {
    fn load(config: &Gemma4Config, model: &Weights<'_>) -> Result<Option<Self>> {
        let Some(input) = config.per_layer_input else { return Ok(None) };
        let width = config.layers.len() * input.size;
        Ok(Some(Self {
            embed_tokens: model.embedding("embed_tokens_per_layer", input.vocab_size, width)?,
            model_projection: model.linear("per_layer_model_projection", width, config.hidden_size)?,
            projection_norm: model.rms_norm("per_layer_projection_norm", input.size, config.rms_norm_eps)?,
            size: input.size,
        }))
    }

    /// x, the scaled embedding, `[m, hidden_size]`; returns `[m, layers size]`.
    fn forward(&self, step: &Step, x: Tensor<2>) -> Tensor<2> {
        let [m, hidden_size] = x.dims();
        let tokens = self.embed_tokens.forward(step.tokens.clone()) * (self.size as f64).sqrt();
        let context = self.model_projection.forward(x) * (hidden_size as f64).powf(-0.5); // [m, layers size]
        let width = context.dims()[1];
        let context = self.projection_norm.forward(context.reshape([m * width / self.size, self.size]));
        (tokens + context.reshape([m, width])) * 0.5f64.sqrt()
    }
}
