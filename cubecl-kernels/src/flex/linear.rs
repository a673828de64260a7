//! Products of activations with a stored matrix.

use std::borrow::Cow;

use super::simd::{LANES, Level};
use super::unpack::block_len;
use super::{matmul, matvec};
use crate::formats::Format;

/// Most rows of `x` for which weights are unpacked in registers; above, tiles are unpacked to
/// memory once and multiplied from there.
const MATVEC_ROWS: usize = 8;

/// A stored matrix `[rows, cols]`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) format: Format,
    /// The rows' blocks, row after row.
    pub(super) bytes: &'a [u8],
    pub(super) row_bytes: usize,
    pub(super) cols: usize,
}

impl<'a> Matrix<'a> {
    /// # Panics
    /// When `cols` does not fill whole blocks or `bytes` is shorter than the matrix.
    pub(super) fn new(format: Format, bytes: &'a [u8], rows: usize, cols: usize) -> Self {
        let size = format.row_bytes(cols).and_then(|row| Some((row, row.checked_mul(rows)?)));
        let (row_bytes, bytes) = match size {
            Some((row, size)) if size <= bytes.len() => (row, &bytes[..size]),
            _ => unreachable!("{format} [{rows}, {cols}] in {} bytes: checked when the weight was made", bytes.len()),
        };
        Self { format, bytes, row_bytes, cols }
    }

    /// The stored bytes of one row.
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..][..self.row_bytes]
    }

    /// The stored bytes of `count` rows.
    pub(super) fn rows(&self, first: usize, count: usize) -> &'a [u8] {
        &self.bytes[first * self.row_bytes..][..count * self.row_bytes]
    }

    /// The matrix of `count` rows from the `first`.
    pub(super) fn part(&self, first: usize, count: usize) -> Self {
        Self { bytes: self.rows(first, count), ..*self }
    }

    /// The stored bytes of one row, if there is such a row.
    pub(super) fn get_row(&self, row: usize) -> Option<&'a [u8]> {
        let start = row.checked_mul(self.row_bytes)?;
        self.bytes.get(start..start.checked_add(self.row_bytes)?)
    }
}

/// `out[i * out_stride + out_offset + r] = x[i] · weight[r]`.
///
/// # Shapes
/// weight `[rows, cols]` as stored, x `[m, cols]`, out `[m, out_stride]`.
///
/// # Panics
/// When a slice is shorter than its shape.
#[allow(clippy::too_many_arguments)]
pub(crate) fn linear(
    format: Format,
    weight: &[u8],
    rows: usize,
    cols: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    out_stride: usize,
    out_offset: usize,
) {
    linear_at(Level::best(), format, weight, rows, cols, x, m, out, out_stride, out_offset);
}

/// [`linear`] with the instructions of `level`.
#[allow(clippy::too_many_arguments)]
fn linear_at(
    level: Level,
    format: Format,
    weight: &[u8],
    rows: usize,
    cols: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    out_stride: usize,
    out_offset: usize,
) {
    let matrix = Matrix::new(format, weight, rows, cols);
    let x = &x[..m * cols];
    let out = &mut out[..m * out_stride];
    assert!(out_offset + rows <= out_stride, "{rows} outputs at {out_offset} of {out_stride}");
    if m == 0 || rows == 0 {
        return;
    }
    let columns = out.chunks_exact_mut(out_stride).map(|out| &mut out[out_offset..out_offset + rows]).collect();
    products(level, matrix, x, columns);
}

/// Writes `columns[i][r] = x[i] · matrix[r]`; x `[columns, cols]`.
pub(super) fn products(level: Level, matrix: Matrix<'_>, x: &[f32], columns: Vec<&mut [f32]>) {
    let cols = matrix.cols;
    if columns.len() <= MATVEC_ROWS {
        let padded = cols.next_multiple_of(block_len(matrix.format));
        matvec::matvec(level, matrix, pad(x, cols, padded).as_chunks::<LANES>().0, padded / LANES, columns);
    } else {
        matmul::matmul(level, matrix, x, columns);
    }
}

/// `x` with its rows lengthened by zeros to `padded`.
fn pad(x: &[f32], cols: usize, padded: usize) -> Cow<'_, [f32]> {
    if cols == padded {
        return Cow::Borrowed(x);
    }
    let mut out = vec![0.0; x.len() / cols * padded];
    for (out, x) in out.chunks_exact_mut(padded).zip(x.chunks_exact(cols)) {
        out[..cols].copy_from_slice(x);
    }
    Cow::Owned(out)
}

/// Cuts each of `columns` into pieces of `length` and gathers the pieces that lie side by side.
pub(super) fn cut(columns: Vec<&mut [f32]>, length: usize) -> Vec<Vec<&mut [f32]>> {
    let pieces = columns.first().map_or(0, |column| column.len().div_ceil(length));
    let mut tasks: Vec<Vec<_>> = (0..pieces).map(|_| Vec::with_capacity(columns.len())).collect();
    for column in columns {
        for (task, piece) in tasks.iter_mut().zip(column.chunks_mut(length)) {
            task.push(piece);
        }
    }
    tasks
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
