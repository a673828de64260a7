//! Rows of a stored matrix in float32.

use std::ops::Range;

use rayon::prelude::*;

use super::linear::Matrix;
use super::simd::{Kernel, LANES, Level, Simd, Unit};
use super::unpack::{block_len, store, with_block};
use crate::formats::Format;

/// Writes rows `rows` of a matrix of `cols` columns to `out`, `[rows, cols]`.
pub(crate) fn dequantize_rows(format: Format, weight: &[u8], cols: usize, rows: Range<usize>, out: &mut [f32]) {
    let matrix = Matrix::new(format, weight, rows.end, cols);
    write_rows(Level::best(), matrix, out, |i| rows.start + i);
}

/// Writes rows `tokens` of a `[rows, cols]` matrix to `out`, `[tokens, cols]`; a token that is no
/// row becomes zeros.
pub(crate) fn gather(format: Format, weight: &[u8], rows: usize, cols: usize, tokens: &[i32], out: &mut [f32]) {
    let matrix = Matrix::new(format, weight, rows, cols);
    write_rows(Level::best(), matrix, out, |i| usize::try_from(tokens[i]).unwrap_or(usize::MAX));
}

fn write_rows(level: Level, matrix: Matrix<'_>, out: &mut [f32], row: impl Fn(usize) -> usize + Sync) {
    let write = |(i, out): (usize, &mut [f32])| match matrix.get_row(row(i)) {
        Some(row) => level.run(WriteRow { format: matrix.format, row, out }),
        None => out.fill(0.0),
    };
    // A thread's start costs as much as some thousand elements.
    if out.len() < 1 << 15 {
        out.chunks_exact_mut(matrix.cols).enumerate().for_each(write);
    } else {
        out.par_chunks_exact_mut(matrix.cols)
            .with_min_len((1usize << 14).div_ceil(matrix.cols))
            .enumerate()
            .for_each(write);
    }
}

struct WriteRow<'a> {
    format: Format,
    row: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for WriteRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !self.out.len().is_multiple_of(block_len(self.format)) {
            return self.format.dequantize(self.row, self.out);
        }
        let out: &mut [Unit] = self.out.as_chunks_mut::<LANES>().0;
        with_block!(self.format, B => store::<S, B>(simd, self.row, out),
            else self.format.dequantize(self.row, out.as_flattened_mut()));
    }
}

#[cfg(test)]
mod tests {
    use super::{dequantize_rows, gather};
    use crate::flex::test_data::{Random, random_blocks};
    use crate::formats::Format;

    #[test]
    fn rows_equal_the_reference() {
        let mut random = Random::new(12);
        for format in Format::ALL {
            let (rows, cols) = (90, if format.is_float() { 411 } else { 768 });
            let weight = random_blocks(&mut random, format, rows * cols);
            let mut expected = vec![0.0; rows * cols];
            format.dequantize(&weight, &mut expected);

            let mut found = vec![f32::NAN; 80 * cols];
            dequantize_rows(format, &weight, cols, 5..85, &mut found);
            assert!(found == expected[5 * cols..85 * cols], "{format}");

            let tokens = [7, 0, 89, 7, -1, 90];
            let mut found = vec![f32::NAN; tokens.len() * cols];
            gather(format, &weight, rows, cols, &tokens, &mut found);
            for (token, found) in tokens.iter().zip(found.chunks_exact(cols)) {
                match usize::try_from(*token) {
                    Ok(row) if row < rows => assert!(found == &expected[row * cols..][..cols], "{format} {token}"),
                    _ => assert!(found.iter().all(|v| *v == 0.0), "{format} {token}"),
                }
            }
        }
    }
}
