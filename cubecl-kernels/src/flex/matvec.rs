//! Products with a few rows of `x`: each weight is read once and unpacked in registers.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::linear::{Matrix, cut};
use super::simd::{Kernel, Level, Simd, Unit};
use super::unpack::{Block, F32, Sink, blocks, with_block};

/// Weights per task: enough to outweigh the start of a task.
const TASK_WEIGHTS: usize = 1 << 17;

/// Writes `columns[i][r] = x[i] · matrix[r]`; a row of `x` is `units` vectors long, a whole number
/// of blocks.
pub(super) fn matvec(level: Level, matrix: Matrix<'_>, x: &[Unit], units: usize, columns: Vec<&mut [f32]>) {
    let rows = columns.first().map_or(0, |column| column.len());
    let x = &*level.run(Interleave { x, units, count: columns.len() });
    // Four tasks for every thread let a fast one take work from a slow one.
    let task_rows = rows.div_ceil(4 * rayon::current_num_threads()).max(TASK_WEIGHTS.div_ceil(matrix.cols.max(1)));
    let run = |task: usize, out: &mut [&mut [f32]]| {
        level.run(Task { matrix, first_row: task * task_rows, x, units, out });
    };
    let mut tasks = cut(columns, task_rows);
    match &mut tasks[..] {
        [only] => run(0, only),
        tasks => tasks.par_iter_mut().enumerate().for_each(|(task, out)| run(task, out)),
    }
}

/// How many of `left` rows of `x` are multiplied at a time: as many as sums fit the registers.
#[inline(always)]
fn at_once<S: Simd>(left: usize) -> usize {
    match left {
        8.. if S::TILE_UNITS >= 4 => 8,
        4.. => 4,
        left => left,
    }
}

/// Lays the rows of `x` that are multiplied together side by side, vector by vector: rows whose
/// length is a power of two would otherwise compete for the same places of the cache.
struct Interleave<'a> {
    x: &'a [Unit],
    units: usize,
    count: usize,
}

impl<'a> Kernel for Interleave<'a> {
    type Output = Cow<'a, [Unit]>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Cow<'a, [Unit]> {
        if self.count == 1 {
            return Cow::Borrowed(self.x);
        }
        let mut out = Vec::with_capacity(self.x.len());
        let mut first = 0;
        while first < self.count {
            let n = at_once::<S>(self.count - first);
            let rows = &self.x[first * self.units..][..n * self.units];
            out.extend((0..self.units).flat_map(|unit| (0..n).map(move |i| rows[i * self.units + unit])));
            first += n;
        }
        Cow::Owned(out)
    }
}

/// Rows that stay in the cache while they meet one group of `x`'s rows after the other.
const TILE_ROWS: usize = 32;

/// A range of rows.
struct Task<'a, 'b> {
    matrix: Matrix<'a>,
    first_row: usize,
    /// As [`Interleave`] lays it.
    x: &'a [Unit],
    units: usize,
    out: &'a mut [&'b mut [f32]],
}

impl Kernel for Task<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { matrix, first_row, x, units, out } = self;
        let rows = out.first().map_or(0, |out| out.len());
        for start in (0..rows).step_by(TILE_ROWS) {
            let tile = start..rows.min(start + TILE_ROWS);
            let weights = matrix.rows(first_row + tile.start, tile.len());
            with_block!(matrix.format, B => {
                let tile = Tile { weights, row_bytes: matrix.row_bytes, x, units, rows: tile };
                tile.columns::<S, B>(simd, out);
            }, else {
                let mut unpacked = vec![0.0; tile.len() * matrix.cols];
                matrix.format.dequantize(weights, &mut unpacked);
                let weights = bytemuck::cast_slice(&unpacked);
                let tile = Tile { weights, row_bytes: size_of::<f32>() * matrix.cols, x, units, rows: tile };
                tile.columns::<S, F32>(simd, out);
            });
        }
    }
}

/// Some rows of a task.
struct Tile<'a> {
    /// The stored rows.
    weights: &'a [u8],
    row_bytes: usize,
    x: &'a [Unit],
    units: usize,
    /// Their places in the output.
    rows: Range<usize>,
}

impl Tile<'_> {
    /// The products with every row of `x`.
    #[inline(always)]
    fn columns<S: Simd, B: Block>(&self, simd: S, out: &mut [&mut [f32]]) {
        let mut done = 0;
        while done < out.len() {
            done += match at_once::<S>(out.len() - done) {
                8 => self.dots::<S, B, 8, 1, false>(simd, done, out),
                4 => self.dots::<S, B, 4, 1, false>(simd, done, out),
                3 => self.dots::<S, B, 3, 1, false>(simd, done, out),
                2 => self.dots::<S, B, 2, 1, true>(simd, done, out),
                _ => self.dots::<S, B, 1, 2, true>(simd, done, out),
            };
        }
    }

    /// The products with `M` rows of `x` from the `first`; returns `M`. Each is summed in `CHAINS`
    /// interleaved chains, twice as many if `ODD`, so that additions overlap.
    #[inline(always)]
    fn dots<S: Simd, B: Block, const M: usize, const CHAINS: usize, const ODD: bool>(
        &self,
        simd: S,
        first: usize,
        out: &mut [&mut [f32]],
    ) -> usize {
        let x = self.x[first * self.units..][..M * self.units].as_chunks::<M>().0;
        for (row, weights) in self.rows.clone().zip(self.weights.chunks_exact(self.row_bytes)) {
            let sums = dot::<S, B, M, CHAINS, ODD>(simd, weights, x);
            for (out, sum) in out[first..].iter_mut().zip(sums) {
                out[row] = sum;
            }
        }
        M
    }
}

/// The products of one row's weights with `M` rows of `x`.
#[inline(always)]
fn dot<S: Simd, B: Block, const M: usize, const CHAINS: usize, const ODD: bool>(
    simd: S,
    weights: &[u8],
    x: &[[Unit; M]],
) -> [f32; M] {
    let (whole, tail) = blocks::<B>(weights);
    let mut even = Dot::<S, M, CHAINS>::new(simd);
    let mut odd = Dot::<S, M, CHAINS>::new(simd);
    let (pairs, single) = whole.as_chunks::<2>();
    for (i, [first, second]) in pairs.iter().enumerate() {
        even.seek::<B>(x, 2 * i);
        first.unpack(simd, &mut even);
        if ODD {
            odd.seek::<B>(x, 2 * i + 1);
            second.unpack(simd, &mut odd);
        } else {
            even.seek::<B>(x, 2 * i + 1);
            second.unpack(simd, &mut even);
        }
    }
    for (i, block) in single.iter().chain(&tail).enumerate() {
        even.seek::<B>(x, 2 * pairs.len() + i);
        block.unpack(simd, &mut even);
    }
    let mut totals = [0.0; M];
    for (i, total) in totals.iter_mut().enumerate() {
        let mut sum = even.sums[i][0];
        for chain in 0..CHAINS {
            if chain > 0 {
                sum = simd.add(sum, even.sums[i][chain]);
            }
            if ODD {
                sum = simd.add(sum, odd.sums[i][chain]);
            }
        }
        *total = simd.sum(sum);
    }
    totals
}

/// Sums of a row's products with `M` rows of `x`.
struct Dot<'a, S: Simd, const M: usize, const CHAINS: usize> {
    /// What the block at hand meets of `x`.
    x: &'a [[Unit; M]],
    sums: [[S::F; CHAINS]; M],
}

impl<'a, S: Simd, const M: usize, const CHAINS: usize> Dot<'a, S, M, CHAINS> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self { x: &[], sums: [[simd.splat(0.0); CHAINS]; M] }
    }

    #[inline(always)]
    fn seek<B: Block>(&mut self, x: &'a [[Unit; M]], block: usize) {
        self.x = &x[block * B::UNITS..][..B::UNITS];
    }
}

impl<S: Simd, const M: usize, const CHAINS: usize> Sink<S> for Dot<'_, S, M, CHAINS> {
    #[inline(always)]
    fn put<const CHAIN: usize>(&mut self, simd: S, unit: usize, weights: S::F) {
        for (sums, x) in self.sums.iter_mut().zip(&self.x[unit]) {
            let sum = &mut sums[CHAIN % CHAINS];
            *sum = simd.fma(weights, simd.load(x), *sum);
        }
    }
}
