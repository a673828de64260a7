//! The safetensors header: a length, a JSON object of tensor entries, then the data.
//!
//! [`parse`] works on the file's bytes alone, so that it can be tested without files.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::tensor_info::{MAX_TENSORS, StoredType, TensorInfo, checked_bytes};
use super::{Format, WeightError};

/// Longest header in bytes (the format's own limit).
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 8;

/// The format's types: name, what the engine makes of it, elements and bytes of the smallest unit
/// of whole bytes.
const TYPES: [(&str, StoredType, u64, u64); 22] = [
    ("F32", StoredType::Known(Format::F32), 1, 4),
    ("F16", StoredType::Known(Format::F16), 1, 2),
    ("BF16", StoredType::Known(Format::BF16), 1, 2),
    ("BOOL", StoredType::Other("BOOL"), 1, 1),
    ("U8", StoredType::Other("U8"), 1, 1),
    ("I8", StoredType::Other("I8"), 1, 1),
    ("U16", StoredType::Other("U16"), 1, 2),
    ("I16", StoredType::Other("I16"), 1, 2),
    ("U32", StoredType::Other("U32"), 1, 4),
    ("I32", StoredType::Other("I32"), 1, 4),
    ("U64", StoredType::Other("U64"), 1, 8),
    ("I64", StoredType::Other("I64"), 1, 8),
    ("F64", StoredType::Other("F64"), 1, 8),
    ("C64", StoredType::Other("C64"), 1, 8),
    ("F8_E5M2", StoredType::Other("F8_E5M2"), 1, 1),
    ("F8_E4M3", StoredType::Other("F8_E4M3"), 1, 1),
    ("F8_E8M0", StoredType::Other("F8_E8M0"), 1, 1),
    ("F8_E4M3FNUZ", StoredType::Other("F8_E4M3FNUZ"), 1, 1),
    ("F8_E5M2FNUZ", StoredType::Other("F8_E5M2FNUZ"), 1, 1),
    ("F6_E2M3", StoredType::Other("F6_E2M3"), 4, 3),
    ("F6_E3M2", StoredType::Other("F6_E3M2"), 4, 3),
    ("F4", StoredType::Other("F4"), 2, 1),
];

/// Reads and checks the header of the safetensors file whose bytes are `bytes`; `file` names it in
/// errors. The tensors come in the order of the header.
///
/// # Errors
/// One [`WeightError`] variant per defect.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<Vec<TensorInfo>, WeightError> {
    let truncated = |what: &str, offset, expected, found| WeightError::Truncated {
        file: file.to_path_buf(),
        what: what.to_owned(),
        offset,
        expected,
        found,
    };
    let (length, rest) =
        bytes.split_first_chunk().ok_or_else(|| truncated("the header length", 0, 8, bytes.len() as u64))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        let limit = MAX_HEADER_BYTES;
        return Err(WeightError::HeaderTooLarge { file: file.to_path_buf(), found: length, limit });
    }
    let (header, data) =
        rest.split_at_checked(length as usize).ok_or_else(|| truncated("the header", 8, length, rest.len() as u64))?;
    match header.first() {
        Some(b'{') => {}
        Some(&found) => return Err(WeightError::HeaderStart { file: file.to_path_buf(), found }),
        None => return Err(WeightError::HeaderJson { file: file.to_path_buf(), message: "it is empty".into() }),
    }
    let header = std::str::from_utf8(header)
        .map_err(|error| WeightError::HeaderNotUtf8 { file: file.to_path_buf(), at: error.valid_up_to() })?;

    let mut tensors = parse_json(file, header)?;
    check_ranges(file, &tensors, data.len() as u64)?;
    for tensor in &mut tensors {
        tensor.begin += 8 + length;
    }
    Ok(tensors)
}

/// The entries of the header; `begin` still counts from the start of the data.
fn parse_json(file: &Path, header: &str) -> Result<Vec<TensorInfo>, WeightError> {
    let mut defect = None;
    let mut json = serde_json::Deserializer::from_str(header);
    let parsed = HeaderSeed { file, defect: &mut defect }
        .deserialize(&mut json)
        .and_then(|tensors| json.end().map(|()| tensors));
    parsed.map_err(|error| {
        defect.unwrap_or_else(|| WeightError::HeaderJson { file: file.to_path_buf(), message: error.to_string() })
    })
}

/// Reads the header object entry by entry. A defect of its content is left in `defect`, as JSON
/// errors carry text only.
struct HeaderSeed<'a> {
    file: &'a Path,
    defect: &'a mut Option<WeightError>,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = Vec<TensorInfo>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = Vec<TensorInfo>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<StringMap>().map_err(|error| A::Error::custom(format!("__metadata__: {error}")))?;
                continue;
            }
            let entry =
                map.next_value::<Entry>().map_err(|error| A::Error::custom(format!("tensor `{name}`: {error}")))?;
            match check_entry(self.file, &name, &entry, &mut names, tensors.len() as u64) {
                Ok(tensor) => tensors.push(tensor),
                Err(error) => {
                    *self.defect = Some(error);
                    return Err(A::Error::custom("defective tensor"));
                }
            }
        }
        Ok(tensors)
    }
}

/// A tensor's entry as it stands in the header.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: Option<String>,
    shape: Option<Dimensions>,
    data_offsets: Option<[u64; 2]>,
}

/// A shape of which at most [`MAX_DIMENSIONS`] are kept and the rest counted.
struct Dimensions {
    kept: [u64; MAX_DIMENSIONS],
    count: usize,
}

impl<'de> serde::Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Dimensions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dimensions, A::Error> {
                let mut shape = Dimensions { kept: [0; MAX_DIMENSIONS], count: 0 };
                while let Some(size) = seq.next_element()? {
                    if let Some(kept) = shape.kept.get_mut(shape.count) {
                        *kept = size;
                    }
                    shape.count += 1;
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_seq(Counter)
    }
}

/// An object of strings, checked and dropped.
struct StringMap;

impl<'de> serde::Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Skip;
        impl<'de> Visitor<'de> for Skip {
            type Value = StringMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
                while map.next_key::<IgnoredAny>()?.is_some() {
                    map.next_value::<String>()?;
                }
                Ok(StringMap)
            }
        }
        deserializer.deserialize_map(Skip)
    }
}

fn check_entry(
    file: &Path,
    name: &str,
    entry: &Entry,
    names: &mut HashSet<String>,
    index: u64,
) -> Result<TensorInfo, WeightError> {
    let (path, tensor) = (|| file.to_path_buf(), || name.to_owned());
    if index >= MAX_TENSORS {
        return Err(WeightError::Count { file: path(), what: "tensor", found: index + 1, limit: MAX_TENSORS });
    }
    if name.is_empty() {
        return Err(WeightError::EmptyName { file: path(), what: "tensor", index });
    }
    if !names.insert(name.to_owned()) {
        return Err(WeightError::DuplicateTensor { file: path(), tensor: tensor() });
    }
    let missing = |field| WeightError::MissingField { file: path(), tensor: tensor(), field };
    let dtype = entry.dtype.as_deref().ok_or_else(|| missing("dtype"))?;
    let shape = entry.shape.as_ref().ok_or_else(|| missing("shape"))?;
    let [begin, end] = entry.data_offsets.ok_or_else(|| missing("data_offsets"))?;

    let (_, dtype, block_len, block_bytes) =
        TYPES.into_iter().find(|(known, ..)| *known == dtype).ok_or_else(|| WeightError::UnknownType {
            file: path(),
            tensor: tensor(),
            found: format!("`{}`", dtype.chars().take(32).collect::<String>()),
        })?;
    let shape = shape.kept.get(..shape.count).ok_or_else(|| WeightError::Dimensions {
        file: path(),
        tensor: tensor(),
        found: shape.count as u64,
        expected: "0 to 8 are read",
    })?;
    if begin > end {
        return Err(WeightError::OffsetsReversed { file: path(), tensor: tensor(), begin, end });
    }
    let bytes = checked_bytes(file, name, dtype.name(), shape, (block_len, block_bytes))?;
    if bytes != end - begin {
        return Err(WeightError::SizeMismatch { file: path(), tensor: tensor(), expected: bytes, found: end - begin });
    }
    Ok(TensorInfo { name: tensor(), dtype, shape: shape.to_vec(), begin, bytes })
}

/// The tensors cover the `data_bytes` of data exactly, without holes or overlap.
fn check_ranges(file: &Path, tensors: &[TensorInfo], data_bytes: u64) -> Result<(), WeightError> {
    let mut by_begin: Vec<&TensorInfo> = tensors.iter().collect();
    by_begin.sort_by_key(|tensor| (tensor.begin, tensor.bytes));
    let (mut covered, mut last) = (0, None::<&TensorInfo>);
    for tensor in by_begin {
        // `begin + bytes` is the entry's end offset, so it does not overflow.
        let end = tensor.begin + tensor.bytes;
        if end > data_bytes {
            return Err(WeightError::OutOfBounds {
                file: file.to_path_buf(),
                tensor: tensor.name.clone(),
                offset: tensor.begin,
                size: tensor.bytes,
                found: data_bytes,
            });
        }
        if tensor.begin > covered {
            return Err(WeightError::Hole { file: file.to_path_buf(), begin: covered, end: tensor.begin });
        }
        if let Some(last) = last.filter(|_| tensor.begin < covered) {
            let (first, second) = (last.name.clone(), tensor.name.clone());
            return Err(WeightError::Overlap { file: file.to_path_buf(), first, second });
        }
        (covered, last) = (end, Some(tensor));
    }
    if covered < data_bytes {
        return Err(WeightError::Hole { file: file.to_path_buf(), begin: covered, end: data_bytes });
    }
    Ok(())
}
