//! A checkpoint's tokenizer: text to ids and back.

mod decoding;
mod folder;
mod gguf;
mod pieces;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::decoding::{Decoding, Leading};
pub(super) use self::folder::{read_file, read_json};
use self::pieces::{Piece, Pieces};
use super::detokenizer::DecodeState;
use crate::{Error, Result};

/// Longest text that [`Tokenizer::encode`] takes, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// Longest run of white space in it. The regex engine gives up beyond a million steps of
/// backtracking, and the `tokenizers` crate would then split the text differently without a word.
const MAX_BLANK_RUN: usize = 500_000;

/// A checkpoint's tokenizer, from `tokenizer.json` or from the vocabulary inside a GGUF.
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    pieces: Pieces,
    /// How the first token of a text is treated; the reason why not when ids can't be decoded.
    leading: Result<Leading, String>,
    /// Ids that `encode` puts around a text where the encoder has no rule of its own.
    affixes: Affixes,
    specials: Specials,
}

/// Ids put around a text.
#[derive(Debug, Default)]
struct Affixes {
    prefix: Option<u32>,
    suffix: Option<u32>,
}

/// The tokens that start a text or end a generation.
#[derive(Debug, Default)]
struct Specials {
    bos: Option<NamedToken>,
    eos: Option<NamedToken>,
    eos_token_ids: Vec<u32>,
}

#[derive(Debug)]
struct NamedToken {
    /// `None` when a configuration names a token that the vocabulary lacks.
    id: Option<u32>,
    text: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("affixes", &self.affixes)
            .field("specials", &self.specials)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Completes a tokenizer around the encoder of the `tokenizers` crate.
    fn assemble(mut encoder: tokenizers::Tokenizer, affixes: Affixes, specials: Specials) -> Result<Self> {
        // Training-time settings: a prompt is never cut or filled up silently.
        encoder.with_truncation(None).map_err(|error| Error::Tokenizer(error.to_string()))?;
        encoder.with_padding(None);
        let decoding = Decoding::of(&encoder)?;
        let pieces = Pieces::new(&encoder, decoding.as_ref().ok())?;
        let leading = decoding.map(|decoding| decoding.leading);
        Ok(Self { encoder, pieces, leading, affixes, specials })
    }

    /// Text to ids. Special tokens spelled out in `text` become their ids; `add_special_tokens`
    /// adds what the tokenizer puts around a text (a BOS, for instance).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text is too long or can't be tokenized.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        check_text(text)?;
        let encoding = guarded("the text", || self.encoder.encode_fast(text, add_special_tokens))?;
        let ids = encoding.get_ids();
        if !add_special_tokens {
            return Ok(ids.to_vec());
        }
        let Affixes { prefix, suffix } = self.affixes;
        Ok(prefix.into_iter().chain(ids.iter().copied()).chain(suffix).collect())
    }

    /// Ids to text. Bytes that are no UTF-8 become U+FFFD; ids beyond the vocabulary (a model's
    /// padding rows) decode to nothing.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer can only encode.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.check_decodes()?;
        let mut text = String::new();
        let mut state = DecodeState::new(skip_special_tokens);
        for &id in ids {
            state.push(self, id, &mut text);
        }
        state.flush(&mut text);
        Ok(text)
    }

    /// The text of one token, U+FFFD where its bytes are no whole characters.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.pieces.get(id).map(|piece| String::from_utf8_lossy(piece.bytes).into_owned())
    }

    /// The bytes that one token adds inside a text.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.pieces.get(id).map(|piece| piece.bytes.to_vec())
    }

    /// The id of a token as the vocabulary spells it, e.g. `<|im_end|>` or `Ġthe`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.encoder.token_to_id(token)
    }

    /// Whether the token is left out of a text decoded without special tokens.
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.get(id).is_some_and(|piece| piece.special)
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id of the token that starts a text, where the tokenizer names one.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.specials.bos.as_ref().and_then(|token| token.id)
    }

    /// The token that starts a text, as chat templates write it.
    pub fn bos_token(&self) -> Option<&str> {
        self.specials.bos.as_ref().map(|token| token.text.as_str())
    }

    /// The token that ends a text, as chat templates write it.
    pub fn eos_token(&self) -> Option<&str> {
        self.specials.eos.as_ref().map(|token| token.text.as_str())
    }

    /// Ids that end a generation as far as the tokenizer knows; `generation_config.json` often
    /// knows more. For a GGUF, which stores a single one, the well-known end-of-turn tokens are
    /// found by their text.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.specials.eos_token_ids
    }

    pub(super) fn piece(&self, id: u32) -> Option<Piece<'_>> {
        self.pieces.get(id)
    }

    pub(super) fn leading(&self) -> Leading {
        self.leading.as_ref().copied().unwrap_or(Leading::Keep)
    }

    pub(super) fn check_decodes(&self) -> Result<()> {
        self.leading.as_ref().map(|_| ()).map_err(|problem| Error::Tokenizer(problem.clone()))
    }
}

fn check_text(text: &str) -> Result<()> {
    if text.len() > MAX_TEXT_BYTES {
        let length = text.len();
        return Err(Error::Tokenizer(format!("the text holds {length} bytes; at most {MAX_TEXT_BYTES}")));
    }
    let mut run = 0;
    for character in text.chars() {
        run = if character.is_whitespace() { run + 1 } else { 0 };
        if run > MAX_BLANK_RUN {
            let problem = format!("the text holds more than {MAX_BLANK_RUN} blanks in a row");
            return Err(Error::Tokenizer(problem));
        }
    }
    Ok(())
}

/// Runs a function of the `tokenizers` crate on data from outside. Its parsers trust their input in
/// places (slicing, `unwrap`), so a panic there is an error about `what`, not the end of the process.
fn guarded<T>(what: &str, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::Tokenizer(format!("{what}: {error}"))),
        Err(_) => Err(Error::Tokenizer(format!("{what} is malformed (the tokenizers library gave up on it)"))),
    }
}
