//! How tokens spell bytes: the `decoder` of a `tokenizer.json`, reduced to a rule per token.
//!
//! The decoders of language models treat every token by itself, but for the blank before a text's
//! first word. Reduced this way, decoding is a table look-up, and a stream of tokens decodes to the
//! same text as all of them at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::{Error, Result};

/// The rule by which a token's spelling becomes bytes.
#[derive(Debug)]
pub(super) struct Decoding {
    alphabet: Alphabet,
    /// Replacements inside a spelling, mostly U+2581 by a blank.
    replacements: Vec<(String, String)>,
    /// What happens to the first token of a text.
    pub(super) leading: Leading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alphabet {
    /// A spelling is text.
    Text,
    /// A spelling is text, but `<0xE2>` is the byte E2.
    TextOrHexByte,
    /// Every character stands for a byte, as GPT-2 assigned them.
    ByteLevel,
}

/// What happens at the start of a text, where sentencepiece vocabularies put a blank of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text) enum Leading {
    /// Nothing.
    Keep,
    /// One blank is dropped if the text begins with it.
    DropOneBlank,
    /// The first token loses all its blanks.
    DropBlanksOfFirstToken,
}

impl Leading {
    /// The bytes that `bytes`, first of a text, contributes, and whether the text has begun.
    pub(in crate::text) fn apply(self, bytes: &[u8]) -> (Cow<'_, [u8]>, bool) {
        match self {
            Self::Keep => (bytes.into(), true),
            Self::DropOneBlank => (bytes.strip_prefix(b" ").unwrap_or(bytes).into(), !bytes.is_empty()),
            Self::DropBlanksOfFirstToken => {
                (bytes.iter().copied().filter(|&byte| byte != b' ').collect::<Vec<_>>().into(), true)
            }
        }
    }
}

impl Decoding {
    /// The rule of `encoder`; the inner error says why its decoder has none.
    pub(super) fn of(encoder: &tokenizers::Tokenizer) -> Result<Result<Self, String>> {
        let decoder = serde_json::to_value(encoder.get_decoder())
            .map_err(|error| Error::Tokenizer(format!("decoder: {error}")))?;
        Ok(Self::from_json(&decoder).map_err(|problem| format!("ids can't be decoded: {problem}")))
    }

    fn from_json(decoder: &Value) -> Result<Self, String> {
        let mut this = Self { alphabet: Alphabet::Text, replacements: Vec::new(), leading: Leading::Keep };
        let one = std::slice::from_ref(decoder);
        let steps = match decoder["type"].as_str() {
            Some("Sequence") => decoder["decoders"].as_array().map_or(&[][..], Vec::as_slice),
            Some(_) => one,
            None => return Err("the tokenizer has no decoder".into()),
        };
        let mut fused = false;
        for step in steps {
            match step["type"].as_str().unwrap_or_default() {
                "ByteLevel" => this.alphabet = Alphabet::ByteLevel,
                "ByteFallback" => this.alphabet = Alphabet::TextOrHexByte,
                "Fuse" => fused = true,
                "Replace" => {
                    let (from, to) = (step["pattern"]["String"].as_str(), step["content"].as_str());
                    let (Some(from), Some(to)) = (from, to) else {
                        return Err(format!("decoder step {step} is not supported"));
                    };
                    this.replacements.push((from.into(), to.into()));
                }
                "Metaspace" => {
                    let mark = step["replacement"].as_str().unwrap_or("▁");
                    this.replacements.push((mark.into(), " ".into()));
                    if step["prepend_scheme"] != "never" {
                        this.leading = Leading::DropBlanksOfFirstToken;
                    }
                }
                // Before `Fuse` it would act on every token.
                "Strip" if fused && step["content"] == " " && step["start"] == 1 && step["stop"] == 0 => {
                    this.leading = Leading::DropOneBlank;
                }
                _ => return Err(format!("decoder step {step} is not supported")),
            }
        }
        Ok(this)
    }

    /// Appends the bytes that `token` spells.
    pub(super) fn append_bytes(&self, token: &str, out: &mut Vec<u8>) {
        if self.alphabet == Alphabet::ByteLevel {
            let start = out.len();
            for character in token.chars() {
                match BYTE_OF_CHAR.get(&character) {
                    Some(&byte) => out.push(byte),
                    // Not a byte-level spelling: an added token, which stands for itself.
                    None => {
                        out.truncate(start);
                        out.extend_from_slice(token.as_bytes());
                        return;
                    }
                }
            }
            return;
        }
        let mut token = Cow::Borrowed(token);
        for (from, to) in &self.replacements {
            if token.contains(from.as_str()) {
                token = token.replace(from.as_str(), to).into();
            }
        }
        match hex_byte(&token) {
            Some(byte) if self.alphabet == Alphabet::TextOrHexByte => out.push(byte),
            _ => out.extend_from_slice(token.as_bytes()),
        }
    }
}

/// The byte that a spelling like `<0xE2>` stands for.
pub(super) fn hex_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// GPT-2's assignment: printable Latin-1 bytes stand for themselves, the others for the
/// characters from U+0100 on.
static BYTE_OF_CHAR: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (plain, moved): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(printable);
    let moved = ('\u{100}'..).zip(moved);
    plain.into_iter().map(|byte| (char::from(byte), byte)).chain(moved).collect()
});

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{BYTE_OF_CHAR, Decoding, Leading};

    fn bytes(decoding: &Decoding, token: &str) -> Vec<u8> {
        let mut out = Vec::new();
        decoding.append_bytes(token, &mut out);
        out
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn rules_per_token() {
        assert_eq!(BYTE_OF_CHAR.len(), 256);
        let level = Decoding::from_json(&json!({"type": "ByteLevel"})).unwrap();
        assert_eq!(bytes(&level, "Ġthe"), b" the");
        assert_eq!(bytes(&level, "Ċ"), b"\n");
        assert_eq!(bytes(&level, "Ã©"), "é".as_bytes());
        assert_eq!(bytes(&level, "<a b>"), b"<a b>", "an added token stands for itself");

        let llama = Decoding::from_json(&json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}))
        .unwrap();
        assert_eq!(bytes(&llama, "▁▁the"), b"  the");
        assert_eq!(bytes(&llama, "<0xE2>"), b"\xE2");
        assert_eq!(bytes(&llama, "<0xE>"), b"<0xE>");
        assert_eq!(llama.leading, Leading::DropOneBlank);
        assert_eq!(llama.leading.apply(b"  a"), (b" a"[..].into(), true));
        assert!(!llama.leading.apply(b"").1);

        let error = Decoding::from_json(&json!({"type": "CTC", "pad_token": "<pad>"})).unwrap_err();
        assert!(error.contains("CTC"), "{error}");
    }
}
