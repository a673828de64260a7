//! Every fixture against the reference implementation: logits, greedy ids, long prompts, batches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_engine::device::DeviceSpec;
use atelico_engine::handle::{Event, FinishReason, LoadOptions, ModelHandle, Request, SamplingParams, TokenLogprobs};
use atelico_kernels::ops::Precision;
use atelico_tests::{Case, devices, ids, language_model_cases};
use serde_json::Value;

/// Largest difference of a logit from the reference's, relative to the logits' spread.
const LOGITS_BOUND: f32 = 1e-3;

fn load(case: &Case, device: DeviceSpec, slots: usize, prefill_chunk: Option<usize>) -> ModelHandle {
    let precision = Some(Precision::F32);
    let options = LoadOptions { device, precision, context: Some(512), slots, prefill_chunk, ..LoadOptions::default() };
    atelico_models::load(&case.folder, &options).unwrap_or_else(|e| panic!("{} on {device}: {e}", case.name))
}

fn greedy(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(max_tokens),
        sampling: SamplingParams::greedy(),
        stop_tokens: Vec::new(),
        ignore_eos: false,
        logprobs: None,
        prompt_logits: false,
        reuse_prefix: false,
    }
}

#[derive(Debug, Default)]
struct Output {
    ids: Vec<u32>,
    logits: Vec<f32>,
    logprobs: Vec<TokenLogprobs>,
    reason: Option<FinishReason>,
}

fn run(model: &ModelHandle, request: Request) -> Output {
    let mut generation = model.submit(request).unwrap();
    let mut output = Output::default();
    while let Some(event) = generation.next_blocking() {
        match event.unwrap() {
            Event::Started { cached_tokens } => assert_eq!(cached_tokens, 0),
            Event::PromptLogits(logits) => output.logits = logits,
            Event::Token { id, logprobs } => {
                output.ids.push(id);
                output.logprobs.extend(logprobs);
            }
            Event::Done { reason, .. } => output.reason = Some(reason),
        }
    }
    output
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Asserts that `found` and `expected` differ by no more than the bound; returns the difference.
fn close(what: &str, found: &[f32], expected: &[f32], spread: f32) -> f32 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / spread;
    assert!(worst <= LOGITS_BOUND, "{what}: off by {worst} of the spread");
    worst
}

fn on_every_device(test: impl Fn(DeviceSpec)) {
    for device in devices() {
        test(device);
    }
}

#[test]
fn logits_and_greedy_ids_equal_the_reference() {
    on_every_device(|device| {
        let mut worst = 0.0f32;
        for case in language_model_cases() {
            let model = load(&case, device, 1, None);
            let golden = &case.golden;
            let name = format!("{} on {device}", case.name);
            let prompt = ids(&golden["prompt_ids"]);
            let expected = ids(&golden["greedy_ids"]);
            let spread = case.spread();
            let request = Request { prompt_logits: true, logprobs: Some(5), ..greedy(&prompt, expected.len()) };
            let output = run(&model, request);
            worst = worst.max(close(&name, &output.logits, &floats(&golden["logits_last"]), spread));
            assert_eq!(output.ids, expected, "{name}");
            assert_eq!(output.reason, Some(FinishReason::Length), "{name}");
            for (found, expected) in output.logprobs.iter().zip(golden["logprobs"].as_array().unwrap()) {
                let expected = expected.as_array().unwrap();
                let best = expected[0][1].as_f64().unwrap() as f32;
                assert!((found.logprob - best).abs() < 2e-2, "{name}: {found:?} {expected:?}");
                assert_eq!(found.top.len(), 5, "{name}");
                assert_eq!(found.top[0], (found.top[0].0, found.logprob), "{name}");
            }
            for chat in ["chat", "chat_single"] {
                if golden[chat]["greedy_ids"].is_array() {
                    let expected = ids(&golden[chat]["greedy_ids"]);
                    let output = run(&model, greedy(&ids(&golden[chat]["ids"]), expected.len()));
                    assert_eq!(output.ids, expected, "{name}: {chat}");
                }
            }
        }
        println!("{device}: logits within {worst:.1e} of the spread");
    });
}

/// Prompts longer than a chunk and than every window, at chunks that end anywhere.
#[test]
fn long_prompts_equal_the_reference_at_any_chunk() {
    on_every_device(|device| {
        for case in language_model_cases() {
            let long = &case.golden["long"];
            let spread = case.spread();
            let prompt = ids(&long["prompt_ids"]);
            for chunk in [None, Some(37)] {
                let model = load(&case, device, 1, chunk);
                let name = format!("{} on {device}, chunk {chunk:?}", case.name);
                // Some cases state the logits only.
                let expected = long["greedy_ids"].as_array().map(|_| ids(&long["greedy_ids"]));
                let max_tokens = expected.as_ref().map_or(1, Vec::len);
                let output = run(&model, Request { prompt_logits: true, ..greedy(&prompt, max_tokens) });
                assert!(expected.is_none_or(|expected| output.ids == expected), "{name}: {:?}", output.ids);
                for pair in long["logits_last_top20"].as_array().unwrap() {
                    let (id, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap() as f32);
                    close(&name, &output.logits[id..=id], &[expected], spread);
                }
            }
        }
    });
}

/// The cache holds what a full recompute would find: every prefix of the answer, fed as a prompt,
/// leads to the same next token with the same probability.
#[test]
fn decode_equals_full_recompute() {
    on_every_device(|device| {
        for case in language_model_cases() {
            let model = load(&case, device, 1, None);
            let mut prompt = ids(&case.golden["prompt_ids"]);
            let decoded = run(&model, Request { logprobs: Some(0), ..greedy(&prompt, 8) });
            for (i, &id) in decoded.ids.iter().enumerate() {
                let again = run(&model, Request { logprobs: Some(0), ..greedy(&prompt, 1) });
                assert_eq!(again.ids, [id], "{} on {device}, token {i}", case.name);
                let difference = (again.logprobs[0].logprob - decoded.logprobs[i].logprob).abs();
                assert!(difference < 1e-3, "{} on {device}, token {i}: {difference}", case.name);
                prompt.push(id);
            }
        }
    });
}

/// A case of each kind of state, window and routing.
const MIXED_BATCHES: [&str; 10] = [
    "mistral_a",
    "qwen3_a",
    "gguf_llama_q4_k_m",
    "gemma4_e2b",
    "gemma4_26b_a4b",
    "nemotron_h",
    "nemotron3_moe_gguf_q4_k_m",
    "parcae_a",
    "qwen35_dense",
    "qwen35moe_gguf_q4_k_m",
];

/// Requests of mixed lengths, arriving together, each get the ids of a run of their own.
#[test]
fn batches_equal_single_runs() {
    on_every_device(|device| {
        for case in language_model_cases().iter().filter(|c| MIXED_BATCHES.contains(&&*c.name)) {
            let model = load(case, device, 4, Some(64));
            let golden = &case.golden;
            let chat = if golden["chat_single"].is_object() { &golden["chat_single"] } else { &golden["chat"] };
            let prompts = [(golden, "prompt_ids"), (&golden["long"], "prompt_ids"), (chat, "ids")];
            let requests = prompts.map(|(golden, key)| {
                let prompt = ids(&golden[key]);
                // A case without golden ids for a prompt is held to a run alone.
                let expected = match golden["greedy_ids"].is_array() {
                    true => ids(&golden["greedy_ids"]),
                    false => run(&model, greedy(&prompt, 24)).ids,
                };
                (prompt, expected)
            });
            // More requests than slots: some wait for a slot that another had.
            let threads = (0..9).map(|i| {
                let (prompt, expected) = requests[i % 3].clone();
                let (model, name) = (model.clone(), format!("{} on {device}, request {i}", case.name));
                std::thread::spawn(move || {
                    let output = run(&model, greedy(&prompt, expected.len()));
                    assert_eq!(output.ids, expected, "{name}");
                })
            });
            threads.collect::<Vec<_>>().into_iter().for_each(|t| t.join().unwrap());
        }
    });
}

/// transformers renames keys and layer kinds when it saves a checkpoint anew.
#[test]
fn a_config_saved_by_transformers_is_the_same_model() {
    for case in language_model_cases() {
        let config = case.folder.join("config.transformers.json");
        if !config.exists() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(case.folder.join(file), folder.path().join(file)).unwrap();
        }
        std::fs::copy(config, folder.path().join("config.json")).unwrap();
        let expected = &ids(&case.golden["greedy_ids"])[..4];
        let case = Case { folder: folder.path().into(), ..case };
        let model = load(&case, "cpu".parse().unwrap(), 1, None);
        let prompt = ids(&case.golden["prompt_ids"]);
        assert_eq!(run(&model, greedy(&prompt, 4)).ids, expected, "{}", case.name);
    }
}

#[test]
fn sampling_is_repeatable_and_independent_of_the_batch() {
    on_every_device(|device| {
        let cases = language_model_cases();
        let case = cases.iter().find(|c| c.name == "qwen3_a").unwrap();
        let model = load(case, device, 4, None);
        let prompt = ids(&case.golden["prompt_ids"]);
        let sampled = |seed| {
            let sampling = SamplingParams {
                temperature: 1.5,
                top_k: 40,
                top_p: 0.95,
                min_p: 0.01,
                repetition_penalty: 1.1,
                presence_penalty: 0.2,
                frequency_penalty: 0.1,
                logit_bias: vec![(5, 1.0)],
                seed: Some(seed),
            };
            Request { sampling, ignore_eos: true, ..greedy(&prompt, 24) }
        };
        let alone = (0..4).map(|seed| run(&model, sampled(seed)).ids).collect::<Vec<_>>();
        assert_eq!(alone[0], run(&model, sampled(0)).ids, "{device}");
        assert_ne!(alone[0], alone[1], "{device}");
        let threads = (0..4u64).map(|seed| {
            let (model, request) = (model.clone(), sampled(seed));
            std::thread::spawn(move || run(&model, request).ids)
        });
        let together = threads.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>();
        assert_eq!(together, alone, "{device}");
    });
}

#[test]
fn a_biased_token_is_chosen_and_a_forbidden_one_is_not() {
    on_every_device(|device| {
        let cases = language_model_cases();
        let case = cases.iter().find(|c| c.name == "llama_a").unwrap();
        let model = load(case, device, 1, None);
        let prompt = ids(&case.golden["prompt_ids"]);
        let usual = ids(&case.golden["greedy_ids"])[0];
        let biased = |bias| {
            let sampling = SamplingParams { logit_bias: bias, ..SamplingParams::greedy() };
            run(&model, Request { sampling, ..greedy(&prompt, 1) }).ids[0]
        };
        assert_eq!(biased(vec![(7, 100.0)]), 7, "{device}");
        assert_ne!(biased(vec![(usual, -100.0)]), usual, "{device}");
    });
}

#[test]
fn the_context_ends_an_answer_and_refuses_a_prompt() {
    let cases = language_model_cases();
    let case = cases.iter().find(|c| c.name == "llama_a").unwrap();
    let options = LoadOptions { device: "cpu".parse().unwrap(), context: Some(64), ..LoadOptions::default() };
    let model = atelico_models::load(&case.folder, &options).unwrap();
    let prompt = |n: usize| (0..n).map(|i| 10 + (i % 40) as u32).collect::<Vec<_>>();
    let endless = |n| Request { max_tokens: None, ignore_eos: true, ..greedy(&prompt(n), 1) };
    let output = run(&model, endless(60));
    // Positions 60 to 63 hold the first four; the fifth needs no position of its own.
    assert_eq!((output.ids.len(), output.reason), (4, Some(FinishReason::Length)));
    assert_eq!(run(&model, endless(63)).ids.len(), 1);
    let error = model.submit(endless(64)).unwrap_err().to_string();
    assert!(error.contains("64") && error.contains("exceeds the context"), "{error}");
}

#[test]
fn a_dropped_generation_frees_its_slot() {
    let cases = language_model_cases();
    let case = cases.iter().find(|c| c.name == "llama_a").unwrap();
    let model = load(case, "cpu".parse().unwrap(), 1, None);
    let prompt = ids(&case.golden["prompt_ids"]);
    for _ in 0..50 {
        let mut generation = model.submit(Request { ignore_eos: true, ..greedy(&prompt, 400) }).unwrap();
        generation.next_blocking().unwrap().unwrap();
    }
    let expected = ids(&case.golden["greedy_ids"]);
    assert_eq!(run(&model, greedy(&prompt, expected.len())).ids, expected);
}
