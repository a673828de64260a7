//! What a Gemma 4 config says, layer by layer.

use atelico_engine::config::Config;
use atelico_engine::nn::RopeConfig;
use atelico_engine::{Error, Result};
use atelico_kernels::ops::KvSource;
use serde_json::Value;

/// Most layers of a model.
const MAX_LAYERS: usize = 1024;

/// The text settings of a checkpoint.
#[derive(Debug)]
pub(super) struct Gemma4Config {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_attention_heads: usize,
    pub(super) rms_norm_eps: f64,
    pub(super) tie_word_embeddings: bool,
    /// Logits are `cap * tanh(logits / cap)`.
    pub(super) final_logit_softcapping: Option<f64>,
    pub(super) sliding_rope: RopeConfig,
    pub(super) full_rope: RopeConfig,
    pub(super) per_layer_input: Option<PerLayerInputConfig>,
    pub(super) moe: Option<MoeConfig>,
    pub(super) layers: Vec<LayerConfig>,
}

/// The second embedding, of which every layer reads its own part.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerLayerInputConfig {
    /// Elements of one layer's part.
    pub(super) size: usize,
    pub(super) vocab_size: usize,
}

/// The experts beside the dense feed-forward layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoeConfig {
    pub(super) num_experts: usize,
    pub(super) top_k_experts: usize,
    pub(super) intermediate_size: usize,
}

/// One layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerConfig {
    /// Positions that the layer sees; `None` in layers with full attention.
    pub(super) sliding_window: Option<usize>,
    pub(super) head_dim: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) kv: KvSource,
    /// The layer whose keys and values this one reads: its own, or an earlier one of its kind.
    pub(super) kv_layer: usize,
    pub(super) intermediate_size: usize,
}

impl Gemma4Config {
    /// Reads the settings of the text model.
    pub(super) fn new(config: &Config<'_>) -> Result<Self> {
        let config = &config.text();
        for (key, known) in [("hidden_activation", "gelu_pytorch_tanh"), ("use_bidirectional_attention", "vision")] {
            match config.value(key) {
                // Attention in both directions concerns the tokens of images only.
                None => {}
                Some(Value::String(found)) if found == known => {}
                Some(other) => return error(key, format!("is {other}; this architecture is known with `{known}`")),
            }
        }
        let vocab_size = config.size("vocab_size")?;
        let per_layer_input = match config.size_or_zero("hidden_size_per_layer_input")? {
            0 => None,
            size => Some(PerLayerInputConfig {
                size,
                vocab_size: config.size_or("vocab_size_per_layer_input", vocab_size)?,
            }),
        };
        if let Some(input) = per_layer_input.filter(|input| input.vocab_size < vocab_size) {
            let problem = format!("is {}, fewer than the {vocab_size} tokens", input.vocab_size);
            return error("vocab_size_per_layer_input", problem);
        }
        let moe = match config.flag_or("enable_moe_block", false)? {
            false => None,
            true => Some(MoeConfig {
                num_experts: config.size("num_experts")?,
                top_k_experts: config.size("top_k_experts")?,
                intermediate_size: config.size("moe_intermediate_size")?,
            }),
        };
        let rope = Config::new(config.value("rope_parameters").unwrap_or(&Value::Null));
        let rope = |kind: &str| match rope.value(kind) {
            Some(parameters) => RopeConfig::from_parameters(&Config::new(parameters), config),
            None => error("rope_parameters", format!("lacks `{kind}`")),
        };
        Ok(Self {
            vocab_size,
            hidden_size: config.size("hidden_size")?,
            num_attention_heads: config.size("num_attention_heads")?,
            rms_norm_eps: config.positive_or("rms_norm_eps", 1e-6)?,
            tie_word_embeddings: config.flag_or("tie_word_embeddings", true)?,
            final_logit_softcapping: match config.value("final_logit_softcapping") {
                None => None,
                Some(_) => Some(config.positive("final_logit_softcapping")?),
            },
            sliding_rope: rope("sliding_attention")?,
            full_rope: rope("full_attention")?,
            per_layer_input,
            moe,
            layers: layers(config)?,
        })
    }
}

fn layers(config: &Config<'_>) -> Result<Vec<LayerConfig>> {
    let count = config.size("num_hidden_layers")?;
    if count > MAX_LAYERS {
        return error("num_hidden_layers", format!("is {count}; expected at most {MAX_LAYERS}"));
    }
    let sliding = sliding(config, count)?;
    let shared = config.size_or_zero("num_kv_shared_layers")?;
    if shared >= count {
        return error("num_kv_shared_layers", format!("is {shared}, of {count} layers"));
    }
    let first_shared = count - shared;
    let kv_heads = per_layer(config, "num_key_value_heads", count)?;
    let widths = per_layer(config, "intermediate_size", count)?;
    let double_wide = config.flag_or("use_double_wide_mlp", false)?;
    let k_eq_v = config.flag_or("attention_k_eq_v", false)?;
    let layer = |layer: usize| {
        let (head_dim, num_key_value_heads) = heads(config, layer, sliding[layer], kv_heads[layer])?;
        let is_shared = layer >= first_shared;
        let kv_layer = match is_shared {
            false => layer,
            true => (0..first_shared).rev().find(|&owner| sliding[owner] == sliding[layer]).ok_or_else(|| {
                let problem = format!("is {shared}: layer {layer} has no earlier layer to share with");
                Error::Config { key: "num_kv_shared_layers".into(), problem }
            })?,
        };
        Ok(LayerConfig {
            sliding_window: if sliding[layer] { Some(config.size("sliding_window")?) } else { None },
            head_dim,
            num_key_value_heads,
            kv: match (is_shared, !sliding[layer] && k_eq_v) {
                (true, _) => KvSource::Shared,
                (false, true) => KvSource::KeysAsValues,
                (false, false) => KvSource::NormedValues,
            },
            kv_layer,
            intermediate_size: widths[layer] * if double_wide && is_shared { 2 } else { 1 },
        })
    };
    let layers = (0..count).map(layer).collect::<Result<Vec<_>>>()?;
    check_heads(&layers)?;
    Ok(layers)
}

/// Layers of one kind share a rotary embedding, and some their keys and values: their heads must be
/// alike.
fn check_heads(layers: &[LayerConfig]) -> Result<()> {
    for (index, layer) in layers.iter().enumerate() {
        let alike = layers.iter().find(|other| other.sliding_window.is_some() == layer.sliding_window.is_some());
        if let Some(other) = alike.filter(|other| other.head_dim != layer.head_dim) {
            let problem = format!("is {} in layer {index}, {} in others of its kind", layer.head_dim, other.head_dim);
            return error("head_dim", problem);
        }
        let (heads, owned) = (layer.num_key_value_heads, layers[layer.kv_layer].num_key_value_heads);
        if heads != owned {
            let problem = format!("is {heads} in layer {index}, which reads the {owned} of layer {}", layer.kv_layer);
            return error("num_key_value_heads", problem);
        }
    }
    Ok(())
}

/// Size and number of a layer's key-value heads. Transformers 4 has keys for all layers with full
/// attention, transformers 5 lists what departs from the common keys layer by layer.
fn heads(config: &Config<'_>, layer: usize, sliding: bool, kv_heads: usize) -> Result<(usize, usize)> {
    let listed = config.value("per_layer_config").map(|list| list.get(layer.to_string()).unwrap_or(&Value::Null));
    match listed {
        Some(entry) => {
            let known = ["head_dim", "num_key_value_heads"];
            if let Some(key) = entry.as_object().and_then(|entry| entry.keys().find(|key| !known.contains(&&***key))) {
                let problem = format!("sets `{key}` of layer {layer}; known: {}", known.join(", "));
                return error("per_layer_config", problem);
            }
            let entry = Config::new(entry);
            let head_dim = entry.size_or("head_dim", config.size("head_dim")?)?;
            Ok((head_dim, entry.size_or("num_key_value_heads", kv_heads)?))
        }
        None if sliding => Ok((config.size("head_dim")?, kv_heads)),
        None => {
            let head_dim = config.size_or("global_head_dim", 512)?;
            let own = config.flag_or("attention_k_eq_v", false)?;
            Ok((head_dim, if own { config.size_or("num_global_key_value_heads", kv_heads)? } else { kv_heads }))
        }
    }
}

/// Which layers see a window only.
fn sliding(config: &Config<'_>, count: usize) -> Result<Vec<bool>> {
    let Some(types) = config.value("layer_types").and_then(Value::as_array) else {
        return error("layer_types", "is not a list".into());
    };
    if types.len() != count {
        return error("layer_types", format!("has {} entries for {count} layers", types.len()));
    }
    let kind = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => error("layer_types", format!("holds {kind}; known: sliding_attention, full_attention")),
    };
    types.iter().map(kind).collect()
}

/// A size that is one for all layers or listed for each, as a GGUF may have it.
fn per_layer(config: &Config<'_>, key: &str, count: usize) -> Result<Vec<usize>> {
    if config.value(key).is_none_or(|value| !value.is_array()) {
        return Ok(vec![config.size(key)?; count]);
    }
    let list = config.sizes(key, count)?.unwrap_or_default();
    match list.iter().find(|&&size| size == 0 || size > 1 << 26) {
        Some(size) => error(key, format!("holds {size}")),
        None => Ok(list),
    }
}

fn error<T>(key: &str, problem: String) -> Result<T> {
    Err(Error::Config { key: key.into(), problem })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
