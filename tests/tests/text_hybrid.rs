//! Tokenizers, chat templates and stop ids of the hybrid models against the golden outputs of the
//! reference implementation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod text_support;

use std::sync::Arc;

use atelico_engine::text::Detokenizer;
use serde_json::{Map, Value};
use text_support::{Case, cases_in, ids};

const FOLDER: &str = "llm_hybrid";

#[test]
fn prompts_give_the_golden_ids_and_text() {
    for Case { name, golden, tokenizer, .. } in cases_in(FOLDER) {
        let prompt = golden["prompt"].as_str().unwrap();
        assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids(&golden["prompt_ids"]), "{name}");
        let answer = ids(&golden["greedy_ids"]);
        assert_eq!(tokenizer.decode(&answer, true).unwrap(), golden["greedy_text"].as_str().unwrap(), "{name}");
        let mut detokenizer = Detokenizer::new(Arc::new(tokenizer), true).unwrap();
        let mut text = String::new();
        for id in answer {
            text.push_str(&detokenizer.push(id).unwrap().unwrap_or_default());
        }
        text.push_str(&detokenizer.flush().unwrap().unwrap_or_default());
        assert_eq!(text, golden["greedy_text"].as_str().unwrap(), "{name}");
    }
}

/// Tools, thinking on and off, earlier turns with reasoning: whatever the golden files hold.
#[test]
fn chats_render_and_encode_as_the_reference_does() {
    for Case { name, golden, tokenizer, template, .. } in cases_in(FOLDER) {
        let template = template.unwrap_or_else(|| panic!("{name} has no chat template"));
        let chats = std::iter::once(&golden["chat"]).chain(golden["chat_cases"].as_array().unwrap());
        for (i, chat) in chats.enumerate() {
            let tools = chat.get("tools").filter(|tools| !tools.is_null());
            let empty = Map::new();
            let rendered = template
                .render(
                    &chat["messages"],
                    tools,
                    chat.get("template_kwargs").and_then(Value::as_object).unwrap_or(&empty),
                    chat["add_generation_prompt"].as_bool().unwrap(),
                    tokenizer.bos_token(),
                    tokenizer.eos_token(),
                )
                .unwrap_or_else(|e| panic!("{name}: chat {i}: {e}"));
            assert_eq!(rendered, chat["rendered"].as_str().unwrap(), "{name}: chat {i}");
            assert_eq!(tokenizer.encode(&rendered, false).unwrap(), ids(&chat["ids"]), "{name}: chat {i}");
        }
    }
}

#[test]
fn an_end_of_turn_stops_the_answer() {
    for Case { name, tokenizer, .. } in cases_in(FOLDER) {
        let ends = tokenizer.eos_token_ids();
        assert!(!ends.is_empty() && ends.iter().all(|&id| tokenizer.is_special(id)), "{name}: {ends:?}");
    }
}
