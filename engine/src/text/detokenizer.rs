//! A stream of token ids to a stream of text.

use std::sync::Arc;

use super::Tokenizer;
use super::utf8::Utf8Stream;
use crate::Result;

/// Turns ids into text one at a time, in constant time per token.
///
/// What it returns is always whole characters, and its concatenation (with [`Self::flush`]) equals
/// [`Tokenizer::decode`] of all ids.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    state: DecodeState,
}

impl Detokenizer {
    /// A detokenizer for a text that starts here: a sentencepiece tokenizer's leading blank is
    /// dropped.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] when the tokenizer can only encode.
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Result<Self> {
        tokenizer.check_decodes()?;
        Ok(Self { tokenizer, state: DecodeState::new(skip_special_tokens) })
    }

    /// A detokenizer for what follows `prompt`: it returns what the new ids add to the prompt's
    /// text, so a leading blank is kept, and a character begun in the prompt comes out whole.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] when the tokenizer can only encode.
    pub fn after_prompt(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool, prompt: &[u32]) -> Result<Self> {
        let mut this = Self::new(tokenizer, skip_special_tokens)?;
        let mut discarded = String::new();
        for &id in prompt {
            this.state.push(&this.tokenizer, id, &mut discarded);
            discarded.clear();
        }
        Ok(this)
    }

    /// Gives these tokens their text even if they are special.
    #[must_use]
    pub fn showing(mut self, ids: Vec<u32>) -> Self {
        self.state.shown = ids;
        self
    }

    /// Adds a token; returns the text that is now certain, if any. Ids beyond the vocabulary (a
    /// model's padding rows) add nothing.
    ///
    /// # Errors
    /// None today; the result leaves room for decoders that can fail.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        let mut text = String::new();
        self.state.push(&self.tokenizer, id, &mut text);
        Ok((!text.is_empty()).then_some(text))
    }

    /// Ends the stream: a character that stayed incomplete comes out as U+FFFD.
    ///
    /// # Errors
    /// None today; the result leaves room for decoders that can fail.
    pub fn flush(&mut self) -> Result<Option<String>> {
        let mut text = String::new();
        self.state.flush(&mut text);
        Ok((!text.is_empty()).then_some(text))
    }
}

/// Where a decoding stands between two tokens.
#[derive(Clone, Debug)]
pub(super) struct DecodeState {
    utf8: Utf8Stream,
    /// No token has contributed bytes yet.
    at_start: bool,
    skip_special_tokens: bool,
    /// Special tokens that are not skipped.
    shown: Vec<u32>,
}

impl DecodeState {
    pub(super) fn new(skip_special_tokens: bool) -> Self {
        Self { utf8: Utf8Stream::default(), at_start: true, skip_special_tokens, shown: Vec::new() }
    }

    pub(super) fn push(&mut self, tokenizer: &Tokenizer, id: u32, out: &mut String) {
        let Some(piece) = tokenizer.piece(id) else { return };
        if self.skip_special_tokens && piece.special && !self.shown.contains(&id) {
            return;
        }
        if self.at_start {
            let (bytes, started) = tokenizer.leading().apply(piece.bytes);
            self.at_start = !started;
            self.utf8.push(&bytes, out);
        } else {
            self.utf8.push(piece.bytes, out);
        }
    }

    pub(super) fn flush(&mut self, out: &mut String) {
        self.utf8.flush(out);
    }
}
