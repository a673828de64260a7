//! NumPy's `.npy` format, version 1.0.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::CliError;

/// Writes `values` as a one-dimensional little-endian float32 array.
pub(crate) fn write_f32(path: &Path, values: &[f32]) -> Result<(), CliError> {
    let file = |source| CliError::File { path: path.to_owned(), source };
    let mut out = BufWriter::new(File::create(path).map_err(file)?);
    out.write_all(&header(values.len())).map_err(file)?;
    for value in values {
        out.write_all(&value.to_le_bytes()).map_err(file)?;
    }
    out.flush().map_err(file)
}

fn header(len: usize) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    /// The data starts at a multiple of this.
    const ALIGNMENT: usize = 64;
    let mut description = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({len},), }}");
    let unpadded = MAGIC.len() + 2 + description.len() + 1;
    description.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    description.push('\n');
    // At most 60 characters of text and a count: far below the 64 KiB that version 1.0 can say.
    let length = u16::try_from(description.len()).unwrap_or(u16::MAX);
    [MAGIC, &length.to_le_bytes(), description.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_aligned_and_states_its_length() {
        for len in [0, 1, 512, 151_936, usize::MAX] {
            let header = header(len);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])), header.len() - 10);
            assert_eq!(header.last(), Some(&b'\n'));
        }
    }
}
