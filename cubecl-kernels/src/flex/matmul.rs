//! Products with many rows of `x`: tiles of the matrix are unpacked to the cache and multiplied
//! there.

use rayon::prelude::*;

use super::linear::{Matrix, cut};
use super::product::{Product, TILE_ROWS, transpose_rows};
use super::simd::{Kernel, LANES, Level, Simd, Unit};
use super::unpack::{store, with_block};

/// Rows of the matrix in a task.
const TASK_ROWS: usize = 16 * TILE_ROWS;

/// Columns that are unpacked at a time; a multiple of every block's length. With [`TASK_ROWS`]
/// rows it fits the second-level cache beside the part of `x` that it meets.
const DEPTH: usize = 512;

/// Vectors across a panel of `x`: the unit in which it is kept, one register tile wide.
const PANEL_UNITS: usize = 4;

/// Writes `columns[i][r] = x[i] · matrix[r]`.
pub(super) fn matmul(level: Level, matrix: Matrix<'_>, x: &[f32], columns: Vec<&mut [f32]>) {
    let m = columns.len();
    let rows = columns.first().map_or(0, |column| column.len());
    let panels = pack(level, x, matrix.cols, m);
    // Fewer rows to a task when there would not be two for every thread.
    let share = rows.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(TILE_ROWS);
    let task_rows = share.min(TASK_ROWS);
    cut(columns, task_rows).into_par_iter().enumerate().for_each_init(Scratch::default, |scratch, (task, mut out)| {
        level.run(Task { matrix, first_row: task * task_rows, panels: &panels, out: &mut out, scratch });
    });
}

/// `x` with its rows as lanes: panels of up to `16 PANEL_UNITS` rows, each `[cols, units]` vectors.
struct Panels {
    panels: Vec<Vec<Unit>>,
    cols: usize,
}

/// Rows of `x` across a whole panel.
const PANEL_ROWS: usize = PANEL_UNITS * LANES;

fn pack(level: Level, x: &[f32], cols: usize, m: usize) -> Panels {
    let panel = |first: usize| {
        let rows = &x[first * cols..(first + PANEL_ROWS).min(m) * cols];
        level.run(Pack { rows, cols })
    };
    let firsts: Vec<usize> = (0..m).step_by(PANEL_ROWS).collect();
    Panels { panels: firsts.into_par_iter().map(panel).collect(), cols }
}

struct Pack<'a> {
    rows: &'a [f32],
    cols: usize,
}

impl Kernel for Pack<'_> {
    type Output = Vec<Unit>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<Unit> {
        let units = (self.rows.len() / self.cols).div_ceil(LANES);
        let mut panel = vec![[0.0; LANES]; self.cols * units];
        for (unit, rows) in self.rows.chunks(LANES * self.cols).enumerate() {
            transpose_rows(simd, &rows.chunks_exact(self.cols), self.cols, &mut panel[unit..], units);
        }
        panel
    }
}

/// A thread's working memory.
#[derive(Default)]
struct Scratch {
    /// Unpacked weights, `[rows, DEPTH]`.
    weights: Vec<Unit>,
    /// A whole row, for formats without a vector unpacking.
    row: Vec<f32>,
    /// Sums, for each panel `[rows, units]`.
    sums: Vec<Unit>,
}

/// A range of rows of the matrix.
struct Task<'a, 'b> {
    matrix: Matrix<'a>,
    first_row: usize,
    panels: &'a Panels,
    out: &'a mut [&'b mut [f32]],
    scratch: &'a mut Scratch,
}

impl Kernel for Task<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Scratch { weights, row, sums } = self.scratch;
        let rows = self.out.first().map_or(0, |out| out.len());
        let Panels { panels, cols } = self.panels;
        let total_units = self.out.len().div_ceil(LANES);
        sums.clear();
        sums.resize(rows * total_units, [0.0; LANES]);
        weights.resize(rows * DEPTH / LANES, [0.0; LANES]);
        for start in (0..*cols).step_by(DEPTH) {
            let depth = (cols - start).min(DEPTH);
            for (r, weights) in weights.chunks_exact_mut(DEPTH / LANES).enumerate() {
                unpack_part(simd, self.matrix, self.first_row + r, start, depth, weights, row);
            }
            let mut first_sum = 0;
            for panel in panels {
                let units = panel.len() / cols;
                let product = Product {
                    rows,
                    depth,
                    units,
                    a: weights.as_flattened(),
                    a_stride: DEPTH,
                    b: &panel[start * units..],
                    b_stride: units,
                };
                product.add_to(simd, &mut sums[first_sum..], units);
                first_sum += rows * units;
            }
        }
        let mut first_sum = 0;
        for (panel, out) in panels.iter().zip(self.out.chunks_mut(PANEL_ROWS)) {
            let units = panel.len() / cols;
            let sums = sums[first_sum..][..rows * units].as_flattened();
            for (lane, out) in out.iter_mut().enumerate() {
                for (out, sums) in out.iter_mut().zip(sums.chunks_exact(units * LANES)) {
                    *out = sums[lane];
                }
            }
            first_sum += rows * units;
        }
    }
}

/// Unpacks elements `start..start + depth` of a row; `start` is a multiple of [`DEPTH`].
#[inline(always)]
fn unpack_part<S: Simd>(
    simd: S,
    matrix: Matrix<'_>,
    row: usize,
    start: usize,
    depth: usize,
    out: &mut [Unit],
    scratch: &mut Vec<f32>,
) {
    let (len, bytes) = (matrix.format.block_len(), matrix.format.block_bytes());
    let part = &matrix.row(row)[start / len * bytes..(start + depth) / len * bytes];
    with_block!(matrix.format, B => store::<S, B>(simd, part, out), else {
        scratch.resize(depth, 0.0);
        matrix.format.dequantize(part, &mut scratch[..depth]);
        out.as_flattened_mut()[..depth].copy_from_slice(&scratch[..depth]);
    });
}
