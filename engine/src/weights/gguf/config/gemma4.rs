//! The keys of Gemma 4, whose layers alternate between a window and full attention.

use serde_json::{Map, Value, json};

use super::Keys;
use crate::weights::WeightError;
use crate::weights::gguf::value::GgufValue;
use crate::weights::tensor_info::TensorInfo;

/// Adds what `config.json` says of a Gemma 4 model to the keys that all architectures have.
pub(super) fn add<'a>(
    keys: &Keys<'_>,
    config: &mut Map<String, Value>,
    tensor: impl Fn(&str) -> Option<&'a TensorInfo>,
) -> Result<(), WeightError> {
    let sliding = sliding_layers(keys, keys.required("block_count")?)?;
    let kind = |sliding: &bool| if *sliding { "sliding_attention" } else { "full_attention" };
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    set("layer_types", sliding.iter().map(kind).collect());
    set("hidden_activation", "gelu_pytorch_tanh".into());

    set("head_dim", keys.required("attention.key_length_swa")?.into());
    set("global_head_dim", keys.required("attention.key_length")?.into());
    let is_full = sliding.iter().enumerate().filter(|(_, sliding)| !**sliding);
    // Layers that read the keys and values of others have neither projection.
    let has = |layer: usize, stem: &str| tensor(&format!("blk.{layer}.{stem}.weight")).is_some();
    let k_eq_v = is_full.map(|(layer, _)| layer).any(|layer| has(layer, "attn_k") && !has(layer, "attn_v"));
    set("attention_k_eq_v", k_eq_v.into());

    let rope = |kind: &str, theta: Value| json!({ "rope_type": kind, "rope_theta": theta });
    let theta = |key: &str, default: f64| Ok(keys.float(key)?.unwrap_or_else(|| json!(default)));
    let full = if tensor("rope_freqs.weight").is_some() { "factors" } else { "default" };
    set(
        "rope_parameters",
        json!({
            "sliding_attention": rope("default", theta("rope.freq_base_swa", 1e4)?),
            "full_attention": rope(full, theta("rope.freq_base", 1e6)?),
        }),
    );

    set("num_kv_shared_layers", keys.integer("attention.shared_kv_layers")?.unwrap_or(0).into());
    set("hidden_size_per_layer_input", keys.integer("embedding_length_per_layer_input")?.unwrap_or(0).into());
    if let Some(rows) = tensor("per_layer_token_embd.weight").and_then(|table| table.shape.first()) {
        set("vocab_size_per_layer_input", (*rows).into());
    }
    if let Some(cap) = keys.float("final_logit_softcapping")? {
        set("final_logit_softcapping", cap);
    }
    if let Some(experts) = keys.integer("expert_count")?.filter(|&experts| experts > 0) {
        set("enable_moe_block", true.into());
        set("num_experts", experts.into());
        set("top_k_experts", keys.required("expert_used_count")?.into());
        set("moe_intermediate_size", keys.required("expert_feed_forward_length")?.into());
    }
    Ok(())
}

/// Which layers see a window only.
fn sliding_layers(keys: &Keys<'_>, layers: u32) -> Result<Vec<bool>, WeightError> {
    let key = keys.full("attention.sliding_window_pattern");
    let value = keys.metadata.get(&key).ok_or_else(|| keys.metadata.missing(&key))?;
    let listed = match value {
        GgufValue::Array(array) if array.len() == layers as usize => {
            let flag = |value| if let GgufValue::Bool(sliding) = value { Some(sliding) } else { None };
            array.iter().map(flag).collect::<Option<Vec<bool>>>()
        }
        _ => None,
    };
    listed.ok_or_else(|| keys.metadata.wrong(&key, "a boolean for each layer", value))
}
