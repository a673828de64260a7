//! GGUF files, versions 2 and 3, little-endian.
//!
//! [`parse`] works on the file's bytes alone, so that it can be tested without files. Layout:
//! magic, version, tensor count, key count, the key-value pairs, the tensor entries, padding to
//! `general.alignment`, the tensors' data.

mod config;
mod cursor;
mod metadata;
mod split;
mod tensors;
mod types;
mod value;

use std::path::Path;

pub(crate) use config::synthesize_config;
pub use metadata::GgufMetadata;
pub(crate) use split::{is_split_set, part_paths};
pub(crate) use types::file_type_name;
pub use value::{GgufArray, GgufValue};

use self::cursor::Cursor;
use super::WeightError;
use super::tensor_info::{MAX_TENSORS, TensorInfo};

/// Caps on what a header may ask for, beyond "it must fit the file".
pub mod limits {
    /// Most key-value pairs.
    pub const KEYS: u64 = 1 << 16;
    /// Longest key in bytes (the specification's).
    pub const KEY_BYTES: u64 = 65_535;
    /// Longest tensor name in bytes (ggml's own limit is 64).
    pub const TENSOR_NAME_BYTES: u64 = 1024;
    /// Longest string value in bytes.
    pub const STRING_BYTES: u64 = 1 << 26;
    /// Longest array.
    pub const ARRAY_ELEMENTS: u64 = 1 << 24;
    /// Deepest nesting of arrays; 1 is an array of scalars.
    pub const ARRAY_DEPTH: usize = 4;
    /// Most dimensions of a tensor.
    pub const DIMENSIONS: u32 = 4;
    /// Largest alignment.
    pub const ALIGNMENT: u32 = 1 << 16;
}

/// Alignment of a file that states none.
const DEFAULT_ALIGNMENT: u32 = 32;

/// A checked GGUF header.
#[derive(Clone, Debug)]
pub struct GgufHeader {
    /// The key-value pairs.
    pub metadata: GgufMetadata,
    /// The tensors in file order, shapes outermost first.
    pub tensors: Vec<TensorInfo>,
}

impl GgufHeader {
    /// The metadata as a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`WeightError::MissingKey`] and [`WeightError::KeyType`] for metadata that does not describe
    /// a model.
    pub fn config(&self) -> Result<serde_json::Value, WeightError> {
        synthesize_config(&self.metadata, |name| self.tensors.iter().find(|tensor| tensor.name == name))
    }
}

/// Reads and checks the header of the GGUF file whose bytes are `bytes`; `file` names it in errors.
///
/// # Errors
/// One [`WeightError`] variant per defect; nothing is allocated for a length before it has been
/// checked against the bytes left.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<GgufHeader, WeightError> {
    let mut cursor = Cursor::new(file, bytes);
    read_version(&mut cursor)?;
    let tensor_count = cursor.u64(|| "the tensor count".into())?;
    let key_count = cursor.u64(|| "the key count".into())?;
    check_count(&cursor, "tensor", tensor_count, MAX_TENSORS, tensors::MIN_ENTRY_BYTES)?;
    check_count(&cursor, "key", key_count, limits::KEYS, metadata::MIN_ENTRY_BYTES)?;
    let metadata = GgufMetadata::parse(&mut cursor, bytes, key_count)?;
    let alignment = alignment(file, &metadata)?;
    let tensors = tensors::parse(&mut cursor, tensor_count, alignment, bytes.len() as u64)?;
    Ok(GgufHeader { metadata, tensors })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<(), WeightError> {
    let mut magic = [0; 4];
    magic.copy_from_slice(cursor.take(4, || "the magic".into())?);
    if &magic != b"GGUF" {
        return Err(WeightError::Magic { file: cursor.file.to_path_buf(), found: magic });
    }
    match cursor.u32(|| "the version".into())? {
        2 | 3 => Ok(()),
        // A big-endian writer's small number, seen from the wrong end.
        found if found & 0xffff == 0 && found != 0 => {
            Err(WeightError::BigEndian { file: cursor.file.to_path_buf(), found })
        }
        found => Err(WeightError::Version { file: cursor.file.to_path_buf(), found }),
    }
}

fn check_count(
    cursor: &Cursor<'_>,
    what: &'static str,
    found: u64,
    cap: u64,
    entry_bytes: u64,
) -> Result<(), WeightError> {
    let limit = cap.min(cursor.left() / entry_bytes);
    if found > limit {
        return Err(WeightError::Count { file: cursor.file.to_path_buf(), what, found, limit });
    }
    Ok(())
}

fn alignment(file: &Path, metadata: &GgufMetadata) -> Result<u64, WeightError> {
    let found = metadata.get_u64("general.alignment")?.unwrap_or(u64::from(DEFAULT_ALIGNMENT));
    if !found.is_power_of_two() || found > u64::from(limits::ALIGNMENT) {
        let limit = u64::from(limits::ALIGNMENT);
        return Err(WeightError::Alignment { file: file.to_path_buf(), found, limit });
    }
    Ok(found)
}
