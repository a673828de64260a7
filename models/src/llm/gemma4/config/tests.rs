use atelico_engine::config::Config;
use atelico_kernels::ops::KvSource;
use serde_json::{Value, json};

use super::Gemma4Config;

/// A model of six layers, the last three of which share, in the spelling of transformers 4.
fn settings() -> Value {
    json!({
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32, "intermediate_size": 80,
        "layer_types": [
            "sliding_attention", "sliding_attention", "full_attention",
            "sliding_attention", "sliding_attention", "full_attention"
        ],
        "sliding_window": 32, "num_kv_shared_layers": 3, "use_double_wide_mlp": true,
        "rope_parameters": {
            "full_attention": { "partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional" },
            "sliding_attention": { "rope_theta": 1e4, "rope_type": "default" }
        }
    })
}

fn changed(key: &str, value: Value) -> Value {
    let mut settings = settings();
    settings[key] = value;
    settings
}

fn read(settings: &Value) -> Gemma4Config {
    Gemma4Config::new(&Config::new(settings)).unwrap()
}

#[test]
fn the_last_layers_read_the_keys_of_the_last_earlier_layer_of_their_kind() {
    let layers = read(&settings()).layers;
    assert_eq!(layers.iter().map(|l| l.kv_layer).collect::<Vec<_>>(), [0, 1, 2, 1, 1, 2]);
    assert_eq!(layers.iter().map(|l| l.head_dim).collect::<Vec<_>>(), [16, 16, 32, 16, 16, 32]);
    assert_eq!(layers.iter().map(|l| l.intermediate_size).collect::<Vec<_>>(), [80, 80, 80, 160, 160, 160]);
    assert!(layers[..3].iter().all(|l| l.kv == KvSource::NormedValues));
    assert!(layers[3..].iter().all(|l| l.kv == KvSource::Shared));
}

#[test]
fn both_spellings_of_full_layers_are_read() {
    let mut old = changed("attention_k_eq_v", true.into());
    old["num_global_key_value_heads"] = 1.into();
    let mut new = old.clone();
    new["per_layer_config"] = json!({
        "2": { "head_dim": 32, "num_key_value_heads": 1 }, "5": { "head_dim": 32, "num_key_value_heads": 1 }
    });
    new["global_head_dim"] = Value::Null;
    for settings in [old, new, json!({ "text_config": settings() })] {
        let layer = read(&settings).layers[2];
        let k_eq_v = settings.get("attention_k_eq_v").is_some();
        assert_eq!(layer.head_dim, 32);
        assert_eq!(layer.num_key_value_heads, if k_eq_v { 1 } else { 2 });
        assert_eq!(layer.kv, if k_eq_v { KvSource::KeysAsValues } else { KvSource::NormedValues });
    }
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    for (key, value) in [
        ("hidden_activation", json!("silu")),
        ("use_bidirectional_attention", json!("all")),
        ("layer_types", json!(["full_attention"])),
        ("layer_types", json!(["linear_attention", "", "", "", "", ""])),
        ("num_kv_shared_layers", json!(6)),
        ("num_kv_shared_layers", json!(5)),
        ("num_key_value_heads", json!([2, 2, 2, 2, 1, 2])),
        ("intermediate_size", json!([0, 1, 1, 1, 1, 1])),
        ("rope_parameters", json!({ "full_attention": { "rope_type": "default" } })),
        ("per_layer_config", json!({ "2": { "head_dim": 64 }, "5": { "head_dim": 32 } })),
        ("per_layer_config", json!({ "0": { "intermediate_size": 64 } })),
        ("hidden_size_per_layer_input", json!("many")),
        ("enable_moe_block", json!(true)),
        ("sliding_window", Value::Null),
    ] {
        let settings = changed(key, value.clone());
        let error = Gemma4Config::new(&Config::new(&settings)).unwrap_err().to_string();
        let named = match key {
            // Each layer is of one kind with others, or sets what is not known.
            "per_layer_config" if value.get("0").is_none() => "head_dim",
            "enable_moe_block" => "num_experts",
            key => key,
        };
        assert!(error.contains(named), "{key} = {value}: {error}");
    }
    let mut settings = changed("hidden_size_per_layer_input", json!(16));
    settings["vocab_size_per_layer_input"] = json!(50);
    assert!(Gemma4Config::new(&Config::new(&settings)).is_err());
}
