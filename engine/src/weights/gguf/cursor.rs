//! A bounds-checked reader of little-endian header fields.

use std::path::Path;

use crate::weights::WeightError;

/// A position in a GGUF header. Every read checks the bytes left first.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a Path, bytes: &'a [u8]) -> Self {
        Self { file, bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `n` bytes; `what` names them in the error.
    pub(super) fn take(&mut self, n: u64, what: impl FnOnce() -> String) -> Result<&'a [u8], WeightError> {
        if n > self.left() {
            return Err(WeightError::Truncated {
                file: self.file.to_path_buf(),
                what: what(),
                offset: self.at as u64,
                expected: n,
                found: self.left(),
            });
        }
        let end = self.at + n as usize;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: impl FnOnce() -> String) -> Result<[u8; N], WeightError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: impl FnOnce() -> String) -> Result<u32, WeightError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: impl FnOnce() -> String) -> Result<u64, WeightError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length-prefixed UTF-8 string of at most `limit` bytes.
    pub(super) fn string(&mut self, limit: u64, what: impl Fn() -> String) -> Result<&'a str, WeightError> {
        let length = self.u64(|| format!("the length of {}", what()))?;
        if length > limit {
            return Err(WeightError::StringTooLong {
                file: self.file.to_path_buf(),
                what: what(),
                found: length,
                limit,
            });
        }
        let bytes = self.take(length, &what)?;
        std::str::from_utf8(bytes).map_err(|error| WeightError::NotUtf8 {
            file: self.file.to_path_buf(),
            what: what(),
            at: error.valid_up_to(),
        })
    }
}
