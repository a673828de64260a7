//! Tokenizers, chat templates and detokenization against the golden outputs of the reference
//! implementation, for every fixture, as Hugging Face folder and as GGUF.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod text_support;

use std::sync::Arc;

use atelico_engine::reasoning::{ReasoningRouter, ReasoningTags};
use atelico_engine::text::{Detokenizer, Tokenizer};
use serde_json::Value;
use text_support::{Case, cases, ids};

/// The text that a stream of `ids` gives, each emitted piece checked to be whole characters.
fn stream(mut detokenizer: Detokenizer, ids: &[u32]) -> String {
    let mut text = String::new();
    for &id in ids {
        let piece = detokenizer.push(id).unwrap().unwrap_or_default();
        assert!(!piece.contains('\u{fffd}'), "half a character: {piece:?}");
        text.push_str(&piece);
    }
    text + &detokenizer.flush().unwrap().unwrap_or_default()
}

#[test]
fn fixtures_are_there() {
    let cases = cases();
    assert!(cases.iter().filter(|case| case.is_gguf).count() >= 15);
    assert!(cases.iter().filter(|case| !case.is_gguf).count() >= 10);
}

#[test]
fn awkward_strings_give_the_golden_ids_and_text() {
    for Case { name, golden, tokenizer, .. } in cases() {
        let samples = golden["tokenization"].as_array().unwrap();
        assert!(samples.len() >= 8, "{name}");
        for sample in samples {
            let (text, expected) = (sample["text"].as_str().unwrap(), ids(&sample["ids"]));
            assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{name}: {text:?}");
            let decoded = sample["decoded"].as_str().unwrap();
            assert_eq!(tokenizer.decode(&expected, false).unwrap(), decoded, "{name}: {text:?}");
        }
    }
}

#[test]
fn prompts_give_the_golden_ids() {
    for Case { name, golden, tokenizer, .. } in cases() {
        for prompt in [&golden, &golden["long"]] {
            let text = prompt["prompt"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&prompt["prompt_ids"]), "{name}: {text:?}");
        }
    }
}

#[test]
fn chats_render_and_encode_as_the_reference_does() {
    for Case { name, golden, tokenizer, template, .. } in cases() {
        let template = template.unwrap_or_else(|| panic!("{name} has no chat template"));
        for key in ["chat", "chat_single"] {
            let chat = &golden[key];
            let rendered = template
                .render(
                    &chat["messages"],
                    None,
                    chat["template_kwargs"].as_object().unwrap(),
                    chat["add_generation_prompt"].as_bool().unwrap(),
                    tokenizer.bos_token(),
                    tokenizer.eos_token(),
                )
                .unwrap();
            assert_eq!(rendered, chat["rendered"].as_str().unwrap(), "{name}: {key}");
            assert_eq!(tokenizer.encode(&rendered, false).unwrap(), ids(&chat["ids"]), "{name}: {key}");
        }
    }
}

#[test]
fn streams_give_the_golden_text() {
    for Case { name, golden, tokenizer, .. } in cases() {
        let tokenizer = Arc::new(tokenizer);
        let parts: [(&Value, &Value); 3] = [
            (&golden["prompt_ids"], &golden),
            (&golden["chat"]["ids"], &golden["chat"]),
            (&golden["chat_single"]["ids"], &golden["chat_single"]),
        ];
        for (prompt, answer) in parts {
            let (prompt, answer_ids) = (ids(prompt), ids(&answer["greedy_ids"]));
            let alone = Detokenizer::new(tokenizer.clone(), true).unwrap();
            assert_eq!(stream(alone, &answer_ids), answer["greedy_text"].as_str().unwrap(), "{name}");
            assert_eq!(tokenizer.decode(&answer_ids, true).unwrap(), answer["greedy_text"].as_str().unwrap(), "{name}");
            let after = Detokenizer::after_prompt(tokenizer.clone(), true, &prompt).unwrap();
            // Left out where it is the same.
            let continuation = answer["continuation"].as_str().or(answer["greedy_text"].as_str());
            assert_eq!(stream(after, &answer_ids), continuation.unwrap(), "{name}");
        }
    }
}

/// The marks of Gemma 4's reasoning are special tokens, which have no text elsewhere.
#[test]
fn reasoning_in_a_channel_is_told_from_the_answer() {
    for Case { name, tokenizer, is_gguf, .. } in cases().into_iter().filter(|case| case.name.contains("gemma4")) {
        let answer = "<|channel>thought\nninety\n<channel|>Nine.";
        let ids = tokenizer.encode(answer, false).unwrap();
        // A GGUF does not call them special.
        let plain = if is_gguf { answer } else { "thought\nninety\nNine." };
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), plain, "{name}");
        let tags = ReasoningTags::of(&tokenizer);
        let shown = tags.token_ids(&tokenizer);
        let text = stream(Detokenizer::new(tokenizer.into(), true).unwrap().showing(shown), &ids);
        assert_eq!(text, answer, "{name}");
        let mut router = ReasoningRouter::new(tags, "<|turn>model\n");
        let (routed, rest) = (router.push(&text), router.flush());
        assert_eq!(
            (routed.reasoning + &rest.reasoning, routed.content + &rest.content),
            ("ninety".into(), "Nine.".into()),
            "{name}"
        );
    }
}

#[test]
fn special_tokens_are_the_golden_ones() {
    for Case { name, golden, tokenizer, is_gguf, .. } in cases() {
        let prompt = ids(&golden["prompt_ids"]);
        let added = tokenizer.encode(golden["prompt"].as_str().unwrap(), true).unwrap();
        if prompt[0] as u64 == golden["bos_token_id"].as_u64().unwrap_or(u64::MAX) {
            assert_eq!(tokenizer.bos_token_id(), Some(added[0]), "{name}");
            assert!(tokenizer.is_special(added[0]), "{name}");
        }
        let ends = tokenizer.eos_token_ids();
        assert!(!ends.is_empty() && ends.iter().all(|&id| tokenizer.is_special(id)), "{name}: {ends:?}");
        // A folder's tokenizer names one; generation_config.json lists the others.
        for id in ids(&golden["eos_token_ids"]).into_iter().filter(|_| is_gguf) {
            assert!(ends.contains(&id), "{name}: {id} is missing from {ends:?}");
        }
    }
}

#[test]
fn single_tokens_spell_the_text() {
    for Case { name, golden, tokenizer, .. } in cases() {
        let text = golden["long"]["prompt"].as_str().unwrap();
        let all = tokenizer.encode(text, false).unwrap();
        let bytes: Vec<u8> = all.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap()).collect();
        let spelled = String::from_utf8(bytes).unwrap();
        // Sentencepiece puts a blank of its own before the first word.
        assert_eq!(spelled.strip_prefix(' ').unwrap_or(&spelled), text, "{name}");
        assert!(all.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "{name}");
        assert_eq!(tokenizer.token_bytes(tokenizer.vocab_size() as u32), None, "{name}");
        assert_eq!(tokenizer.token_text(u32::MAX), None, "{name}");
    }
}

#[test]
fn gguf_and_folder_of_one_tokenizer_agree() {
    // The random weights differ, but these cases share their vocabulary's type and text rules.
    let all = cases();
    let find = |name: &str| -> &Tokenizer { &all.iter().find(|case| case.name == name).unwrap().tokenizer };
    for (folder, gguf) in
        [("llama_a", "gguf_llama_f16"), ("smollm2_a", "gguf_smollm2_q6_k"), ("mistral_a", "gguf_mistral_q5_0")]
    {
        let (folder, gguf) = (find(folder), find(gguf));
        for text in
            ["", " ", "\n\n\n", "a\u{301}", "  x  ", "it's 12345", "\u{1F642}\u{200D}\u{1F680}", "<|eot_id|></s>x"]
        {
            let of = |tokenizer: &Tokenizer| tokenizer.decode(&tokenizer.encode(text, false).unwrap(), false).unwrap();
            assert_eq!(of(folder), of(gguf), "{text:?}");
        }
    }
}
