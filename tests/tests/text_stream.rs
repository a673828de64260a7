//! Properties of streams: whatever the ids, the pieces are whole characters and add up to the text
//! decoded in one go; whatever the cuts, stop strings are found where a search of the whole finds
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod text_support;

use std::sync::Arc;

use atelico_engine::text::{Detokenizer, StopStrings};
use text_support::{Case, Random, cases};

/// Tokens over all fixtures and rounds: a million.
const TOKENS: usize = 1_000_000;

#[test]
fn random_ids_stream_to_what_they_decode_to() {
    let cases = cases();
    let streams = TOKENS / cases.len() / 50;
    let mut random = Random(1);
    for Case { name, tokenizer, .. } in cases {
        let tokenizer = Arc::new(tokenizer);
        // Some ids lie beyond the vocabulary, as a model's padding rows do.
        let limit = tokenizer.vocab_size() as u64 + 3;
        for round in 0..streams {
            let ids: Vec<u32> = (0..50).map(|_| random.below(limit) as u32).collect();
            let skip = round % 2 == 0;
            let whole = tokenizer.decode(&ids, skip).unwrap();
            let mut detokenizer = Detokenizer::new(tokenizer.clone(), skip).unwrap();
            let mut streamed = String::new();
            for &id in &ids {
                if let Some(piece) = detokenizer.push(id).unwrap() {
                    assert!(!piece.is_empty());
                    streamed.push_str(&piece);
                    assert!(whole.starts_with(&streamed), "{name}: {ids:?} emitted {streamed:?} early");
                }
            }
            streamed.push_str(&detokenizer.flush().unwrap().unwrap_or_default());
            assert_eq!(streamed, whole, "{name}: {ids:?}");

            // What follows a prompt is what it adds to the prompt's text.
            let (prompt, answer) = ids.split_at(25);
            let mut after = Detokenizer::after_prompt(tokenizer.clone(), skip, prompt).unwrap();
            let mut added = String::new();
            for &id in answer {
                added.push_str(&after.push(id).unwrap().unwrap_or_default());
            }
            added.push_str(&after.flush().unwrap().unwrap_or_default());
            assert!(whole.ends_with(&added), "{name}: {ids:?}");
            let before = tokenizer.decode(prompt, skip).unwrap();
            assert!(before.trim_end_matches('\u{fffd}').len() + added.len() <= whole.len(), "{name}: {ids:?}");
        }
    }
}

#[test]
fn every_text_survives_encode_and_stream() {
    let characters: Vec<char> = "aZ09 \n\té日🙂\u{301}\u{2581}<|_'.ß中\u{200d}".chars().collect();
    let mut random = Random(2);
    for Case { name, tokenizer, .. } in cases() {
        let tokenizer = Arc::new(tokenizer);
        for _ in 0..300 {
            let length = random.below(30) as usize;
            let text: String =
                (0..length).map(|_| characters[random.below(characters.len() as u64) as usize]).collect();
            let ids = tokenizer.encode(&text, false).unwrap();
            let mut detokenizer = Detokenizer::new(tokenizer.clone(), false).unwrap();
            let mut streamed = String::new();
            for id in ids {
                let piece = detokenizer.push(id).unwrap().unwrap_or_default();
                assert!(!piece.contains('\u{fffd}'), "{name}: {text:?}");
                streamed.push_str(&piece);
            }
            streamed.push_str(&detokenizer.flush().unwrap().unwrap_or_default());
            // Qwen's (Bonsai has it too) composes characters, and sentencepiece's mark for a blank reads as one.
            let plain = |text: &str| text.replace('\u{2581}', " ").replace("e\u{301}", "é").replace("a\u{301}", "á");
            if name.contains("qwen") || name.contains("bonsai") {
                assert_eq!(streamed.replace('\u{301}', "").chars().count(), plain_nfc(&text), "{name}: {text:?}");
            } else if name.contains("mistral") || name.contains("gemma") {
                assert_eq!(plain(&streamed), plain(&text), "{name}");
            } else {
                assert_eq!(streamed, text, "{name}");
            }
        }
    }
}

/// Characters of `text` without the combining accent, which composition swallows or leaves.
fn plain_nfc(text: &str) -> usize {
    text.chars().filter(|&c| c != '\u{301}').count()
}

/// Where the text ends: at the first stop string complete, the longest of those ending together.
fn reference(text: &str, stops: &[String]) -> (String, bool) {
    for end in 1..=text.len() {
        let found = stops.iter().filter(|stop| text.as_bytes()[..end].ends_with(stop.as_bytes()));
        if let Some(length) = found.map(String::len).max() {
            return (text[..end - length].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

#[test]
fn stop_strings_are_found_however_the_text_is_cut() {
    let mut random = Random(3);
    let letters = ["a", "b", "é", "🙂"];
    let mut word = |most: u64| -> String {
        let length = 1 + random.below(most);
        (0..length).map(|_| letters[random.below(4) as usize]).collect()
    };
    let mut stopped = 0;
    for _ in 0..20_000 {
        let text = word(20);
        let stops: Vec<String> = (0..3).map(|_| word(4)).collect();
        let expected = reference(&text, &stops);
        let mut filter = StopStrings::new(stops.clone()).unwrap();
        let (mut emitted, mut ended) = (String::new(), false);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let cut = rest.char_indices().map(|(at, c)| at + c.len_utf8()).nth(word(3).chars().count() - 1);
            let (piece, tail) = rest.split_at(cut.unwrap_or(rest.len()));
            let outcome = filter.push(piece);
            assert!(!ended || outcome.emit.is_empty());
            emitted.push_str(&outcome.emit);
            ended |= outcome.stopped;
            assert_eq!(ended, outcome.stopped);
            rest = tail;
        }
        emitted.push_str(&filter.flush());
        assert_eq!((emitted, ended), expected, "{text:?} with {stops:?}");
        stopped += usize::from(ended);
    }
    assert!((1000..19_000).contains(&stopped), "the samples are one-sided: {stopped}");
}

#[test]
fn text_that_may_begin_a_stop_string_waits() {
    let mut filter = StopStrings::new(vec!["\n\nUser:".into(), "END".into()]).unwrap();
    assert_eq!(filter.push("Hello\n").emit, "Hello");
    assert_eq!(filter.push("\nUs").emit, "");
    assert_eq!(filter.push("ed E").emit, "\n\nUsed ");
    let end = filter.push("ND and more");
    assert_eq!((end.emit.as_str(), end.stopped), ("", true));
    assert_eq!(filter.push("nothing").emit, "");
    assert_eq!(filter.flush(), "");

    let mut filter = StopStrings::new(vec!["END".into()]).unwrap();
    assert_eq!(filter.push("the EN").emit, "the ");
    assert_eq!(filter.flush(), "EN");
}

#[test]
fn impossible_stop_strings_are_refused() {
    for stops in [vec![String::new()], vec!["a".repeat(5000)], vec!["x".to_owned(); 65]] {
        let error = StopStrings::new(stops).unwrap_err().to_string();
        assert!(error.contains("`stop`"), "{error}");
    }
    assert_eq!(StopStrings::new(Vec::new()).unwrap().push("abc").emit, "abc");
}
