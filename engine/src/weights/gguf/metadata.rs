//! The key-value pairs of a GGUF file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::cursor::Cursor;
use super::limits;
use super::value::{self, GgufArray, GgufValue, ValueType};
use crate::weights::WeightError;

/// Bytes of the smallest pair: a length, a type and a one-byte value.
pub(super) const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;

/// A GGUF file's key-value pairs, in file order.
///
/// Values are kept as the file's own bytes, checked once and decoded when asked for: a vocabulary
/// of a quarter of a million strings costs no more memory than in the file.
#[derive(Clone, Debug)]
pub struct GgufMetadata {
    file: PathBuf,
    bytes: Box<[u8]>,
    pairs: IndexMap<String, Pair>,
}

#[derive(Clone, Debug)]
struct Pair {
    kind: ValueType,
    value: Range<usize>,
}

impl GgufMetadata {
    /// Checks `count` pairs at `cursor` and copies their bytes.
    pub(super) fn parse(cursor: &mut Cursor<'_>, bytes: &[u8], count: u64) -> Result<Self, WeightError> {
        let file = cursor.file;
        let start = cursor.position();
        let mut pairs = IndexMap::new();
        for index in 0..count {
            let key = cursor.string(limits::KEY_BYTES, || format!("key {index}"))?;
            if key.is_empty() {
                return Err(WeightError::EmptyName { file: file.to_path_buf(), what: "key", index });
            }
            let kind = value::read_type(cursor, key)?;
            let begin = cursor.position() - start;
            value::check(cursor, key, kind, 0)?;
            let pair = Pair { kind, value: begin..cursor.position() - start };
            match pairs.entry(key.to_owned()) {
                Entry::Vacant(entry) => drop(entry.insert(pair)),
                Entry::Occupied(_) => {
                    return Err(WeightError::DuplicateKey { file: file.to_path_buf(), key: key.to_owned() });
                }
            }
        }
        Ok(Self { file: file.to_path_buf(), bytes: bytes[start..cursor.position()].into(), pairs })
    }

    /// The file, for error messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The pairs in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, GgufValue<'_>)> {
        self.pairs.iter().map(|(key, pair)| (key.as_str(), self.decode(pair)))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<GgufValue<'_>> {
        self.pairs.get(key).map(|pair| self.decode(pair))
    }

    fn decode(&self, pair: &Pair) -> GgufValue<'_> {
        value::decode(pair.kind, &mut &self.bytes[pair.value.clone()])
    }

    /// The string of `key`; `None` when the key is absent.
    ///
    /// # Errors
    /// [`WeightError::KeyType`] when the value is no string. The other getters behave alike.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, WeightError> {
        self.get_as(key, "a string", GgufValue::as_str)
    }

    /// The boolean of `key`.
    ///
    /// # Errors
    /// As [`Self::get_str`].
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, WeightError> {
        self.get_as(key, "a boolean", GgufValue::as_bool)
    }

    /// The integer of `key`, whatever integer type stores it.
    ///
    /// # Errors
    /// As [`Self::get_str`]; also when the integer is negative.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>, WeightError> {
        self.get_as(key, "an unsigned integer", GgufValue::as_u64)
    }

    /// The integer of `key`, whatever integer type stores it.
    ///
    /// # Errors
    /// As [`Self::get_str`]; also when the integer does not fit.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>, WeightError> {
        self.get_as(key, "an unsigned integer of 32 bits", |value| value.as_u64()?.try_into().ok())
    }

    /// The finite float of `key`, of either width.
    ///
    /// # Errors
    /// As [`Self::get_str`]; also when the float is NaN or infinite.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>, WeightError> {
        self.get_as(key, "a finite float", |value| value.as_f32().filter(|x| x.is_finite()))
    }

    /// The array of `key`.
    ///
    /// # Errors
    /// As [`Self::get_str`].
    pub fn get_array(&self, key: &str) -> Result<Option<GgufArray<'_>>, WeightError> {
        self.get_as(key, "an array", GgufValue::as_array)
    }

    /// The array of strings of `key`.
    ///
    /// # Errors
    /// As [`Self::get_str`]; also when an element is no string.
    pub fn get_strings(&self, key: &str) -> Result<Option<Vec<&str>>, WeightError> {
        self.get_elements(key, "an array of strings", GgufValue::as_str)
    }

    /// The array of integers of `key`.
    ///
    /// # Errors
    /// As [`Self::get_str`]; also when an element is no integer.
    pub fn get_i64s(&self, key: &str) -> Result<Option<Vec<i64>>, WeightError> {
        self.get_elements(key, "an array of integers", GgufValue::as_i64)
    }

    /// The array of floats of `key`.
    ///
    /// # Errors
    /// As [`Self::get_str`]; also when an element is no float.
    pub fn get_f32s(&self, key: &str) -> Result<Option<Vec<f32>>, WeightError> {
        self.get_elements(key, "an array of floats", GgufValue::as_f32)
    }

    fn get_as<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(GgufValue<'a>) -> Option<T>,
    ) -> Result<Option<T>, WeightError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.wrong(key, expected, value))
    }

    fn get_elements<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(GgufValue<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, WeightError> {
        self.get_as(key, expected, |value| value.as_array()?.iter().map(convert).collect())
    }

    /// The error for a value of `key` that is not what its reader expects.
    pub(super) fn wrong(&self, key: &str, expected: &'static str, found: GgufValue<'_>) -> WeightError {
        WeightError::KeyType { file: self.file.clone(), key: key.to_owned(), expected, found: found.describe() }
    }

    /// The error for an absent `key`.
    pub(super) fn missing(&self, key: &str) -> WeightError {
        WeightError::MissingKey { file: self.file.clone(), key: key.to_owned() }
    }
}
