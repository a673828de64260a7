//! `atelico chat` in a pipe: one message per line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;

use std::fs;

use cli_support::{Run, atelico, fixtures, golden, run_with_input};

fn chat(case: &str, args: &[&str], input: &str) -> Run {
    let fixed = ["chat", case, "--device", "cpu", "--temperature", "0", "--max-tokens", "16"];
    run_with_input(atelico(&fixed).args(args), input)
}

/// A single message and the reference's answer to it.
fn single(case: &str) -> (String, String) {
    let chat = &golden(case)["chat_single"];
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (text(&chat["messages"][0]["content"]), text(&chat["greedy_text"]))
}

#[test]
fn answers_are_the_references() {
    for case in ["smollm2_a", "qwen3_b", "mistral_b", "gguf_llama_q8_0"] {
        let (message, answer) = single(case);
        let kwargs = golden(case)["chat_single"]["template_kwargs"].to_string();
        let run = chat(case, &["--chat-template-kwargs", &kwargs], &format!("{message}\n"));
        assert!(run.stderr.contains("cut"), "16 tokens are no whole answer: {run:?}");
        assert_eq!(run.ok(), format!("{answer}\n"), "{case}");
    }
}

#[test]
fn the_conversation_is_kept_until_cleared() {
    let (message, answer) = single("smollm2_a");
    let twice = chat("smollm2_a", &[], &format!("{message}\n\n{message}\n")).ok();
    assert!(twice.starts_with(&answer));
    assert_ne!(twice, format!("{answer}\n{answer}\n"), "the second answer follows another prompt");
    let cleared = chat("smollm2_a", &[], &format!("{message}\n/clear\n{message}\n")).ok();
    assert_eq!(cleared, format!("{answer}\n{answer}\n"));
}

#[test]
fn the_system_message_counts() {
    let (message, answer) = single("smollm2_a");
    let input = format!("{message}\n/clear\n{message}\n");
    let with = chat("smollm2_a", &["--system", "You answer in rhymes."], &input).ok();
    let (first, second) = with.split_at(with.len() / 2);
    assert_eq!(first, second, "clearing keeps the system message");
    assert_ne!(first, format!("{answer}\n"));
}

#[test]
fn commands_are_not_sent_to_the_model() {
    assert_eq!(chat("smollm2_a", &[], "/exit\nhello\n").ok(), "");
    let help = chat("smollm2_a", &[], "/help\n").ok();
    assert!(["/clear", "/help", "/exit"].iter().all(|command| help.contains(command)), "{help}");
    assert!(chat("smollm2_a", &[], "/nonsense\n").ok().contains("unknown command /nonsense"));
}

#[test]
fn a_message_beyond_the_context_is_an_error_with_the_numbers() {
    let run = chat("smollm2_a", &["--context", "64"], &"many words ".repeat(200));
    let message = run.error(1);
    assert!(message.contains("64") && message.contains("tokens"), "{message}");
}

#[test]
fn a_model_without_template_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(fixtures().join("llama_a").join(file), folder.path().join(file)).unwrap();
    }
    let message = chat(folder.path().to_str().unwrap(), &[], "hello\n").error(1);
    assert!(message.contains("chat template") && message.contains("atelico generate"), "{message}");
}
