//! Spellings of Nemotron-H checkpoints beyond those of the fixtures, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod weights_support;

use std::path::Path;

use atelico_engine::handle::LoadOptions;
use atelico_engine::reasoning::{ReasoningRouter, ReasoningTags};
use atelico_engine::text::{Detokenizer, Tokenizer};
use atelico_engine::weights::gguf;
use atelico_tests::fixtures;
use serde_json::{Value, json};
use weights_support::{ARRAY, BOOL, Gguf, array};

/// A copy of fixture `name` with its config and the header of its tensors edited.
fn edited(name: &str, config: impl Fn(&mut Value), header: impl Fn(&str) -> String) -> tempfile::TempDir {
    let (source, folder) = (fixtures().join("llm_hybrid").join(name), tempfile::tempdir().unwrap());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(source.join("config.json")).unwrap().replace("Infinity", "\"Infinity\"");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    config(&mut value);
    std::fs::write(folder.path().join("config.json"), value.to_string()).unwrap();
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (old, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let new = header(std::str::from_utf8(old).unwrap().trim_end());
    let file = [&(new.len() as u64).to_le_bytes()[..], new.as_bytes(), data].concat();
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    folder
}

/// Loads `folder` on the CPU; the error's text when that fails.
fn load(folder: &Path) -> Result<(), String> {
    let options = LoadOptions { device: "cpu".parse().unwrap(), context: Some(64), ..LoadOptions::default() };
    atelico_models::load(folder, &options).map(drop).map_err(|e| e.to_string())
}

#[test]
fn both_prefixes_and_all_spellings_of_the_layers_load() {
    let renamed = edited("nemotron_h", |_| {}, |header| header.replace("\"backbone.", "\"model."));
    load(renamed.path()).unwrap();
    let names = [
        ["mamba", "mlp", "mamba", "attention", "mlp", "mamba", "mamba", "mlp", "mamba", "attention", "mlp"],
        [
            "linear_attention",
            "mlp",
            "linear_attention",
            "full_attention",
            "mlp",
            "linear_attention",
            "linear_attention",
            "mlp",
            "linear_attention",
            "full_attention",
            "mlp",
        ],
    ];
    for names in names {
        let config = |config: &mut Value| {
            let config = config.as_object_mut().unwrap();
            config.remove("hybrid_override_pattern");
            config.remove("num_hidden_layers");
            config.remove("head_dim");
            config.remove("layer_norm_epsilon");
            config.insert("layers_block_type".into(), json!(names));
        };
        load(edited("nemotron_h", config, str::to_owned).path()).unwrap();
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let refused = [
        ("hybrid_override_pattern", json!("M-X*-MM-M*-"), "X"),
        ("hybrid_override_pattern", Value::Null, "hybrid_override_pattern"),
        ("mlp_hidden_act", json!("gelu"), "gelu"),
        ("mamba_hidden_act", json!("relu"), "relu"),
        ("n_groups", json!(3), "n_groups"),
        ("ssm_state_size", json!(4096), "4096"),
        ("conv_kernel", json!(9), "conv_kernel"),
        ("mamba_num_heads", json!(16), "mixer"),
        ("hidden_size", json!(32), "embeddings"),
    ];
    for (key, value, named) in refused {
        let error = load(edited("nemotron_h", |c| c[key] = value.clone(), str::to_owned).path()).unwrap_err();
        assert!(error.contains(named), "{key}: {error}");
    }
    let refused = [
        ("num_experts_per_tok", json!(9), "num_experts_per_tok"),
        ("n_group", json!(3), "n_group"),
        ("topk_group", json!(2), "topk_group"),
        ("moe_intermediate_size", json!(12), "experts"),
        ("moe_latent_size", json!(16), "fc1_latent_proj"),
        ("moe_shared_expert_intermediate_size", json!(16), "shared_experts"),
    ];
    for (key, value, named) in refused {
        let error = load(edited("nemotron3_latent", |c| c[key] = value.clone(), str::to_owned).path()).unwrap_err();
        assert!(error.contains(named), "{key}: {error}");
    }
}

#[test]
fn eight_bit_floats_are_refused_by_name() {
    let header = |header: &str| {
        let mut tensors: Value = serde_json::from_str(header).unwrap();
        let tensor = &mut tensors["backbone.layers.1.mixer.up_proj.weight"];
        // Half the width, twice the elements.
        tensor["dtype"] = json!("F8_E4M3");
        tensor["shape"] = json!([160, 128]);
        tensors.to_string()
    };
    let error = load(edited("nemotron_h", |_| {}, header).path()).unwrap_err();
    assert!(error.contains("F8_E4M3") && error.contains("layers.1.mixer.up_proj.weight"), "{error}");
}

fn integers(values: &[i32]) -> Vec<u8> {
    array(5, values.len() as u64, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

/// A file of five blocks, one of each kind and one that predicts further tokens.
fn metadata() -> Gguf {
    let key = |key: &str| format!("nemotron_h_moe.{key}");
    Gguf::default()
        .str("general.architecture", "nemotron_h_moe")
        .u32(&key("block_count"), 5)
        .u32(&key("nextn_predict_layers"), 1)
        .u32(&key("embedding_length"), 64)
        .u32(&key("context_length"), 4096)
        .u32(&key("vocab_size"), 100)
        .u32(&key("attention.head_count"), 4)
        .key(&key("attention.head_count_kv"), ARRAY, &integers(&[0, 0, 2, 0, 2]))
        .key(&key("feed_forward_length"), ARRAY, &integers(&[0, 24, 0, 24, 24]))
        .u32(&key("expert_count"), 8)
        .u32(&key("expert_used_count"), 3)
        .key(&key("expert_feed_forward_length"), ARRAY, &integers(&[0, 24, 0, 24, 24]))
        .key(&key("expert_weights_norm"), BOOL, &[1])
        .f32(&key("expert_weights_scale"), 2.5)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .u32(&key("rope.dimension_count"), 84)
        .u32(&key("ssm.inner_size"), 96)
        .u32(&key("ssm.state_size"), 16)
        .u32(&key("ssm.group_count"), 2)
        .u32(&key("ssm.conv_kernel"), 4)
}

#[test]
fn gguf_metadata_becomes_a_config() {
    let file = metadata().u32("nemotron_h_moe.ssm.time_step_rank", 6).build();
    let config = gguf::parse(Path::new("hand-made.gguf"), &file).unwrap().config().unwrap();
    for (key, expected) in [
        ("hybrid_override_pattern", json!("ME*E")),
        ("num_hidden_layers", json!(4)),
        ("num_attention_heads", json!(4)),
        ("num_key_value_heads", json!(2)),
        ("mamba_num_heads", json!(6)),
        ("mamba_head_dim", json!(16)),
        ("n_groups", json!(2)),
        ("moe_intermediate_size", json!(24)),
        ("num_experts_per_tok", json!(3)),
        ("norm_topk_prob", json!(true)),
        ("routed_scaling_factor", json!(2.5)),
        ("layer_norm_epsilon", json!(1e-5)),
    ] {
        assert_eq!(config[key], expected, "{key}");
    }
    for (heads, named) in [(None, "ssm.time_step_rank"), (Some(5), "divides `ssm.inner_size`"), (Some(0), "divides")] {
        let file = heads.map_or(metadata(), |heads| metadata().u32("nemotron_h_moe.ssm.time_step_rank", heads)).build();
        let error = gguf::parse(Path::new("hand-made.gguf"), &file).unwrap().config().unwrap_err().to_string();
        assert!(error.contains(named), "{heads:?}: {error}");
    }
}

/// `<think>` is a token of its own in Nemotron 3 and plain text in Nano v2; in both the answer's
/// stream shows where the reasoning ends.
#[test]
fn reasoning_is_told_from_the_answer() {
    for (case, opened) in [("nemotron_h", "<SPECIAL_11>Assistant\n<think>\n"), ("nemotron3_latent", "<think>\n")] {
        assert!(!ReasoningRouter::new(ReasoningTags::THINK, "<think></think>").in_reasoning(), "{case}");
        let tokenizer = Tokenizer::from_folder(&fixtures().join("llm_hybrid").join(case)).unwrap().unwrap();
        let ids = tokenizer.encode("90 < 97\n</think>\n\n97 it is.", false).unwrap();
        let mut router = ReasoningRouter::new(ReasoningTags::of(&tokenizer), opened);
        assert!(router.in_reasoning(), "{case}");
        let mut detokenizer = Detokenizer::new(tokenizer.into(), true).unwrap();
        let (mut reasoning, mut content) = (String::new(), String::new());
        for id in ids {
            let routed = router.push(&detokenizer.push(id).unwrap().unwrap_or_default());
            reasoning.push_str(&routed.reasoning);
            content.push_str(&routed.content);
        }
        content.push_str(&router.flush().content);
        assert_eq!((reasoning.trim(), &*content), ("90 < 97", "97 it is."), "{case}");
    }
}
