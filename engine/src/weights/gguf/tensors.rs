//! The tensor entries of a GGUF header.

use std::collections::HashSet;
use std::path::Path;

use super::cursor::Cursor;
use super::{limits, types};
use crate::weights::WeightError;
use crate::weights::tensor_info::{TensorInfo, checked_bytes};

/// Bytes of the smallest entry: name length, one byte of name, dimension count, one dimension,
/// type, offset.
pub(super) const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// Reads `count` entries and checks them against a file of `file_bytes` bytes.
pub(super) fn parse(
    cursor: &mut Cursor<'_>,
    count: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<Vec<TensorInfo>, WeightError> {
    let file = cursor.file;
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for index in 0..count {
        let tensor = parse_entry(cursor, index, alignment)?;
        if !names.insert(tensor.name.clone()) {
            return Err(WeightError::DuplicateTensor { file: file.to_path_buf(), tensor: tensor.name });
        }
        tensors.push(tensor);
    }
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    check_ranges(file, &tensors, file_bytes.saturating_sub(data_start))?;
    for tensor in &mut tensors {
        tensor.begin += data_start;
    }
    Ok(tensors)
}

/// One entry; `begin` still counts from the start of the data.
fn parse_entry(cursor: &mut Cursor<'_>, index: u64, alignment: u64) -> Result<TensorInfo, WeightError> {
    let file = cursor.file;
    let name = cursor.string(limits::TENSOR_NAME_BYTES, || format!("the name of tensor {index}"))?;
    if name.is_empty() {
        return Err(WeightError::EmptyName { file: file.to_path_buf(), what: "tensor", index });
    }
    let what = |field: &'static str| move || format!("the {field} of tensor `{name}`");
    let tensor = || name.to_owned();
    let dimensions = cursor.u32(what("dimension count"))?;
    if !(1..=limits::DIMENSIONS).contains(&dimensions) {
        return Err(WeightError::Dimensions {
            file: file.to_path_buf(),
            tensor: tensor(),
            found: dimensions.into(),
            expected: "1 to 4 are possible",
        });
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for axis in 0..dimensions as usize {
        let size = cursor.u64(what("dimensions"))?;
        if size == 0 {
            return Err(WeightError::ZeroDimension { file: file.to_path_buf(), tensor: tensor(), axis });
        }
        shape.push(size);
    }
    // The file lists the innermost dimension first.
    shape.reverse();
    let id = cursor.u32(what("type"))?;
    let (dtype, block) = types::stored_type(id).ok_or_else(|| WeightError::UnknownType {
        file: file.to_path_buf(),
        tensor: tensor(),
        found: id.to_string(),
    })?;
    let begin = cursor.u64(what("offset"))?;
    if !begin.is_multiple_of(alignment) {
        return Err(WeightError::Misaligned { file: file.to_path_buf(), tensor: tensor(), found: begin, alignment });
    }
    let bytes = checked_bytes(file, name, dtype.name(), &shape, block)?;
    Ok(TensorInfo { name: tensor(), dtype, shape, begin, bytes })
}

/// Every tensor lies in the `data_bytes` of data, and no two share a byte.
fn check_ranges(file: &Path, tensors: &[TensorInfo], data_bytes: u64) -> Result<(), WeightError> {
    for tensor in tensors {
        if tensor.begin.checked_add(tensor.bytes).is_none_or(|end| end > data_bytes) {
            return Err(WeightError::OutOfBounds {
                file: file.to_path_buf(),
                tensor: tensor.name.clone(),
                offset: tensor.begin,
                size: tensor.bytes,
                found: data_bytes,
            });
        }
    }
    let mut by_begin: Vec<&TensorInfo> = tensors.iter().collect();
    by_begin.sort_by_key(|tensor| tensor.begin);
    for pair in by_begin.windows(2) {
        if pair[0].begin + pair[0].bytes > pair[1].begin {
            let (first, second) = (pair[0].name.clone(), pair[1].name.clone());
            return Err(WeightError::Overlap { file: file.to_path_buf(), first, second });
        }
    }
    Ok(())
}
