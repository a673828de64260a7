//! How far bfloat16 and float16 arithmetic and caches may lead from the float32 reference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_engine::Error;
use atelico_engine::arithmetic::CacheType;
use atelico_engine::device::{DeviceKind, DeviceSpec};
use atelico_engine::handle::{Event, LoadOptions, ModelHandle, Request, SamplingParams};
use atelico_kernels::ops::Precision;
use atelico_tests::{Case, devices, ids, language_model_cases};

/// Arithmetic, cache, and the largest difference of a logit from the float32 reference's, relative
/// to the logits' spread.
const BOUNDS: [(Precision, CacheType, f32); 5] = [
    (Precision::F32, CacheType::F16, 0.01),
    (Precision::F32, CacheType::BF16, 0.1),
    (Precision::Int8, CacheType::F16, 0.1),
    (Precision::F16, CacheType::F16, 0.05),
    (Precision::BF16, CacheType::F16, 0.1),
];

const CASES: [&str; 3] = ["llama_a", "qwen3_a", "gguf_llama_q4_k_m"];

fn load(
    case: &Case,
    device: DeviceSpec,
    precision: Precision,
    cache: CacheType,
    prefill_chunk: Option<usize>,
) -> Result<ModelHandle, Error> {
    let (precision, cache) = (Some(precision), Some(cache));
    let options = LoadOptions { device, precision, cache, prefill_chunk, context: Some(512), ..LoadOptions::default() };
    atelico_models::load(&case.folder, &options)
}

/// The logits after `prompt`.
fn logits(model: &ModelHandle, prompt: Vec<u32>) -> Vec<f32> {
    let mut generation = model
        .submit(Request {
            prompt,
            max_tokens: Some(1),
            sampling: SamplingParams::greedy(),
            stop_tokens: Vec::new(),
            ignore_eos: true,
            logprobs: None,
            prompt_logits: true,
            reuse_prefix: false,
        })
        .unwrap();
    loop {
        if let Event::PromptLogits(logits) = generation.next_blocking().unwrap().unwrap() {
            return logits;
        }
    }
}

/// The largest difference from the reference after the case's prompts, relative to the spread.
fn error(model: &ModelHandle, case: &Case) -> f32 {
    let spread = case.spread();
    let found = logits(model, ids(&case.golden["prompt_ids"]));
    let expected = case.golden["logits_last"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32);
    assert_eq!(found.len(), expected.len());
    let short = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let long = &case.golden["long"];
    let found = logits(model, ids(&long["prompt_ids"]));
    let top = long["logits_last_top20"].as_array().unwrap().iter();
    let pairs = top.map(|pair| (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap() as f32));
    pairs.map(|(id, expected)| (found[id] - expected).abs()).fold(short, f32::max) / spread
}

#[test]
fn narrow_numbers_stay_within_their_bounds() {
    let cases = language_model_cases();
    for device in devices() {
        let opened = device.open().unwrap();
        for (precision, cache, bound) in BOUNDS {
            let what = format!("{device}, {precision:?} with {cache} caches");
            for case in cases.iter().filter(|case| CASES.contains(&&*case.name)) {
                match load(case, device, precision, cache, None) {
                    Ok(model) => {
                        let worst = error(&model, case);
                        println!("{what}, {}: within {worst:.1e} of the spread", case.name);
                        assert!(worst <= bound, "{what}, {}: {worst} exceeds {bound}", case.name);
                    }
                    Err(refused) => {
                        let why = match opened.kind {
                            DeviceKind::Cpu => "; the CPU ",
                            _ => "does not support",
                        };
                        assert!(refused.to_string().contains(why), "{what}: {refused}");
                        println!("{what}: {refused}");
                        break;
                    }
                }
            }
        }
    }
}

/// Caches of eight bits, whose heads hold whole blocks; of other models they are refused.
#[test]
fn caches_of_eight_bits_stay_within_their_bound() {
    let cases = language_model_cases();
    for device in devices() {
        for name in ["qwen3_a", "qwen35_dense", "bonsai_a"] {
            let case = cases.iter().find(|case| case.name == name).unwrap();
            let model = load(case, device, Precision::F32, CacheType::Q8, None).unwrap();
            let worst = error(&model, case);
            println!("{device}, float32 with q8_0 caches, {name}: within {worst:.1e} of the spread");
            assert!((1e-4..0.05).contains(&worst), "{device}, {name}: {worst}");
        }
        let case = cases.iter().find(|case| case.name == "llama_a").unwrap();
        let refused = load(case, device, Precision::F32, CacheType::Q8, None).unwrap_err().to_string();
        assert!(refused.contains("multiple of 32 elements; these have 16"), "{refused}");
    }
}

/// Packed weights in eight bits choose the token that the reference does. Tokens go through one by one, as
/// in decode: a GPU multiplies many in float32.
#[test]
fn eight_bits_choose_the_golden_token() {
    let cases = language_model_cases();
    for device in devices() {
        for case in cases.iter().filter(|case| case.name.contains("gguf")) {
            let model = load(case, device, Precision::Int8, CacheType::F16, Some(1)).unwrap();
            let logits = logits(&model, ids(&case.golden["prompt_ids"]));
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            assert_eq!(best, ids(&case.golden["greedy_ids"])[0] as usize, "{} on {device}", case.name);
        }
    }
}
