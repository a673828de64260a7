//! A weight file mapped into memory.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::WeightError;

/// A read-only map of a whole file.
///
/// The map shows the file as it is on disk: a file that is cut short while it is mapped kills the
/// process when the lost part is read. [`Self::check_length`] catches the cut before the read.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    file: File,
    map: Mmap,
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> Result<Self, WeightError> {
        let io = |source| WeightError::Io { file: path.to_path_buf(), source };
        // Before it is opened: opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(io)?.is_file() {
            let problem = "not a regular file".into();
            return Err(WeightError::NotACheckpoint { path: path.to_path_buf(), problem });
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this struct. Bytes that another process
        // changes can only change values: every parser works on an owned copy of the header or
        // checks what it reads, and tensor bytes have no invalid values.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { path: path.to_path_buf(), file, map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Fails when the file no longer has the length that its header was checked against.
    pub(crate) fn check_length(&self) -> Result<(), WeightError> {
        let found = self.file.metadata().map_err(|source| WeightError::Io { file: self.path.clone(), source })?.len();
        let expected = self.map.len() as u64;
        if found == expected { Ok(()) } else { Err(WeightError::Changed { file: self.path.clone(), expected, found }) }
    }

    /// Gives the pages of `len` bytes at `begin` back to the operating system; a later read loads
    /// them from the file again. Does nothing where the system has no such call.
    pub(crate) fn release(&self, begin: usize, len: usize) {
        #[cfg(unix)]
        if begin.checked_add(len).is_some_and(|end| end <= self.map.len()) {
            // SAFETY: the map is file-backed and never written, so dropped pages come back with
            // the file's bytes; the range lies in the map. Failure leaves the pages resident.
            let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, begin, len) };
        }
        #[cfg(not(unix))]
        let _ = (begin, len);
    }
}
