//! A `config.json` for a GGUF file, written from its metadata.

mod gemma4;
mod nemotron_h;
mod qwen35;

use serde_json::{Map, Number, Value, json};

use super::GgufMetadata;
use super::value::GgufValue;
use crate::weights::WeightError;
use crate::weights::tensor_info::TensorInfo;

/// Architectures whose query and key rows are stored reordered, so that rope pairs neighbours.
const INTERLEAVED_ROPE: [&str; 2] = ["llama", "smollm3"];

/// Writes the metadata of a GGUF file with the keys of a Hugging Face `config.json`.
///
/// `tensor` looks a tensor up by its GGUF name. `rope_pairing` says which elements rope pairs:
/// `half` (`i` and `i + d/2`) or `interleaved` (`2i` and `2i + 1`). A rope of `rope_type`
/// `factors` divides its frequencies by the tensor `model.rope_freqs.weight`.
///
/// # Errors
/// [`WeightError::MissingKey`] and [`WeightError::KeyType`] for metadata that does not describe a
/// model.
pub(crate) fn synthesize_config<'a>(
    metadata: &GgufMetadata,
    tensor: impl Fn(&str) -> Option<&'a TensorInfo>,
) -> Result<Value, WeightError> {
    let architecture = metadata.get_str("general.architecture")?;
    let architecture = architecture.ok_or_else(|| metadata.missing("general.architecture"))?;
    let keys = Keys { metadata, architecture };
    let layers = keys.required("block_count")?;
    let heads = keys.per_layer("attention.head_count", layers)?;

    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    set("model_type", architecture.into());
    set("hidden_size", keys.required("embedding_length")?.into());
    set("num_hidden_layers", layers.into());
    if let Some(width) = keys.per_layer("feed_forward_length", layers)? {
        set("intermediate_size", width);
    }
    if let Some(heads) = heads.clone() {
        set("num_attention_heads", heads);
    }
    if let Some(kv_heads) = keys.per_layer("attention.head_count_kv", layers)?.or(heads) {
        set("num_key_value_heads", kv_heads);
    }
    if let Some(head_dim) = keys.integer("attention.key_length")? {
        set("head_dim", head_dim.into());
        if let Some(value_dim) = keys.integer("attention.value_length")?.filter(|&dim| dim != head_dim) {
            set("v_head_dim", value_dim.into());
        }
        if let Some(rotary_dim) = keys.integer("rope.dimension_count")?.filter(|&dim| dim != head_dim) {
            set("rotary_dim", rotary_dim.into());
        }
    }
    if let Some(eps) = keys.float("attention.layer_norm_rms_epsilon")? {
        set("rms_norm_eps", eps);
    }
    set("max_position_embeddings", keys.required("context_length")?.into());
    if let Some(window) = keys.integer("attention.sliding_window")?.filter(|&window| window > 0) {
        set("sliding_window", window.into());
    }
    set("vocab_size", keys.vocab_size(tensor("token_embd.weight"))?.into());
    set("tie_word_embeddings", tensor("output.weight").is_none().into());

    let theta = keys.float("rope.freq_base")?.unwrap_or_else(|| json!(10000.0));
    set("rope_theta", theta.clone());
    set("rope_parameters", keys.rope(theta, tensor("rope_freqs.weight").is_some())?);
    let interleaved = INTERLEAVED_ROPE.contains(&architecture);
    set("rope_pairing", if interleaved { "interleaved" } else { "half" }.into());
    if architecture == "smollm3" {
        // The format has no key for it; llama.cpp fixes the step too.
        set("no_rope_layer_interval", 4.into());
    }
    if architecture == "gemma4" {
        gemma4::add(&keys, &mut config, &tensor)?;
    }
    if nemotron_h::ARCHITECTURES.contains(&architecture) {
        nemotron_h::add(&keys, &mut config)?;
    }
    if qwen35::ARCHITECTURES.contains(&architecture) {
        qwen35::add(&keys, &mut config)?;
    }
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    for key in ["bos_token_id", "eos_token_id"] {
        if let Some(id) = metadata.get_u32(&format!("tokenizer.ggml.{key}"))? {
            set(key, id.into());
        }
    }
    Ok(Value::Object(config))
}

/// The keys of one architecture: `key` stands for `<architecture>.key`.
struct Keys<'a> {
    metadata: &'a GgufMetadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn integer(&self, key: &str) -> Result<Option<u32>, WeightError> {
        self.metadata.get_u32(&self.full(key))
    }

    fn required(&self, key: &str) -> Result<u32, WeightError> {
        self.integer(key)?.ok_or_else(|| self.metadata.missing(&self.full(key)))
    }

    fn float(&self, key: &str) -> Result<Option<Value>, WeightError> {
        Ok(self.metadata.get_f32(&self.full(key))?.and_then(shortest).map(Value::Number))
    }

    /// An integer, or an array with one for each layer.
    fn per_layer(&self, key: &str, layers: u32) -> Result<Option<Value>, WeightError> {
        let key = self.full(key);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let wrong = || self.metadata.wrong(&key, "an unsigned integer of 32 bits, or one for each layer", value);
        let integer = |value: GgufValue<'_>| u32::try_from(value.as_u64()?).ok();
        match value {
            GgufValue::Array(array) if array.len() == layers as usize => {
                let values = array.iter().map(integer).collect::<Option<Vec<u32>>>();
                Ok(Some(values.ok_or_else(wrong)?.into()))
            }
            scalar => Ok(Some(integer(scalar).ok_or_else(wrong)?.into())),
        }
    }

    fn vocab_size(&self, embeddings: Option<&TensorInfo>) -> Result<u64, WeightError> {
        let stated = self.integer("vocab_size")?.map(u64::from);
        stated
            .or_else(|| embeddings?.shape.first().copied())
            .ok_or_else(|| self.metadata.missing(&self.full("vocab_size")))
    }

    fn rope(&self, theta: Value, has_factors: bool) -> Result<Value, WeightError> {
        let key = self.full("rope.scaling.type");
        let scaling = self.metadata.get_str(&key)?.filter(|kind| *kind != "none");
        let mut rope = Map::new();
        let mut set = |key: &str, value: Value| drop(rope.insert(key.to_owned(), value));
        match (scaling, has_factors) {
            (None, false) => set("rope_type", "default".into()),
            (None, true) => set("rope_type", "factors".into()),
            (Some(kind), false) => set("rope_type", kind.into()),
            (Some(kind), true) => {
                let expected = "`none`, as the file holds `rope_freqs.weight`";
                return Err(self.metadata.wrong(&key, expected, GgufValue::Str(kind)));
            }
        }
        set("rope_theta", theta);
        if scaling.is_some() {
            let factor = self.float("rope.scaling.factor")?;
            set("factor", factor.ok_or_else(|| self.metadata.missing(&self.full("rope.scaling.factor")))?);
            if let Some(length) = self.integer("rope.scaling.original_context_length")? {
                set("original_max_position_embeddings", length.into());
            }
            for (key, name) in [
                ("rope.scaling.attn_factor", "attention_factor"),
                ("rope.scaling.yarn_beta_fast", "beta_fast"),
                ("rope.scaling.yarn_beta_slow", "beta_slow"),
            ] {
                if let Some(value) = self.float(key)? {
                    set(name, value);
                }
            }
        }
        Ok(Value::Object(rope))
    }
}

/// The shortest decimal that reads back as `x` (1e-5, not 9.99999974737875e-6), so that the config
/// equals the one the file was converted from.
fn shortest(x: f32) -> Option<Number> {
    Number::from_f64(x.to_string().parse().ok()?)
}
