//! Every fixture checkpoint opens, with the tensors, shapes and configuration that its model needs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod weights_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use atelico_engine::weights::{Checkpoint, Format, GgufValue, StoredType};
use serde_json::{Value, json};
use weights_support::{Gguf, case, tiny_llama};

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&case(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn cases() -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(case("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 25, "{names:?}");
    names
}

/// The tensors of a dense decoder with their shapes, as its `config.json` has them.
fn expected_tensors(config: &Value) -> BTreeMap<String, Vec<u64>> {
    let size = |key: &str| config[key].as_u64();
    let need = |key: &str| size(key).unwrap_or_else(|| panic!("{key} in {config}"));
    let (hidden, width, vocab) = (need("hidden_size"), need("intermediate_size"), need("vocab_size"));
    let (heads, kv_heads) = (need("num_attention_heads"), need("num_key_value_heads"));
    let head_dim = size("head_dim").unwrap_or(hidden / heads);
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[u64]| assert!(tensors.insert(name + ".weight", shape.to_vec()).is_none());
    add("model.embed_tokens".into(), &[vocab, hidden]);
    add("model.norm".into(), &[hidden]);
    if config["tie_word_embeddings"] != true {
        add("lm_head".into(), &[vocab, hidden]);
    }
    if config["rope_parameters"]["rope_type"] == "factors" {
        add("model.rope_freqs".into(), &[head_dim / 2]);
    }
    for layer in 0..need("num_hidden_layers") {
        let mut add = |name: &str, shape: &[u64]| add(format!("model.layers.{layer}.{name}"), shape);
        add("input_layernorm", &[hidden]);
        add("post_attention_layernorm", &[hidden]);
        add("self_attn.q_proj", &[heads * head_dim, hidden]);
        add("self_attn.k_proj", &[kv_heads * head_dim, hidden]);
        add("self_attn.v_proj", &[kv_heads * head_dim, hidden]);
        add("self_attn.o_proj", &[hidden, heads * head_dim]);
        add("mlp.gate_proj", &[width, hidden]);
        add("mlp.up_proj", &[width, hidden]);
        add("mlp.down_proj", &[hidden, width]);
        if config["model_type"] == "qwen3" {
            add("self_attn.q_norm", &[head_dim]);
            add("self_attn.k_norm", &[head_dim]);
        }
    }
    tensors
}

#[test]
fn every_fixture_holds_exactly_the_tensors_of_its_config() {
    // The tensors of these are not those of the common decoder.
    for name in cases().into_iter().filter(|name| !name.contains("parcae") && !name.contains("gemma4")) {
        let checkpoint = open(&name);
        let found: BTreeMap<String, Vec<u64>> =
            checkpoint.summaries().map(|tensor| (tensor.name.to_owned(), tensor.shape.to_vec())).collect();
        assert_eq!(found, expected_tensors(checkpoint.config()), "{name}");

        for tensor in checkpoint.names() {
            let stored = checkpoint.tensor(tensor).unwrap();
            assert!(checkpoint.contains(tensor));
            assert_eq!(stored.shape.iter().map(|&n| n as u64).collect::<Vec<_>>(), found[tensor]);
            let elements: usize = stored.shape.iter().product();
            assert_eq!(Some(stored.bytes.len()), stored.format.row_bytes(elements), "{name}: {tensor}");
            let mut values = vec![f32::NAN; elements];
            stored.format.dequantize(&stored.bytes, &mut values);
            assert!(values.iter().all(|x| x.is_finite() && x.abs() < 100.0), "{name}: {tensor}");
        }
        let elements: u64 = found.values().map(|shape| shape.iter().product::<u64>()).sum();
        assert_eq!(checkpoint.parameters(), elements, "{name}");
        assert!(!checkpoint.contains("lm_head.bias"));
    }
}

#[test]
fn gguf_cases_hold_the_types_that_the_golden_file_counts() {
    for name in cases().iter().filter(|name| name.starts_with("gguf")) {
        let golden: Value = serde_json::from_slice(&fs::read(case(name).join("golden.json")).unwrap()).unwrap();
        let checkpoint = open(name);
        let mut types = BTreeMap::<&str, u64>::new();
        for tensor in checkpoint.summaries() {
            *types.entry(tensor.dtype.name()).or_default() += 1;
        }
        assert_eq!(json!(types), golden["tensor_types"], "{name}");
        assert_eq!(checkpoint.config()["model_type"], golden["gguf_architecture"]);
        assert_eq!(checkpoint.config()["bos_token_id"], golden["bos_token_id"]);
        // The file itself opens like the folder that holds it.
        let file = case(name).join(golden["gguf"].as_str().unwrap());
        assert!(Checkpoint::open(&file).unwrap().names().eq(checkpoint.names()));
        assert!(checkpoint.folder().is_none() && checkpoint.gguf().is_some());
    }
}

#[test]
fn main_format_is_the_type_of_most_bytes_or_the_mix() {
    for (name, format) in [
        ("gguf_llama_f16", "F16"),
        ("gguf_llama_q8_0", "Q8_0"),
        ("gguf_llama_q4_k_m", "Q4_K_M"),
        ("gguf_llama_q5_k_m", "Q5_K_M"),
        ("gguf_llama_iq4_xs", "IQ4_XS"),
        ("llama_a", "BF16"),
        ("parcae_a", "BF16"),
        ("bonsai_a", "Q1_0"),
    ] {
        assert_eq!(open(name).main_format(), format, "{name}");
    }
}

/// The quantized llama files were all made from the F16 one, so each tensor differs from it by no
/// more than its type's rounding.
#[test]
fn quantized_tensors_dequantize_to_the_weights_they_were_made_from() {
    // (type, bound of the relative RMS error): the errors of ggml's own dequantization, rounded up.
    let bounds = [
        (Format::F32, 0.0),
        (Format::F16, 0.0),
        (Format::Q8_0, 0.006),
        (Format::Q6_K, 0.019),
        (Format::Q5_K, 0.038),
        (Format::Q5_0, 0.045),
        (Format::Q4_K, 0.074),
        (Format::IQ4_NL, 0.078),
        (Format::IQ4_XS, 0.079),
        (Format::Q4_0, 0.089),
        (Format::Q3_K, 0.155),
        (Format::Q2_K, 0.302),
    ];
    let values = |checkpoint: &Checkpoint, name: &str| {
        let tensor = checkpoint.tensor(name).unwrap();
        let mut values = vec![0.0; tensor.shape.iter().product()];
        tensor.format.dequantize(&tensor.bytes, &mut values);
        (tensor.format, values)
    };
    let original = open("gguf_llama_f16");
    let mut seen = BTreeSet::new();
    for case in cases().iter().filter(|name| name.starts_with("gguf_llama")) {
        let checkpoint = open(case);
        for name in checkpoint.names() {
            let (format, found) = values(&checkpoint, name);
            let (_, expected) = values(&original, name);
            let square = |x: f32| f64::from(x) * f64::from(x);
            let error: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
            let scale: f64 = expected.iter().map(|&x| square(x)).sum();
            let bound = bounds.iter().find(|(known, _)| *known == format).unwrap().1;
            assert!((error / scale).sqrt() <= bound, "{case}: {name}: {format} is off by {}", (error / scale).sqrt());
            seen.insert(format.name());
        }
    }
    assert_eq!(seen.len(), bounds.len(), "{seen:?}");
}

#[test]
fn the_config_of_a_gguf_has_the_hugging_face_keys() {
    assert_eq!(
        *open("gguf_llama_f16").config(),
        json!({
            "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 256,
            "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048, "vocab_size": 512, "tie_word_embeddings": true,
            "rope_theta": 500000.0,
            "rope_parameters": { "rope_type": "factors", "rope_theta": 500000.0 },
            "rope_pairing": "interleaved", "bos_token_id": 504, "eos_token_id": 510
        })
    );
    let qwen3 = open("gguf_qwen3_q4_k_m");
    assert_eq!(qwen3.config()["rope_pairing"], "half");
    assert_eq!(qwen3.config()["tie_word_embeddings"], false);
    assert_eq!(qwen3.config()["rope_parameters"]["rope_type"], "default");
    // Without the key, the vocabulary is as large as the embedding.
    assert_eq!(qwen3.gguf().unwrap().get("qwen3.vocab_size"), None);
    assert_eq!(qwen3.config()["vocab_size"], 512);
    let smollm3 = open("gguf_smollm3_q4_0");
    assert_eq!(smollm3.config()["no_rope_layer_interval"], 4);
    assert_eq!(smollm3.config()["rope_pairing"], "interleaved");
}

#[test]
fn yarn_metadata_becomes_rope_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("yarn.gguf");
    let model = tiny_llama()
        .u32("llama.vocab_size", 4)
        .str("llama.rope.scaling.type", "yarn")
        .f32("llama.rope.scaling.factor", 4.0)
        .u32("llama.rope.scaling.original_context_length", 32);
    fs::write(&file, model.build()).unwrap();
    assert_eq!(
        Checkpoint::open(&file).unwrap().config()["rope_parameters"],
        json!({ "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32 })
    );
}

#[test]
fn per_layer_values_become_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("layers.gguf");
    let heads: Vec<u8> = [4u32, 8].iter().flat_map(|n| n.to_le_bytes()).collect();
    let model = Gguf::default()
        .str("general.architecture", "x")
        .u32("x.block_count", 2)
        .u32("x.embedding_length", 8)
        .u32("x.context_length", 8)
        .u32("x.vocab_size", 8)
        .key("x.attention.head_count", weights_support::ARRAY, &weights_support::array(4, 2, &heads));
    fs::write(&file, model.build()).unwrap();
    let checkpoint = Checkpoint::open(&file).unwrap();
    assert_eq!(checkpoint.config()["num_attention_heads"], json!([4, 8]));
    assert_eq!(checkpoint.config()["num_key_value_heads"], json!([4, 8]));
}

#[test]
fn metadata_is_typed() {
    let checkpoint = open("gguf_llama_f16");
    let gguf = checkpoint.gguf().unwrap();
    assert_eq!(gguf.get_str("general.architecture").unwrap(), Some("llama"));
    assert_eq!(gguf.get_u32("llama.block_count").unwrap(), Some(2));
    assert_eq!(gguf.get_bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(gguf.get_f32("llama.rope.freq_base").unwrap(), Some(500000.0));
    assert_eq!(gguf.get_strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 512);
    assert_eq!(gguf.get_i64s("tokenizer.ggml.token_type").unwrap().unwrap().len(), 512);
    assert_eq!(gguf.get_str("no.such.key").unwrap(), None);
    assert_eq!(gguf.get("general.file_type"), Some(GgufValue::U32(1)));
    assert_eq!(gguf.iter().len(), 30);
    let tokens = gguf.get_array("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!(tokens.iter().nth(504).unwrap().as_str(), Some("<|begin_of_text|>"));
    let error = gguf.get_u32("general.architecture").unwrap_err().to_string();
    assert!(error.contains("general.architecture") && error.contains("a string of 5 bytes"), "{error}");
}

#[test]
fn a_folder_keeps_its_json_files() {
    let checkpoint = open("llama_a");
    assert_eq!(checkpoint.config()["rope_parameters"]["rope_type"], "llama3");
    assert_eq!(checkpoint.generation_config().unwrap()["top_p"], 0.9);
    assert_eq!(checkpoint.folder(), Some(case("llama_a").as_path()));
    assert!(checkpoint.gguf().is_none());
    let total = fs::metadata(case("llama_a").join("model.safetensors")).unwrap().len();
    assert!((total - 100_000..total).contains(&checkpoint.weight_bytes()));
}

#[test]
fn released_tensors_read_the_same_again() {
    for name in ["gguf_llama_q8_0", "llama_a"] {
        let checkpoint = open(name);
        for tensor in checkpoint.names() {
            let stored = checkpoint.tensor(tensor).unwrap();
            let before = stored.bytes.to_vec();
            checkpoint.release(&stored);
            assert!(checkpoint.tensor(tensor).unwrap().bytes == before, "{name}: {tensor}");
        }
    }
}

/// Writes `tensors` of `source` as a safetensors file.
fn write_safetensors(path: &Path, source: &Checkpoint, tensors: &[&str]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for &name in tensors {
        let tensor = source.tensor(name).unwrap();
        let begin = data.len();
        data.extend(&*tensor.bytes);
        let entry =
            json!({ "dtype": tensor.format.name(), "shape": tensor.shape, "data_offsets": [begin, data.len()] });
        header.insert(name.to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
}

#[test]
fn shards_read_like_the_single_file() {
    let whole = open("llama_b");
    let names: Vec<&str> = whole.names().collect();
    let (first, second) = names.split_at(names.len() / 3);
    let folder = tempfile::tempdir().unwrap();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    write_safetensors(&folder.path().join(shards[0]), &whole, first);
    write_safetensors(&folder.path().join(shards[1]), &whole, second);
    let map: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!(shards[usize::from(second.contains(name))]))).collect();
    fs::write(folder.path().join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    fs::copy(case("llama_b").join("config.json"), folder.path().join("config.json")).unwrap();

    let sharded = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(sharded.names().collect::<BTreeSet<_>>(), names.iter().copied().collect());
    for name in names {
        let (a, b) = (whole.tensor(name).unwrap(), sharded.tensor(name).unwrap());
        assert!(a.bytes == b.bytes && a.shape == b.shape && a.format == b.format, "{name}");
    }
    assert!(sharded.generation_config().is_none());
}

#[test]
fn a_split_gguf_opens_by_any_part_and_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let part = |number: u16| folder.path().join(format!("m-{number:05}-of-00002.gguf"));
    let split = |model: Gguf, number: u16| {
        model.key("split.no", 2, &number.to_le_bytes()).key("split.count", 2, &2u16.to_le_bytes())
    };
    let first = split(tiny_llama(), 0).key("split.tensors.count", 5, &2i32.to_le_bytes());
    fs::write(part(1), first.tensor("token_embd.weight", &[32, 4], 0, 0).data(512).build()).unwrap();
    let second = split(Gguf::default(), 1);
    fs::write(part(2), second.tensor("output.weight", &[32, 4], 8, 0).data(136).build()).unwrap();
    for path in [folder.path(), &part(1), &part(2)] {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["model.embed_tokens.weight", "lm_head.weight"]);
        assert_eq!(checkpoint.config()["tie_word_embeddings"], false);
        assert_eq!(checkpoint.config()["vocab_size"], 4);
        assert_eq!(checkpoint.tensor("lm_head.weight").unwrap().format, Format::Q8_0);
    }
}

#[test]
fn types_the_engine_cannot_compute_with_are_listed_and_refused_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"w":{"dtype":"F16","shape":[1],"data_offsets":[16,18]}}"#;
    fs::write(folder.path().join("model.safetensors"), weights_support::safetensors(header, 18)).unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.summaries().next().unwrap().dtype, StoredType::Other("I64"));
    assert_eq!(checkpoint.tensor("w").unwrap().bytes[..], [16, 17]);
    let error = checkpoint.tensor("ids").unwrap_err().to_string();
    assert!(error.contains("`ids`") && error.contains("I64"), "{error}");
    let error = checkpoint.tensor("x").unwrap_err().to_string();
    assert!(error.contains("`x` is missing"), "{error}");
}
