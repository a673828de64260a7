//! `atelico models` and `atelico inspect`, with whole and damaged entries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;

use std::fs;

use cli_support::{atelico, cases, finished, fixtures, golden, run};
use serde_json::Value;

#[test]
fn models_lists_every_fixture() {
    let list = run(&["models", "--format", "json"]).json();
    let models = list["models"].as_array().unwrap();
    let ids: Vec<_> = models.iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, cases());
    for model in models {
        let id = model["id"].as_str().unwrap();
        let golden = golden(id);
        assert_eq!(model.get("error"), None, "{id}");
        assert_eq!(model["supported"], true, "{id}");
        let architecture = match fs::read(fixtures().join(id).join("config.json")) {
            // Parcae's config has no model type.
            Ok(config) => match &serde_json::from_slice::<Value>(&config).unwrap()["model_type"] {
                Value::Null => golden["architecture"].clone(),
                // The text part of a family calls itself so.
                model_type => model_type.as_str().unwrap().trim_end_matches("_text").into(),
            },
            Err(_) => golden["gguf_architecture"].clone(),
        };
        assert_eq!(model["architecture"], architecture, "{id}");
        let parameters = model["parameters"].as_u64().unwrap();
        assert_eq!(parameters, run(&["inspect", id, "--format", "json"]).json()["parameters"], "{id}");
        assert!(parameters > 100_000, "{id}");
        assert!(model["bytes"].as_u64().unwrap() > 50_000, "{id}");
        if id == "llama_a" {
            assert_eq!(model["format"], "BF16");
        }
    }
    let text = run(&["models"]).ok();
    assert_eq!(text.lines().count(), models.len() + 1);
    let line = text.lines().find(|line| line.starts_with("qwen3_a ")).unwrap();
    assert!(line.contains("qwen3") && line.contains("KB"), "{line}");
}

#[test]
fn damaged_entries_are_listed_with_their_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let gguf = fs::read(fixtures().join("gguf_llama_q4_0/tiny-llama-Q4_0.gguf")).unwrap();
    let put = |file: &str, bytes: &[u8]| {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put("a/whole.gguf", &gguf);
    put("b/short.gguf", &gguf[..gguf.len() - 1000]);
    put("c/garbage.gguf", b"not a gguf at all");
    put("d/empty.gguf", b"");
    put("e/config.json", b"{ \"model_type\": ");
    put("e/model.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}");
    put("f/config.json", b"{}");
    let models = |format: &str| {
        let output = atelico(&["models", "--format", format]).env("ATELICO_CACHE_DIR", root).output().unwrap();
        finished(output)
    };
    let list = models("json").json();
    let found: Vec<_> = list["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (model["id"].as_str().unwrap(), model.get("error").is_some()))
        .collect();
    assert_eq!(found, [("a", false), ("b", true), ("c", true), ("d", true), ("e", true), ("f", true)]);
    let text = models("text").ok();
    for id in ["b", "c", "d", "e", "f"] {
        assert!(text.contains(&format!("damaged: {id}: ")), "{text}");
    }
}

#[test]
fn an_unknown_architecture_is_listed_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("other");
    fs::create_dir(&model).unwrap();
    fs::copy(fixtures().join("llama_a/model.safetensors"), model.join("model.safetensors")).unwrap();
    let config = r#"{"model_type": "abacus", "architectures": ["AbacusForCausalLM"], "vocab_size": 512}"#;
    fs::write(model.join("config.json"), config).unwrap();
    let models = |format: &str| {
        let output = atelico(&["models", "--format", format]).env("ATELICO_CACHE_DIR", folder.path()).output().unwrap();
        finished(output)
    };
    let list = models("json").json();
    assert_eq!(list["models"][0]["architecture"], "abacus");
    assert_eq!(list["models"][0]["supported"], false);
    assert!(models("text").ok().contains("abacus (not supported)"));
    let message = run(&["generate", model.to_str().unwrap(), "-p", "x", "--device", "cpu"]).error(1);
    assert!(message.contains("AbacusForCausalLM") && message.contains("qwen3"), "{message}");
}

#[test]
fn an_empty_or_absent_cache_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    for root in [folder.path().to_owned(), folder.path().join("absent")] {
        let run = |format| {
            finished(atelico(&["models", "--format", format]).env("ATELICO_CACHE_DIR", &root).output().unwrap())
        };
        assert!(run("text").ok().contains(root.to_str().unwrap()));
        assert_eq!(run("json").json()["models"], Value::Array(Vec::new()));
    }
}

#[test]
fn an_unreadable_cache_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = atelico(&["models"]).env("ATELICO_CACHE_DIR", file.path()).output().unwrap();
    assert!(finished(output).error(1).contains(file.path().to_str().unwrap()));
}

#[test]
fn inspect_shows_config_tensors_tokenizer_and_template() {
    for case in cases() {
        let golden = golden(&case);
        let shown = run(&["inspect", &case, "--format", "json"]).json();
        if let Some(parameters) = expected_parameters(&golden, &shown) {
            assert_eq!(shown["parameters"], parameters, "{case}");
        }
        assert!(shown["tokenizer"]["vocab_size"].as_u64().unwrap() > 400, "{case}");
        assert!(shown["chat_template"].as_str().unwrap().contains("messages"), "{case}");
        if golden["architecture"] == "parcae" {
            continue;
        }
        // Multimodal families keep the text part's settings apart.
        let config = shown["config"].get("text_config").unwrap_or(&shown["config"]);
        assert!(config["hidden_size"].is_u64(), "{case}");
        let tensors = shown["tensors"].as_array().unwrap();
        let plain = |tensor: &Value| tensor["name"].as_str().unwrap().replace("language_model.", "");
        let named = |name: &str| tensors.iter().find(|tensor| plain(tensor) == name);
        let embedding = named("model.embed_tokens.weight").unwrap();
        let rows = golden["logits_last"].as_array().unwrap().len();
        assert_eq!(embedding["shape"][0], rows, "{case}");
        assert!(named("model.layers.0.self_attn.q_proj.weight").is_some(), "{case}");
        if let Some(types) = golden.get("tensor_types") {
            for (format, count) in types.as_object().unwrap() {
                let found = tensors.iter().filter(|tensor| tensor["format"] == format.as_str()).count();
                assert_eq!(count, found, "{case} {format}");
            }
        }
    }
}

/// Elements of all stored tensors: the golden parameters, and what the reference counts as buffers
/// (Parcae's rotary table, a scalar for each of Gemma 4's layers).
fn expected_parameters(golden: &Value, shown: &Value) -> Option<u64> {
    let is_buffer = |name: &str| name == "freqs_cis" || name.ends_with(".layer_scalar");
    let elements =
        |tensor: &Value| tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>();
    let tensors = shown["tensors"].as_array().unwrap().iter();
    let buffers = tensors.filter(|tensor| is_buffer(tensor["name"].as_str().unwrap())).map(elements).sum::<u64>();
    Some(golden.get("n_parameters")?.as_u64().unwrap() + buffers)
}

#[test]
fn inspect_lists_a_torch_file() {
    let shown = run(&["inspect", "parcae_a", "--format", "json"]).json();
    assert_eq!((&shown["architecture"], &shown["format"]), (&"parcae".into(), &"BF16".into()));
    let tensors = shown["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 62);
    let gate = tensors.iter().find(|tensor| tensor["name"] == "transformer.coda.1.attn.ve_gate.weight").unwrap();
    assert_eq!(gate["shape"], serde_json::json!([5, 32]));
}

#[test]
fn inspect_prints_text() {
    for case in ["llama_a", "gguf_llama_q4_k_m"] {
        let text = run(&["inspect", case]).ok();
        let tensor = "model.layers.0.mlp.down_proj.weight";
        for part in ["architecture  llama", "hidden_size", "tokenizer", "chat template", "tensors", tensor] {
            assert!(text.contains(part), "{case}: {part}");
        }
        assert!(!text.contains("error"), "{text}");
    }
}

#[test]
fn inspect_explains_what_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.gguf");
    fs::write(&file, b"GGUF\x03\0\0\0").unwrap();
    assert!(run(&["inspect", file.to_str().unwrap()]).error(1).contains("x.gguf"));
    assert!(run(&["inspect", "no/such"]).error(1).contains("is not in the cache"));
    assert!(run(&["inspect", "./no/such"]).error(1).contains("no such file"));
}
