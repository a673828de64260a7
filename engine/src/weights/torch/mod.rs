//! Checkpoints of `torch.save` (`pytorch_model.bin`): a zip archive of a pickle, which describes the
//! tensors, and an entry for the bytes of each of their storages.
//!
//! Nothing that a pickle asks for is executed: see [`pickle`]. [`parse`] works on the file's bytes
//! alone, so that it can be tested without files.

mod globals;
mod objects;
mod pickle;
mod zip;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use self::objects::{Storage, View};
use self::zip::Entry;
use super::WeightError;
use super::tensor_info::{TensorInfo, checked_bytes};

/// What files of torch before 1.6 begin with: a pickle of the number 0x1950a86a20f9469cfc6c.
const LEGACY: [u8; 14] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// A tensor of a torch file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchTensor {
    /// Name, type and shape; `begin` is the place of its first element, `bytes` the size of its
    /// elements without gaps.
    pub info: TensorInfo,
    /// Elements from one index of a dimension to the next, where they do not lie in row-major order
    /// without gaps.
    pub strides: Option<Vec<u64>>,
}

/// Reads and checks the torch file whose bytes are `bytes`; `file` names it in errors. The tensors
/// come in the order of the file. Tensors may share bytes, as tied weights do.
///
/// # Errors
/// One [`WeightError`] variant per defect.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<Vec<TorchTensor>, WeightError> {
    if bytes.starts_with(&LEGACY) {
        return Err(WeightError::LegacyTorch { file: file.to_path_buf() });
    }
    if !bytes.starts_with(b"PK") {
        let found = bytes[..bytes.len().min(4)].to_vec();
        return Err(WeightError::NotZip { file: file.to_path_buf(), found });
    }
    let entries = zip::entries(file, bytes)?;
    let archive = Archive::new(file, bytes, &entries)?;
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    for (name, view) in pickle::tensors(file, archive.content(archive.pickle))? {
        if name.is_empty() {
            let index = tensors.len() as u64;
            return Err(WeightError::EmptyName { file: file.to_path_buf(), what: "tensor", index });
        }
        if !names.insert(name) {
            return Err(WeightError::DuplicateTensor { file: file.to_path_buf(), tensor: name.to_owned() });
        }
        tensors.push(archive.tensor(name, &view)?);
    }
    Ok(tensors)
}

/// The entries of a torch file.
struct Archive<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    pickle: Entry<'a>,
    /// Storages by their keys.
    storages: HashMap<&'a str, Entry<'a>>,
}

impl<'a> Archive<'a> {
    /// Finds the pickle; the folder that it lies in, named as the file once was, holds the rest.
    fn new(file: &'a Path, bytes: &'a [u8], entries: &[Entry<'a>]) -> Result<Self, WeightError> {
        let zip_error = |problem: &str| WeightError::Zip { file: file.to_path_buf(), problem: problem.to_owned() };
        let root = |entry: &Entry<'a>| entry.name.strip_suffix("data.pkl").filter(|root| root.ends_with('/'));
        let mut pickles = entries.iter().filter_map(|entry| Some((root(entry)?, *entry)));
        let (root, pickle) =
            pickles.next().ok_or_else(|| zip_error("the archive holds no `data.pkl` of torch.save"))?;
        if pickles.next().is_some() {
            return Err(zip_error("the archive holds several files named `data.pkl`"));
        }
        let inside = |entry: &Entry<'a>| entry.name.strip_prefix(root);
        let storages =
            entries.iter().filter_map(|entry| Some((inside(entry)?.strip_prefix("data/")?, *entry))).collect();
        let archive = Self { file, bytes, pickle, storages };
        match entries.iter().find(|entry| inside(entry) == Some("byteorder")) {
            Some(order) if archive.content(*order) != b"little" => Err(zip_error("its tensors are not little-endian")),
            _ => Ok(archive),
        }
    }

    /// The bytes of an entry, which was checked to lie in the file.
    fn content(&self, entry: Entry<'a>) -> &'a [u8] {
        &self.bytes[entry.begin as usize..(entry.begin + entry.bytes) as usize]
    }

    fn tensor(&self, name: &str, view: &View<'_>) -> Result<TorchTensor, WeightError> {
        let error = |problem: String| WeightError::TorchTensor {
            file: self.file.to_path_buf(),
            tensor: name.to_owned(),
            problem,
        };
        let View { storage: Storage { key, element, length }, offset, shape, strides } = view;
        let entry = self.storages.get(key).ok_or_else(|| error(format!("its storage `data/{key}` is missing")))?;
        if length.checked_mul(element.bytes) != Some(entry.bytes) {
            let problem = format!(
                "its storage of {length} {} does not fit the {} bytes of `data/{key}`",
                element.dtype.name(),
                entry.bytes
            );
            return Err(error(problem));
        }
        let bytes = checked_bytes(self.file, name, element.dtype.name(), shape, (1, element.bytes))?;
        // An expanded tensor (stride 0) could claim any size.
        if bytes > entry.bytes || end(view).is_none_or(|end| end > *length) {
            return Err(error(format!(
                "shape {shape:?}, strides {strides:?} and offset {offset} leave its storage of {length} elements"
            )));
        }
        let info = TensorInfo {
            name: name.to_owned(),
            dtype: element.dtype,
            shape: shape.clone(),
            // Within the storage, as the check of its end says.
            begin: entry.begin + offset * element.bytes,
            bytes,
        };
        let strides = (!is_contiguous(shape, strides)).then(|| strides.clone());
        Ok(TorchTensor { info, strides })
    }
}

/// One more than the last element of its storage that a view uses; `None` when that overflows.
fn end(view: &View<'_>) -> Option<u64> {
    if view.shape.contains(&0) {
        return Some(view.offset);
    }
    let last = view
        .shape
        .iter()
        .zip(&view.strides)
        .try_fold(view.offset, |last, (size, stride)| last.checked_add((size - 1).checked_mul(*stride)?));
    last?.checked_add(1)
}

/// Whether the elements lie in row-major order without gaps; the stride of a dimension of one
/// element does not matter.
fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1u64;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            fits
        })
}

/// The elements of a view in row-major order: `bytes` begins at its first one, `width` is the size of
/// an element.
///
/// # Panics
/// When the view leaves `bytes`, which [`parse`] has excluded.
pub(super) fn gather(bytes: &[u8], width: usize, shape: &[u64], strides: &[u64]) -> Vec<u8> {
    let count = shape.iter().product::<u64>() as usize;
    let mut gathered = Vec::with_capacity(count * width);
    let mut index = vec![0; shape.len()];
    let mut at = 0u64;
    for _ in 0..count {
        let begin = at as usize * width;
        gathered.extend_from_slice(&bytes[begin..begin + width]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::{gather, is_contiguous};

    #[test]
    fn views_are_put_in_order() {
        let bytes: Vec<u8> = (0..24).collect();
        assert_eq!(gather(&bytes, 2, &[2, 3], &[1, 2]), [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
        assert_eq!(gather(&bytes, 1, &[2, 2, 2], &[12, 1, 4]), [0, 4, 1, 5, 12, 16, 13, 17]);
        assert_eq!(gather(&bytes[3..], 1, &[], &[]), [3]);
        assert!(gather(&bytes, 4, &[2, 0], &[1, 1]).is_empty());
        assert!(is_contiguous(&[2, 3], &[3, 1]) && is_contiguous(&[2, 1, 3], &[3, 99, 1]) && is_contiguous(&[], &[]));
        assert!(!is_contiguous(&[2, 3], &[4, 1]) && !is_contiguous(&[2, 3], &[1, 2]));
        assert!(is_contiguous(&[0, 3], &[7, 7]));
    }
}
