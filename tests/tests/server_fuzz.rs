//! Thousands of requests with absurd parameters: each is answered with 200 or an error object of
//! the 400s, and the server goes on.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server_support;

use std::io::Write;

use serde_json::{Map, Value, json};
use server_support::{Answer, Server};

/// Bodies per endpoint that a mock answers.
const MOCKED: usize = 2000;
/// Bodies per endpoint that reach a real model.
const REAL: usize = 150;

/// A small generator (xorshift64*), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Every field that means something to one of the endpoints, and a few that do not.
const FIELDS: [&str; 44] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "seed",
    "stop",
    "stop_token_ids",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "ignore_eos",
    "echo",
    "suffix",
    "best_of",
    "user",
    "store",
    "metadata",
    "response_format",
    "tools",
    "tool_choice",
    "modalities",
    "audio",
    "service_tier",
    "reasoning_effort",
    "enable_thinking",
    "chat_template_kwargs",
    "functions",
    "prediction",
    "verbosity",
    "grammar",
    "mirostat",
    "messages",
    "prompt",
    "model",
    "nobody_knows_this",
];

/// Numbers as JSON text, so that those that no type holds are among them.
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "0.5",
    "-0.5",
    "1e-40",
    "1e38",
    "1e39",
    "1e308",
    "-1e308",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "1e400",
    "0.1",
    "20",
];

fn value(random: &mut Random, depth: usize) -> String {
    let leaves =
        ["null", "true", "false", r#""""#, r#""NaN""#, r#""a""#, r#""\u0000""#, r#""1e5""#, r#""none""#, "NaN"];
    match random.below(if depth < 3 { 9 } else { 6 }) {
        0..=4 => (*random.pick(&NUMBERS)).to_owned(),
        5 => (*random.pick(&leaves)).to_owned(),
        6 => {
            let items: Vec<_> = (0..random.below(4)).map(|_| value(random, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        7 => {
            let keys = ["0", "1", "-1", "99999999999", "include_usage", "type", "role", "content", "messages", ""];
            let items: Vec<_> = (0..random.below(4))
                .map(|_| format!("{}:{}", json!(random.pick(&keys)), value(random, depth + 1)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
        _ => format!("\"{}\"", "long ".repeat(random.below(200))),
    }
}

/// A valid body with one to four fields set to anything.
fn body(random: &mut Random, model: &str) -> String {
    let mut fields: Map<String, Value> = Map::new();
    fields.insert("model".into(), model.into());
    fields.insert("messages".into(), json!([{"role": "user", "content": "hi"}]));
    fields.insert("prompt".into(), "hi".into());
    fields.insert("max_tokens".into(), 2.into());
    let mut texts: Vec<(String, String)> = fields.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    for _ in 0..=random.below(4) {
        let name = *random.pick(&FIELDS);
        // A real model would take long to reach a limit of its own.
        if model != "mock::" && name.starts_with("max_") {
            continue;
        }
        texts.retain(|(known, _)| known != name);
        texts.push((name.to_owned(), value(random, 0)));
    }
    let members: Vec<_> = texts.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn check(answer: &Answer, body: &str) {
    match answer.status {
        200 => assert!(!answer.body.contains(r#""error""#), "{body}\n{}", answer.body),
        400..=499 => {
            let error = &answer.json()["error"];
            assert!(error["message"].is_string() && error["type"].is_string(), "{body}\n{}", answer.body);
            assert!(error.get("param").is_some() && error.get("code").is_some(), "{body}\n{}", answer.body);
        }
        status => panic!("{status} for {body}\n{}", answer.body),
    }
}

fn fuzz(model: &str, count: usize, seed: u64) {
    let server = Server::start();
    let mut random = Random(seed);
    let mut answered = 0;
    for path in ["/v1/chat/completions", "/v1/completions"] {
        for _ in 0..count {
            let body = body(&mut random, model);
            let answer = server.send("POST", path, &body);
            answered += usize::from(answer.status == 200);
            check(&answer, &body);
        }
    }
    // A generator whose bodies all fail early would test little.
    assert!(answered > count / 20 && answered < count * 2, "{answered} of {} were answered", 2 * count);
    assert_eq!(server.send("GET", "/health/ready", "").status, 200);
}

#[test]
fn absurd_parameters_never_break_a_mock() {
    fuzz("mock::", MOCKED, 0x9e37_79b9_7f4a_7c15);
}

#[test]
fn absurd_parameters_never_break_a_model() {
    fuzz("qwen3_a", REAL, 0xd1b5_4a32_d192_ed03);
}

#[test]
fn bytes_that_are_no_http_are_survived() {
    let server = Server::start();
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..500 {
        let mut stream = server.connect();
        let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
        let _ = stream.write_all(&bytes);
    }
    assert_eq!(server.send("GET", "/health/ready", "").status, 200);
}
