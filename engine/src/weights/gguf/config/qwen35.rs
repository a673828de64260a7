//! The config keys of Qwen 3.5 and 3.6 that their GGUF files spell in their own way.

use serde_json::{Map, Value};

use super::Keys;
use crate::weights::WeightError;
use crate::weights::gguf::value::GgufValue;

/// `general.architecture` of these files.
pub(super) const ARCHITECTURES: [&str; 2] = ["qwen35", "qwen35moe"];

/// Keys of the Hugging Face config and of GGUF that are integers in both.
const INTEGERS: [(&str, &str); 9] = [
    ("linear_conv_kernel_dim", "ssm.conv_kernel"),
    ("linear_key_head_dim", "ssm.state_size"),
    ("linear_num_key_heads", "ssm.group_count"),
    ("linear_num_value_heads", "ssm.time_step_rank"),
    ("rotary_dim", "rope.dimension_count"),
    ("num_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
];

/// Full attention comes at every fourth layer where a file does not say.
const FULL_ATTENTION_INTERVAL: u32 = 4;

/// Adds what `config.json` says of such a model to the keys that all architectures have. Blocks that
/// predict further tokens come last and are left out.
pub(super) fn add(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), WeightError> {
    let blocks = keys.required("block_count")?;
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    let layers = blocks.saturating_sub(keys.integer("nextn_predict_layers")?.unwrap_or(0));
    set("num_hidden_layers", layers.into());
    set("layer_types", layer_types(keys, layers)?);
    for (key, name) in INTEGERS {
        if let Some(value) = keys.integer(name)? {
            set(key, value.into());
        }
    }
    if let Some(Value::Array(list)) = keys.per_layer("attention.head_count_kv", blocks)? {
        // One for each layer: those without attention have none.
        let kv_heads = list.into_iter().find(|heads| heads.as_u64() != Some(0));
        set("num_key_value_heads", kv_heads.unwrap_or(Value::Null));
    }
    let (inner, heads) = (keys.required("ssm.inner_size")?, keys.required("ssm.time_step_rank")?);
    if heads == 0 || inner % heads != 0 {
        let key = keys.full("ssm.time_step_rank");
        let expected = "a number of heads that divides `ssm.inner_size`";
        return Err(keys.metadata.wrong(&key, expected, GgufValue::U32(heads)));
    }
    set("linear_value_head_dim", (inner / heads).into());
    // The converter adds the 1 of the zero-centred norms, and sorts value heads by their rank
    // within a key head.
    set("zero_centered_norms", false.into());
    set("linear_value_heads_tiled", true.into());
    Ok(())
}

/// `linear_attention` or `full_attention` for each layer.
fn layer_types(keys: &Keys<'_>, layers: u32) -> Result<Value, WeightError> {
    let name = |recurrent| if recurrent { "linear_attention" } else { "full_attention" };
    let key = keys.full("attention.recurrent_layers");
    if let Some(value) = keys.metadata.get(&key) {
        let flags = match value {
            GgufValue::Array(array) => array.iter().map(|flag| flag.as_bool()).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        return match flags {
            Some(flags) if flags.len() >= layers as usize => {
                Ok(flags.into_iter().take(layers as usize).map(name).collect())
            }
            _ => Err(keys.metadata.wrong(&key, "true or false for each layer", value)),
        };
    }
    let interval = keys.integer("full_attention_interval")?.unwrap_or(FULL_ATTENTION_INTERVAL).max(1);
    Ok((1..=layers).map(|index| name(index % interval != 0)).collect())
}
