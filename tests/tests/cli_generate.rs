//! `atelico generate` against the reference implementation's answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;

use cli_support::{atelico, cases, fixtures, golden, joined, run_on_cpu, run_with_input};
use serde_json::{Value, json};

const GREEDY: [&str; 3] = ["--temperature", "0", "--ignore-eos"];

fn generate(case: &str, args: &[&str]) -> Value {
    run_on_cpu(&[&["generate", case, "--format", "json"], args].concat()).json()
}

#[test]
fn golden_ids_of_every_checkpoint() {
    for case in cases() {
        let golden = golden(&case);
        let ids = joined(&golden["prompt_ids"]);
        let count = golden["greedy_ids"].as_array().unwrap().len().to_string();
        let args = [&GREEDY[..], &["--prompt-ids", &ids, "--max-tokens", &count]].concat();
        let answer = generate(&case, &args);
        assert_eq!(answer["ids"], golden["greedy_ids"], "{case}");
        // What the ids add to the prompt's text; the reference leaves it out where it is the same.
        let text = golden.get("continuation").unwrap_or(&golden["greedy_text"]);
        assert_eq!(&answer["text"], text, "{case}");
        assert_eq!(answer["finish_reason"], "length", "{case}");
    }
}

#[test]
fn text_prompts_get_the_tokenizers_special_tokens() {
    for case in ["llama_a", "mistral_a", "qwen3_a", "smollm3_b", "gguf_llama_q8_0", "gguf_mistral_q5_0"] {
        let golden = golden(case);
        let prompt = golden["prompt"].as_str().unwrap();
        let answer = generate(case, &[&GREEDY[..], &["-p", prompt, "--max-tokens", "4"]].concat());
        assert_eq!(answer["prompt_ids"], golden["prompt_ids"], "{case}");
        assert_eq!(answer["ids"].as_array().unwrap(), &golden["greedy_ids"].as_array().unwrap()[..4], "{case}");
    }
}

#[test]
fn the_object_holds_exactly_the_documented_fields() {
    let answer = generate("llama_a", &["--prompt-ids", "504,39", "--max-tokens", "3", "--temperature", "0"]);
    let keys: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    let expected =
        ["model", "architecture", "device", "prompt_ids", "ids", "text", "finish_reason", "logprobs", "timings"];
    assert_eq!(keys, expected);
    assert_eq!(answer["model"], "llama_a");
    assert_eq!(answer["architecture"], "llama");
    assert_eq!(answer["device"], "cpu");
    assert_eq!(answer["logprobs"], Value::Null);
    let timings = answer["timings"].as_object().unwrap();
    let keys: Vec<_> = timings.keys().map(String::as_str).collect();
    assert_eq!(keys, ["load_ms", "prompt_tokens", "prompt_ms", "generated_tokens", "decode_ms"]);
    assert_eq!(timings["prompt_tokens"], 2);
    assert_eq!(timings["generated_tokens"], 3);
    assert!(timings["load_ms"].as_f64().unwrap() > 0.0 && timings["prompt_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn logprobs_are_the_references() {
    let golden = golden("llama_a");
    let ids = joined(&golden["prompt_ids"]);
    let args = [&GREEDY[..], &["--prompt-ids", &ids, "--max-tokens", "8", "--logprobs", "5"]].concat();
    let answer = generate("llama_a", &args);
    let steps = answer["logprobs"].as_array().unwrap();
    assert_eq!(steps.len(), 8);
    for (step, expected) in steps.iter().zip(golden["logprobs"].as_array().unwrap()) {
        let (step, expected) = (step.as_array().unwrap(), expected.as_array().unwrap());
        assert_eq!(step.len(), 5);
        for (pair, expected) in step.iter().zip(expected) {
            assert_eq!(pair[0], expected[0]);
            let difference = (pair[1].as_f64().unwrap() - expected[1].as_f64().unwrap()).abs();
            assert!(difference < 2e-2, "{pair} against {expected}");
        }
    }
}

#[test]
fn logits_are_written_as_npy() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["qwen3_a", "gguf_llama_q6_k"] {
        let file = folder.path().join(format!("{case}.npy"));
        let golden = golden(case);
        let ids = joined(&golden["prompt_ids"]);
        generate(case, &["--prompt-ids", &ids, "--max-tokens", "1", "--logits-out", file.to_str().unwrap()]);
        let bytes = std::fs::read(file).unwrap();
        let expected = golden["logits_last"].as_array().unwrap();
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0");
        let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..data]).unwrap();
        let described = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", expected.len());
        assert_eq!(header.trim_end(), described);
        assert_eq!(bytes.len(), data + expected.len() * 4);
        // 1e-3 of the logits' spread, which also bounds the relative error of the large ones.
        let bound = 1e-3 * golden["logits_std"].as_f64().unwrap().max(1.0);
        for (value, expected) in bytes[data..].chunks_exact(4).zip(expected) {
            let value = f64::from(f32::from_le_bytes(value.try_into().unwrap()));
            let expected = expected.as_f64().unwrap();
            assert!((value - expected).abs() <= bound.max(1e-3 * expected.abs()), "{case}: {value} {expected}");
        }
    }
}

#[test]
fn unwritable_logits_file_is_an_error() {
    let args = ["generate", "llama_a", "--prompt-ids", "504", "--max-tokens", "1", "--format", "json"];
    let run = run_on_cpu(&[&args[..], &["--logits-out", "/no/such/folder/x.npy"]].concat());
    assert!(run.error(1).contains("/no/such/folder/x.npy"));
}

#[test]
fn text_streams_and_ends_with_a_line_break() {
    let golden = golden("smollm2_a");
    let ids = joined(&golden["prompt_ids"]);
    let args = [&["generate", "smollm2_a", "--prompt-ids", &ids, "--max-tokens", "32"], &GREEDY[..]].concat();
    let expected = format!("{}\n", golden["greedy_text"].as_str().unwrap());
    assert_eq!(run_on_cpu(&args).ok(), expected);
}

#[test]
fn prompts_come_from_standard_input_too() {
    let prompt = golden("qwen3_a")["prompt"].as_str().unwrap().to_owned();
    let args = ["generate", "qwen3_a", "--max-tokens", "2", "--format", "json", "--device", "cpu"];
    for extra in [&[][..], &["-p", "-"][..]] {
        let answer = run_with_input(atelico(&args).args(extra), &prompt).json();
        assert_eq!(answer["prompt_ids"], golden("qwen3_a")["prompt_ids"]);
    }
}

#[test]
fn paths_name_models_too() {
    for path in [fixtures().join("llama_a"), fixtures().join("gguf_llama_q4_0/tiny-llama-Q4_0.gguf")] {
        let answer = generate(path.to_str().unwrap(), &["--prompt-ids", "504,40", "--max-tokens", "1"]);
        assert_eq!(answer["model"], json!(path));
    }
}

#[test]
fn the_chat_option_renders_the_template() {
    for case in ["smollm2_a", "qwen3_a", "qwen3_b", "smollm3_b", "mistral_b"] {
        let golden = golden(case);
        let chat = &golden["chat_single"];
        let message = chat["messages"][0]["content"].as_str().unwrap();
        assert_eq!(chat["messages"].as_array().unwrap().len(), 1);
        let kwargs = chat["template_kwargs"].to_string();
        let chat_args = ["--chat", "-p", message, "--max-tokens", "16", "--chat-template-kwargs", &kwargs];
        let args = [&GREEDY[..], &chat_args].concat();
        let answer = generate(case, &args);
        assert_eq!(answer["prompt_ids"], chat["ids"], "{case}");
        assert_eq!(answer["ids"], chat["greedy_ids"], "{case}");
    }
}

#[test]
fn stop_strings_end_the_answer_before_them() {
    let golden = golden("llama_a");
    let text = golden["greedy_text"].as_str().unwrap();
    let stop = "number";
    let ids = joined(&golden["prompt_ids"]);
    let args = [&GREEDY[..], &["--prompt-ids", &ids, "--stop", "no such text", "--stop", stop]].concat();
    let answer = generate("llama_a", &args);
    assert_eq!(answer["text"], text[..text.find(stop).unwrap()]);
    assert_eq!(answer["finish_reason"], "stop");
}

#[test]
fn a_seed_repeats_the_answer_and_its_absence_does_not() {
    let sample = |seed: &[&str]| {
        let args = [&["-p", "A garden", "--temperature", "1.5", "--max-tokens", "24", "--ignore-eos"], seed].concat();
        generate("llama_a", &args)["ids"].clone()
    };
    assert_eq!(sample(&["--seed", "7"]), sample(&["--seed", "7"]));
    assert_ne!(sample(&["--seed", "7"]), sample(&["--seed", "8"]));
    assert_ne!(sample(&[]), sample(&[]));
}

#[test]
fn sampling_options_reach_the_sampler() {
    let golden = golden("llama_a");
    let ids = joined(&golden["prompt_ids"]);
    let prompt = ["--prompt-ids", ids.as_str(), "--max-tokens", "12", "--ignore-eos"];
    let run = |args: &[&str]| generate("llama_a", &[&prompt[..], args].concat())["ids"].clone();
    let greedy = run(&["--temperature", "0"]);
    // Each of these alone leaves one candidate: the likeliest token.
    assert_eq!(run(&["--temperature", "2", "--top-k", "1"]), greedy);
    assert_eq!(run(&["--temperature", "2", "--top-p", "0.000001"]), greedy);
    assert_eq!(run(&["--temperature", "2", "--min-p", "1"]), greedy);
    // Strong penalties forbid repetition.
    let loops = cli_support::golden("gguf_llama_q4_k_m");
    let ids = joined(&loops["prompt_ids"]);
    let base = ["--prompt-ids", ids.as_str(), "--max-tokens", "32", "--ignore-eos", "--temperature", "0"];
    let distinct = |args: &[&str]| {
        let answer = generate("gguf_llama_q4_k_m", &[&base[..], args].concat());
        let ids: std::collections::HashSet<_> =
            answer["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
        ids.len()
    };
    let plain = distinct(&[]);
    assert!(plain < 20, "the fixture repeats itself");
    assert!(distinct(&["--repetition-penalty", "5"]) > plain);
    assert!(distinct(&["--presence-penalty", "2", "--frequency-penalty", "2"]) > plain);
}

#[test]
fn parameters_out_of_range_are_usage_errors() {
    let cases = [
        ("--temperature", "-1", "temperature"),
        ("--temperature", "NaN", "temperature"),
        ("--top-p", "0", "top_p"),
        ("--top-p", "1.5", "top_p"),
        ("--min-p", "2", "min_p"),
        ("--presence-penalty", "-3", "presence_penalty"),
        ("--max-tokens", "0", "max_tokens"),
        ("--top-k", "-1", "--top-k"),
        ("--seed", "x", "--seed"),
    ];
    for (option, value, named) in cases {
        let message = run_on_cpu(&["generate", "llama_a", "-p", "x", option, value]).error(2);
        assert!(message.contains(named), "{option} {value}: {message}");
    }
    let message = run_on_cpu(&["generate", "llama_a", "--prompt-ids", "1", "--format", "json", "--logprobs", "21"]);
    assert!(message.error(2).contains("logprobs"));
    assert!(run_on_cpu(&["generate", "llama_a", "-p", "x", "--logprobs", "1"]).error(2).contains("--format json"));
    assert!(run_on_cpu(&["generate", "llama_a", "--prompt-ids", "999999"]).error(2).contains("999999"));
    let kwargs = ["generate", "llama_a", "-p", "x", "--chat-template-kwargs"];
    assert!(run_on_cpu(&[&kwargs[..], &["{\"a\": 1}"]].concat()).error(2).contains("--chat"));
    assert!(run_on_cpu(&[&kwargs[..], &["[1]"]].concat()).error(2).contains("JSON object"));
    assert!(run_on_cpu(&["generate", "llama_a", "-p", "x", "--prompt-ids", "1"]).error(2).contains("--prompt-ids"));
}

#[test]
fn a_prompt_beyond_the_context_is_refused_with_the_numbers() {
    let ids = vec!["40"; 100].join(",");
    let message = run_on_cpu(&["generate", "llama_a", "--prompt-ids", &ids, "--context", "64"]).error(1);
    assert!(message.contains("100") && message.contains("64") && message.contains("--context"), "{message}");
}

#[test]
fn number_types_are_checked() {
    let generate = |more: &[&str]| run_on_cpu(&[&["generate", "llama_a", "--prompt-ids", "504"], more].concat());
    assert!(generate(&["--precision", "bf16"]).error(2).contains("the CPU computes in f32"));
    assert!(generate(&["--kv-cache", "bf16"]).error(2).contains("the CPU keeps f32, f16 or q8_0"));
    assert!(generate(&["--precision", "f8"]).error(2).contains("f32, bf16, f16"));
    generate(&["--precision", "f32", "--kv-cache", "f32", "--max-tokens", "1"]).ok();
}
