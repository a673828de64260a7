//! Typed metadata values, read out of checked bytes.

use std::path::Path;

use super::cursor::Cursor;
use super::limits;
use crate::weights::WeightError;

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum GgufValue<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a str),
    Array(GgufArray<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> GgufValue<'a> {
    /// The value as an unsigned integer, whatever integer type stores it; `None` when it is none or
    /// negative.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a signed integer, whatever integer type stores it.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::I8(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::I64(n) => Some(n),
            other => other.as_u64()?.try_into().ok(),
        }
    }

    /// The value of a float of either width, as stored (it may be NaN or infinite).
    pub fn as_f32(self) -> Option<f32> {
        match self {
            Self::F32(x) => Some(x),
            Self::F64(x) => Some(x as f32),
            _ => None,
        }
    }

    /// The value of a boolean.
    pub fn as_bool(self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(value) } else { None }
    }

    /// The value of a string.
    pub fn as_str(self) -> Option<&'a str> {
        if let Self::Str(value) = self { Some(value) } else { None }
    }

    /// The value of an array.
    pub fn as_array(self) -> Option<GgufArray<'a>> {
        if let Self::Array(value) = self { Some(value) } else { None }
    }

    /// Type and value for an error message; long values are left out.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Str(s) => format!("a string of {} bytes", s.len()),
            Self::Array(array) => format!("an array of {} {}", array.len(), array.element.name()),
            other => format!("{other:?}"),
        }
    }
}

/// An array of metadata values that are decoded as they are visited.
#[derive(Clone, Copy, PartialEq)]
pub struct GgufArray<'a> {
    element: ValueType,
    length: usize,
    bytes: &'a [u8],
}

impl<'a> GgufArray<'a> {
    /// Number of elements.
    pub fn len(self) -> usize {
        self.length
    }

    /// True when there are no elements.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The elements in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = GgufValue<'a>> {
        let mut rest = self.bytes;
        (0..self.length).map(move |_| decode(self.element, &mut rest))
    }
}

impl std::fmt::Debug for GgufArray<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The type numbers of GGUF metadata values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Str,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Str,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Bytes that a value takes at least: exactly, for numbers; the length field of a string; type
    /// and length of an array.
    fn min_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Str => 8,
            Self::Array => 12,
        }
    }
}

/// Reads a value type of `key`.
pub(super) fn read_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, WeightError> {
    let found = cursor.u32(|| format!("the value type of key `{key}`"))?;
    ValueType::from_id(found).ok_or_else(|| WeightError::ValueType {
        file: cursor.file.to_path_buf(),
        key: key.to_owned(),
        found,
    })
}

/// Checks a value of `key` and steps over it, allocating nothing. `depth` counts the arrays around
/// it.
pub(super) fn check(cursor: &mut Cursor<'_>, key: &str, kind: ValueType, depth: usize) -> Result<(), WeightError> {
    match kind {
        ValueType::Str => {
            cursor.string(limits::STRING_BYTES, || format!("the string of key `{key}`"))?;
        }
        ValueType::Bool => {
            let bytes = cursor.take(1, || format!("the value of key `{key}`"))?;
            check_booleans(cursor.file, key, bytes)?;
        }
        ValueType::Array => check_array(cursor, key, depth + 1)?,
        number => {
            cursor.take(number.min_bytes(), || format!("the value of key `{key}`"))?;
        }
    }
    Ok(())
}

fn check_array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<(), WeightError> {
    let file = cursor.file;
    if depth > limits::ARRAY_DEPTH {
        let (found, limit) = (depth, limits::ARRAY_DEPTH);
        return Err(WeightError::Nesting { file: file.to_path_buf(), key: key.to_owned(), found, limit });
    }
    let element = read_type(cursor, key)?;
    let length = cursor.u64(|| format!("the array length of key `{key}`"))?;
    let limit = limits::ARRAY_ELEMENTS.min(cursor.left() / element.min_bytes());
    if length > limit {
        return Err(WeightError::ArrayLength { file: file.to_path_buf(), key: key.to_owned(), found: length, limit });
    }
    match element {
        ValueType::Str | ValueType::Array => (0..length).try_for_each(|_| check(cursor, key, element, depth)),
        number => {
            let bytes = cursor.take(length * number.min_bytes(), || format!("the array of key `{key}`"))?;
            if number == ValueType::Bool { check_booleans(file, key, bytes) } else { Ok(()) }
        }
    }
}

fn check_booleans(file: &Path, key: &str, bytes: &[u8]) -> Result<(), WeightError> {
    match bytes.iter().find(|&&byte| byte > 1) {
        Some(&found) => Err(WeightError::Boolean { file: file.to_path_buf(), key: key.to_owned(), found }),
        None => Ok(()),
    }
}

/// Decodes one value from bytes that [`check`] has accepted and moves `bytes` past it.
pub(super) fn decode<'a>(kind: ValueType, bytes: &mut &'a [u8]) -> GgufValue<'a> {
    match kind {
        ValueType::U8 => GgufValue::U8(u8::from_le_bytes(number(bytes))),
        ValueType::I8 => GgufValue::I8(i8::from_le_bytes(number(bytes))),
        ValueType::U16 => GgufValue::U16(u16::from_le_bytes(number(bytes))),
        ValueType::I16 => GgufValue::I16(i16::from_le_bytes(number(bytes))),
        ValueType::U32 => GgufValue::U32(u32::from_le_bytes(number(bytes))),
        ValueType::I32 => GgufValue::I32(i32::from_le_bytes(number(bytes))),
        ValueType::F32 => GgufValue::F32(f32::from_le_bytes(number(bytes))),
        ValueType::Bool => GgufValue::Bool(number::<1>(bytes) == [1]),
        ValueType::U64 => GgufValue::U64(u64::from_le_bytes(number(bytes))),
        ValueType::I64 => GgufValue::I64(i64::from_le_bytes(number(bytes))),
        ValueType::F64 => GgufValue::F64(f64::from_le_bytes(number(bytes))),
        ValueType::Str => {
            let length = u64::from_le_bytes(number(bytes)) as usize;
            let (string, rest) = bytes.split_at(length.min(bytes.len()));
            *bytes = rest;
            GgufValue::Str(std::str::from_utf8(string).unwrap_or_default())
        }
        ValueType::Array => {
            let element = ValueType::from_id(u32::from_le_bytes(number(bytes))).unwrap_or(ValueType::U8);
            let length = u64::from_le_bytes(number(bytes)) as usize;
            let array = GgufArray { element, length, bytes };
            match element {
                ValueType::Str | ValueType::Array => {
                    for _ in 0..length {
                        decode(element, bytes);
                    }
                }
                number => {
                    let size = length * number.min_bytes() as usize;
                    *bytes = bytes.get(size..).unwrap_or_default();
                }
            }
            GgufValue::Array(array)
        }
    }
}

/// The next `N` bytes; the checks before [`decode`] make sure that they are there.
fn number<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    match bytes.split_first_chunk() {
        Some((number, rest)) => {
            *bytes = rest;
            *number
        }
        None => [0; N],
    }
}
