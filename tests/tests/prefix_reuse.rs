//! Prompts that begin like an earlier one: what is reused, and that the answers stay the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_engine::device::DeviceSpec;
use atelico_engine::handle::{Event, LoadOptions, ModelHandle, Request, SamplingParams};
use atelico_kernels::ops::Precision;
use atelico_tests::{Case, devices, ids, language_model_cases};

/// Full and sliding attention, shared keys and values, and the two kinds of recurrent state; whether a
/// slot of it can be cut back.
const CASES: [(&str, bool); 5] =
    [("llama_a", true), ("mistral_a", true), ("gemma4_e2b", true), ("qwen35_dense", false), ("nemotron_h", false)];

const SLOTS: usize = 2;

fn load(case: &Case, device: DeviceSpec) -> ModelHandle {
    let precision = Some(Precision::F32);
    let options = LoadOptions { device, precision, context: Some(512), slots: SLOTS, ..LoadOptions::default() };
    atelico_models::load(&case.folder, &options).unwrap()
}

fn request(prompt: &[u32], max_tokens: usize, stop: Option<u32>, reuse_prefix: bool) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(max_tokens),
        sampling: SamplingParams::greedy(),
        stop_tokens: stop.into_iter().collect(),
        ignore_eos: true,
        logprobs: None,
        prompt_logits: true,
        reuse_prefix,
    }
}

#[derive(Debug, Default)]
struct Output {
    ids: Vec<u32>,
    logits: Vec<f32>,
    cached: usize,
}

fn run(model: &ModelHandle, request: Request) -> Output {
    let mut generation = model.submit(request).unwrap();
    let mut output = Output { cached: usize::MAX, ..Output::default() };
    while let Some(event) = generation.next_blocking() {
        match event.unwrap() {
            Event::Started { cached_tokens } => output.cached = cached_tokens,
            Event::PromptLogits(logits) => output.logits = logits,
            Event::Token { id, .. } => output.ids.push(id),
            Event::Done { timings, .. } => assert_eq!(timings.cached_tokens, output.cached),
        }
    }
    output
}

/// Runs `prompt` on what is there and anew; both must agree. Returns what was reused, and the answer.
fn both(what: &str, model: &ModelHandle, prompt: &[u32], spread: f32) -> (usize, Vec<u32>) {
    let reused = run(model, request(prompt, 8, None, true));
    let anew = run(model, request(prompt, 8, None, false));
    assert_eq!(anew.cached, 0, "{what}");
    assert_eq!(reused.ids, anew.ids, "{what}");
    let worst = reused.logits.iter().zip(&anew.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-3 * spread, "{what}: off by {worst}");
    (reused.cached, anew.ids)
}

/// Calls `test` with every case's name, model, golden file and whether its slots can be cut back, on
/// every device.
fn each_model(test: impl Fn(&str, &ModelHandle, &Case, bool)) {
    let cases = language_model_cases();
    for device in devices() {
        for (name, truncates) in CASES {
            match cases.iter().find(|case| case.name == name) {
                Some(case) => test(&format!("{name} on {device}"), &load(case, device), case, truncates),
                None => assert!(std::env::var_os("ATELICO_TEST_CASES").is_some(), "{name} is missing"),
            }
        }
    }
}

#[test]
fn a_prompt_starts_where_it_differs_from_what_a_slot_holds() {
    each_model(|what, model, case, truncates| {
        let prompt = ids(&case.golden["prompt_ids"]);
        let first = run(model, request(&prompt, 12, None, true));
        assert_eq!((first.cached, first.ids.len()), (0, 12), "{what}");

        // A second turn: the last token of an answer that was cut has not been through the model.
        let mut turn = [&*prompt, &first.ids, &prompt[..3]].concat();
        let (cached, answer) = both(what, model, &turn, case.spread());
        assert_eq!(cached, prompt.len() + 11, "{what}");
        turn.extend(&answer[..7]);
        turn.push(prompt[0]);
        let (cached, _) = both(what, model, &turn, case.spread());
        assert_eq!(cached, turn.len() - 1, "{what}");

        // A prompt that leaves the common path halfway, and one that is known as a whole.
        let half = prompt.len() / 2;
        let other = [&prompt[..half], &prompt[..5]].concat();
        let common = other.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
        let (cached, _) = both(what, model, &other, case.spread());
        assert_eq!(cached, if truncates { common } else { 0 }, "{what}");
        let (cached, _) = both(what, model, &other, case.spread());
        assert_eq!(cached, if truncates { other.len() - 1 } else { 0 }, "{what}");
    });
}

/// A stop token has been through the model when the answer ends: the next step was under way.
#[test]
fn an_answer_that_stopped_is_continued() {
    each_model(|what, model, case, _| {
        let prompt = ids(&case.golden["prompt_ids"]);
        let whole = run(model, request(&prompt, 10, None, false)).ids;
        let stop = whole.iter().position(|id| !whole[..4].contains(id)).unwrap();
        let stopped = run(model, request(&prompt, 20, Some(whole[stop]), true));
        assert_eq!(stopped.ids, whole[..stop], "{what}");
        let turn = [&*prompt, &whole[..=stop], &prompt[..2]].concat();
        let (cached, _) = both(what, model, &turn, case.spread());
        assert_eq!(cached, prompt.len() + stop + 1, "{what}");
    });
}

/// Requests that are cancelled, and ones that run at once, leave their slots in order.
#[test]
fn cancelled_and_simultaneous_requests_leave_what_is_right() {
    each_model(|what, model, case, _| {
        let prompt = ids(&case.golden["prompt_ids"]);
        let expected = run(model, request(&prompt, 20, None, false)).ids;
        for round in 0..3 {
            let mut cancelled = model.submit(request(&prompt, 20, None, true)).unwrap();
            let mut kept = model.submit(request(&prompt, 20, None, true)).unwrap();
            for _ in 0..2 + 3 * round {
                cancelled.next_blocking().unwrap().unwrap();
            }
            drop(cancelled);
            let mut found = Vec::new();
            while let Some(event) = kept.next_blocking() {
                if let Event::Token { id, .. } = event.unwrap() {
                    found.push(id);
                }
            }
            assert_eq!(found, expected, "{what}");
            let turn = [&prompt, &expected[..2 + round]].concat();
            both(what, model, &turn, case.spread());
        }
    });
}
