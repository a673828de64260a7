//! The keys of `tokenizer.ggml.*` that every vocabulary type shares, checked.

use std::collections::HashMap;

use crate::weights::GgufMetadata;
use crate::{Error, Result};

/// Longest token in bytes; real ones stay below 300.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The tokens of a GGUF with what is known of each.
pub(super) struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    ids: HashMap<&'a str, u32>,
    kinds: Vec<Kind>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) eot: Option<u32>,
    pub(super) eom: Option<u32>,
    pub(super) unknown: Option<u32>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn read(meta: &'a GgufMetadata) -> Result<Self> {
        let tokens = meta.get_strings("tokenizer.ggml.tokens")?.unwrap_or_default();
        if tokens.is_empty() {
            return Err(Error::Tokenizer("tokenizer.ggml.tokens is absent or empty".into()));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, &token) in (0_u32..).zip(&tokens) {
            if token.len() > MAX_TOKEN_BYTES {
                let length = token.len();
                let problem =
                    format!("tokenizer.ggml.tokens: token {id} holds {length} bytes; at most {MAX_TOKEN_BYTES}");
                return Err(Error::Tokenizer(problem));
            }
            // Converters leave an unused row's text empty; it can't occur in a text.
            if token.is_empty() {
                continue;
            }
            if let Some(first) = ids.insert(token, id) {
                let problem = format!("tokenizer.ggml.tokens: `{token}` has the ids {first} and {id}");
                return Err(Error::Tokenizer(problem));
            }
        }
        let kinds = read_kinds(meta, tokens.len())?;
        let id = |name: &str| read_id(meta, name, tokens.len());
        let (bos, eos, eot, eom, unknown) = (id("bos")?, id("eos")?, id("eot")?, id("eom")?, id("unknown")?);
        Ok(Self { bos, eos, eot, eom, unknown, tokens, ids, kinds })
    }

    pub(super) fn len(&self) -> u32 {
        self.kinds.len() as u32
    }

    /// The text of a token; `None` beyond the vocabulary and for rows without text.
    pub(super) fn token(&self, id: u32) -> Option<&'a str> {
        self.tokens.get(id as usize).copied().filter(|token| !token.is_empty())
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Makes the ordinary tokens that `is_control` picks control tokens.
    pub(super) fn mark_control(&mut self, is_control: impl Fn(&str) -> bool) {
        for (kind, token) in self.kinds.iter_mut().zip(&self.tokens) {
            if *kind == Kind::Normal && is_control(token) {
                *kind = Kind::Control;
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'a str)> {
        (0..self.len()).filter_map(|id| Some((id, self.token(id)?)))
    }

    /// The score of every token (`tokenizer.ggml.scores`), as sentencepiece trained it.
    pub(super) fn scores(&self, meta: &GgufMetadata) -> Result<Vec<f32>> {
        let Some(scores) = meta.get_f32s("tokenizer.ggml.scores")? else {
            return Err(Error::Tokenizer("tokenizer.ggml.scores is absent".into()));
        };
        check_length("scores", scores.len(), self.tokens.len())?;
        match scores.iter().position(|score| !score.is_finite()) {
            Some(id) => {
                Err(Error::Tokenizer(format!("tokenizer.ggml.scores: token {id} has the score {}", scores[id])))
            }
            None => Ok(scores),
        }
    }

    /// The merges (`tokenizer.ggml.merges`) in order of rank.
    pub(super) fn merges(&self, meta: &GgufMetadata) -> Result<Vec<(String, String)>> {
        let Some(merges) = meta.get_strings("tokenizer.ggml.merges")? else {
            return Err(Error::Tokenizer("tokenizer.ggml.merges is absent".into()));
        };
        let mut pairs = Vec::with_capacity(merges.len());
        for (rank, merge) in merges.into_iter().enumerate() {
            let fail =
                |problem: String| Err(Error::Tokenizer(format!("tokenizer.ggml.merges: merge {rank} {problem}")));
            // A token never holds a blank except, in theory, as its first character.
            let first = merge.chars().next().map_or(0, char::len_utf8);
            let Some(blank) = merge[first..].find(' ') else {
                return fail("is no pair of tokens".into());
            };
            let (left, right) = (&merge[..first + blank], &merge[first + blank + 1..]);
            for token in [left, right, &format!("{left}{right}")] {
                if self.id(token).is_none() {
                    return fail(format!("names `{token}`, which is no token"));
                }
            }
            pairs.push((left.to_owned(), right.to_owned()));
        }
        Ok(pairs)
    }
}

fn read_kinds(meta: &GgufMetadata, tokens: usize) -> Result<Vec<Kind>> {
    let Some(numbers) = meta.get_i64s("tokenizer.ggml.token_type")? else {
        return Ok(vec![Kind::Normal; tokens]);
    };
    check_length("token_type", numbers.len(), tokens)?;
    let kind = |(id, number): (usize, i64)| match number {
        0 | 5 => Ok(Kind::Unused),
        1 => Ok(Kind::Normal),
        2 => Ok(Kind::Unknown),
        3 => Ok(Kind::Control),
        4 => Ok(Kind::UserDefined),
        6 => Ok(Kind::Byte),
        _ => Err(Error::Tokenizer(format!("tokenizer.ggml.token_type: token {id} has the unknown type {number}"))),
    };
    numbers.into_iter().enumerate().map(kind).collect()
}

fn read_id(meta: &GgufMetadata, name: &str, tokens: usize) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    match meta.get_u32(&key)? {
        Some(id) if id as usize >= tokens => {
            Err(Error::Tokenizer(format!("{key} is {id}, but there are {tokens} tokens")))
        }
        id => Ok(id),
    }
}

fn check_length(key: &str, found: usize, tokens: usize) -> Result<()> {
    if found == tokens {
        return Ok(());
    }
    Err(Error::Tokenizer(format!("tokenizer.ggml.{key} holds {found} entries for {tokens} tokens")))
}
