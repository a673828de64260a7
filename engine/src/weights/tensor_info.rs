//! A tensor's entry in a file header, once it has been checked against the file.

use super::{Format, WeightError};
use std::path::Path;

/// How a file stores a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// A format the engine computes with.
    Known(Format),
    /// A type that the file format defines and the engine does not read, by its name there.
    Other(&'static str),
}

impl StoredType {
    /// The type's name, e.g. `Q4_K` or `I64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Known(format) => format.name(),
            Self::Other(name) => name,
        }
    }
}

/// A tensor of a weight file: its type and shape, and the bytes that hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name in the file.
    pub name: String,
    /// The element type.
    pub dtype: StoredType,
    /// The shape, outermost dimension first: `[out, in]` for a matrix.
    pub shape: Vec<u64>,
    /// First byte, counted from the start of the file.
    pub begin: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// Most tensors that a single file may hold; ten times those of the largest released checkpoints.
pub const MAX_TENSORS: u64 = 1 << 17;

/// Bytes of `shape` in blocks of `block_len` elements and `block_bytes` bytes along the innermost
/// dimension.
pub(crate) fn checked_bytes(
    file: &Path,
    name: &str,
    type_name: &str,
    shape: &[u64],
    (block_len, block_bytes): (u64, u64),
) -> Result<u64, WeightError> {
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(block_len) {
        return Err(WeightError::PartialBlock {
            file: file.to_path_buf(),
            tensor: name.to_owned(),
            format: type_name.to_owned(),
            block: block_len,
            found: row,
        });
    }
    // Elements first: a dimension of zero must not hide that the others overflow.
    let nonzero = shape.iter().filter(|&&n| n != 0).try_fold(1u64, |n, &dim| n.checked_mul(dim));
    let elements = if shape.contains(&0) { nonzero.map(|_| 0) } else { nonzero };
    elements.and_then(|n| (n / block_len).checked_mul(block_bytes)).ok_or_else(|| WeightError::ShapeOverflow {
        file: file.to_path_buf(),
        tensor: name.to_owned(),
        shape: shape.to_vec(),
    })
}
