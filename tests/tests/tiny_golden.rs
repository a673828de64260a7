//! The built-in model against what the reference implementation makes of it: chats through its
//! template to ids, and the ids of greedy answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use atelico_engine::handle::{Event, FinishReason, LoadOptions, ModelHandle, Request, SamplingParams};
use atelico_kernels::ops::Precision;
use atelico_tests::{devices, ids};
use serde_json::{Map, Value};

/// Tokens that the reference generated at most.
const MAX_TOKENS: usize = 64;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/assets/atelico-tiny")
}

fn cases() -> Vec<Value> {
    let golden = std::fs::read_to_string(folder().join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let cases = golden["cases"].as_array().unwrap().clone();
    assert!(cases.len() >= 10);
    cases
}

/// The ids of a case's messages in the chat template, or of its plain text.
fn prompt(model: &ModelHandle, case: &Value) -> Vec<u32> {
    let tokenizer = model.tokenizer().unwrap();
    match case["text"].as_str() {
        Some(text) => tokenizer.encode(text, true).unwrap(),
        None => {
            let template = model.chat_template().unwrap();
            let (bos, eos) = (tokenizer.bos_token(), tokenizer.eos_token());
            let text = template.render(&case["messages"], None, &Map::new(), true, bos, eos).unwrap();
            tokenizer.encode(&text, false).unwrap()
        }
    }
}

/// The greedy answer to `prompt` and why it ended.
fn answer(model: &ModelHandle, prompt: Vec<u32>) -> (Vec<u32>, FinishReason) {
    let mut generation = model
        .submit(Request {
            prompt,
            max_tokens: Some(MAX_TOKENS),
            sampling: SamplingParams::greedy(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logits: false,
            reuse_prefix: false,
        })
        .unwrap();
    let mut ids = Vec::new();
    loop {
        match generation.next_blocking().unwrap().unwrap() {
            Event::Token { id, .. } => ids.push(id),
            Event::Done { reason, .. } => return (ids, reason),
            Event::Started { .. } | Event::PromptLogits(_) => {}
        }
    }
}

#[test]
fn chats_and_greedy_answers_equal_the_reference() {
    for device in devices() {
        let options = LoadOptions { device, precision: Some(Precision::F32), ..LoadOptions::default() };
        let model = atelico_models::load(&folder(), &options).unwrap();
        for (i, case) in cases().iter().enumerate() {
            let name = format!("case {i} on {device}");
            let prompt = prompt(&model, case);
            assert_eq!(prompt, ids(&case["prompt_ids"]), "{name}");
            let (found, reason) = answer(&model, prompt);
            // The token that ends an answer is not sent.
            let mut expected = ids(&case["greedy_ids"]);
            let ended = expected.last().is_some_and(|id| model.eos_token_ids().contains(id));
            if ended {
                expected.pop();
            }
            assert_eq!(found, expected, "{name}");
            assert_eq!(reason, if ended { FinishReason::Stop } else { FinishReason::Length }, "{name}");
            let text = case["greedy_text"].as_str().unwrap();
            assert_eq!(model.tokenizer().unwrap().decode(&ids(&case["greedy_ids"]), false).unwrap(), text, "{name}");
        }
    }
}
