//! The config keys of Nemotron-H and Nemotron 3 that its GGUF files spell in their own way.

use serde_json::{Map, Value};

use super::Keys;
use crate::weights::WeightError;
use crate::weights::gguf::value::GgufValue;

/// `general.architecture` of these files.
pub(super) const ARCHITECTURES: [&str; 2] = ["nemotron_h", "nemotron_h_moe"];

/// Keys of the Hugging Face config and of GGUF that are integers in both.
const INTEGERS: [(&str, &str); 11] = [
    ("mamba_num_heads", "ssm.time_step_rank"),
    ("n_groups", "ssm.group_count"),
    ("ssm_state_size", "ssm.state_size"),
    ("conv_kernel", "ssm.conv_kernel"),
    ("n_routed_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("n_shared_experts", "expert_shared_count"),
    ("moe_shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ("n_group", "expert_group_count"),
    ("topk_group", "expert_group_used_count"),
    ("moe_latent_size", "moe_latent_size"),
];

/// Adds what `config.json` says of such a model to the keys that all architectures have.
///
/// The kinds of the layers follow from their widths: a layer with key-value heads is attention, one
/// with a feed-forward width an MLP or, in a model with experts, MoE; one with neither is Mamba2.
/// Blocks that predict further tokens come last and are left out.
pub(super) fn add(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), WeightError> {
    let blocks = keys.required("block_count")?;
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    let widths = |key: &str| -> Result<Vec<u64>, WeightError> {
        Ok(match keys.per_layer(key, blocks)? {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_u64).collect(),
            Some(one) => vec![one.as_u64().unwrap_or(0); blocks as usize],
            None => return Err(keys.metadata.missing(&keys.full(key))),
        })
    };
    let kv_heads = widths("attention.head_count_kv")?;
    let feed_forward = widths("feed_forward_length")?;
    let experts = keys.integer("expert_count")?.unwrap_or(0);
    let layers = blocks.saturating_sub(keys.integer("nextn_predict_layers")?.unwrap_or(0)) as usize;
    let kind = |(kv_heads, width): (&u64, &u64)| match (kv_heads, width) {
        (0, 0) => 'M',
        (_, 0) => '*',
        _ if experts > 0 => 'E',
        _ => '-',
    };
    let pattern: String = kv_heads.iter().zip(&feed_forward).take(layers).map(kind).collect();
    set("hybrid_override_pattern", pattern.into());
    set("num_hidden_layers", layers.into());
    for (key, widths) in [("num_key_value_heads", &kv_heads), ("intermediate_size", &feed_forward)] {
        // One width for all layers that have any; a file with several fails at its tensors' shapes.
        if let Some(&width) = widths.iter().take(layers).find(|&&width| width > 0) {
            set(key, width.into());
        }
    }
    for (key, name) in INTEGERS {
        if let Some(value) = keys.integer(name)? {
            set(key, value.into());
        }
    }
    let (inner, heads) = (keys.required("ssm.inner_size")?, keys.required("ssm.time_step_rank")?);
    if heads == 0 || inner % heads != 0 {
        let key = keys.full("ssm.time_step_rank");
        let expected = "a number of heads that divides `ssm.inner_size`";
        return Err(keys.metadata.wrong(&key, expected, GgufValue::U32(heads)));
    }
    set("mamba_head_dim", (inner / heads).into());
    if let Some(eps) = keys.float("attention.layer_norm_rms_epsilon")? {
        set("layer_norm_epsilon", eps);
    }
    if let Some(scale) = keys.float("expert_weights_scale")? {
        set("routed_scaling_factor", scale);
    }
    if let Some(normalize) = keys.metadata.get_bool(&keys.full("expert_weights_norm"))? {
        set("norm_topk_prob", normalize.into());
    }
    let expert_width = match keys.per_layer("expert_feed_forward_length", blocks)? {
        Some(Value::Array(list)) => list.into_iter().find(|width| width.as_u64() != Some(0)),
        width => width,
    };
    if let Some(width) = expert_width {
        set("moe_intermediate_size", width);
    }
    Ok(())
}
