//! The bytes of every token, in one table.

use super::decoding::Decoding;
use crate::{Error, Result};

/// Most ids a vocabulary may span; the largest in use hold about 2^18.
const MAX_IDS: usize = 1 << 24;

const PRESENT: u8 = 1;
const SPECIAL: u8 = 2;

/// What one token stands for.
#[derive(Clone, Copy, Debug)]
pub(in crate::text) struct Piece<'a> {
    /// Its bytes inside a text; not always whole characters.
    pub(in crate::text) bytes: &'a [u8],
    /// A control token that is no part of the text proper.
    pub(in crate::text) special: bool,
}

/// Bytes and flags by id, stored back to back.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where the bytes of each id end.
    ends: Vec<usize>,
    flags: Vec<u8>,
}

impl Pieces {
    /// Tabulates the vocabulary of `encoder`; without a `decoding` tokens stand as they are spelled.
    pub(super) fn new(encoder: &tokenizers::Tokenizer, decoding: Option<&Decoding>) -> Result<Self> {
        let added = encoder.get_added_tokens_decoder();
        let vocabulary = encoder.get_vocab(false);
        let highest = vocabulary.values().chain(added.keys()).copied().max();
        let len = highest.map_or(0, |id| id as usize + 1);
        if len > MAX_IDS {
            return Err(Error::Tokenizer(format!("token id {} is beyond the highest allowed, {MAX_IDS}", len - 1)));
        }
        let mut spellings: Vec<Option<(&str, u8)>> = vec![None; len];
        for (token, &id) in &vocabulary {
            spellings[id as usize] = Some((token, PRESENT));
        }
        for (&id, token) in &added {
            let flags = if token.special { PRESENT | SPECIAL } else { PRESENT };
            spellings[id as usize] = Some((&token.content, flags));
        }
        let mut this = Self { bytes: Vec::new(), ends: Vec::with_capacity(len), flags: Vec::with_capacity(len) };
        for spelling in spellings {
            let (token, flags) = spelling.unwrap_or(("", 0));
            match decoding {
                Some(decoding) => decoding.append_bytes(token, &mut this.bytes),
                None => this.bytes.extend_from_slice(token.as_bytes()),
            }
            this.ends.push(this.bytes.len());
            this.flags.push(flags);
        }
        Ok(this)
    }

    /// One more than the highest id.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The token `id`; `None` for an id that the vocabulary leaves out.
    pub(super) fn get(&self, id: u32) -> Option<Piece<'_>> {
        let id = id as usize;
        let flags = *self.flags.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        (flags & PRESENT != 0)
            .then(|| Piece { bytes: &self.bytes[start..self.ends[id]], special: flags & SPECIAL != 0 })
    }
}
