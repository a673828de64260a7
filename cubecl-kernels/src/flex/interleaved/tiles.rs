//! Products of many rows in tiles of bfloat16, for processors that multiply those.
//!
//! A group of pairs is sixteen rows of weights as the instruction wants them; weights of any format are unpacked
//! to it once for all rows of activations. Rounded to bfloat16, both operands keep more of the product than
//! activations of eight bits do.

use std::cell::RefCell;

use super::layout::Interleaved;
use super::pairs::with_pairs;
use super::product::store;
use crate::flex::pool;
use crate::flex::simd::{LANES, Level, Sums, Tile, Tiles, scatter};
use crate::formats::Format;

/// Columns of a tile.
const COLS: usize = 2 * LANES;

/// The products of `m` rows with weights of a format, `None` where the processor has no such or they do not pay:
/// weights that lie as pairs already, or almost, pay from a few rows on.
pub(super) fn multiplier(level: Level, format: Format, m: usize) -> Option<Tiles> {
    let least = if format == Format::BF16 { 5 } else { 32 };
    level.tiles().filter(|_| m >= least)
}

/// Tiles of a row that are multiplied before the next: those of a task's groups stay in the second-level cache.
const CHUNK: usize = 64;

thread_local! {
    /// Kept from call to call, as what is unpacked is.
    static SUMS: RefCell<Vec<Sums>> = const { RefCell::new(Vec::new()) };
}

/// All rows of `x` in blocks of sixteen, the last filled up with zeros.
pub(super) struct Activations {
    proof: Tiles,
    /// `[blocks, cols / COLS]`
    tiles: Vec<Tile>,
}

impl Activations {
    /// `None` where [`multiplier`] says so.
    ///
    /// # Shapes
    /// x `[m, cols]`, `cols` those of `matrix`.
    pub(super) fn new(level: Level, matrix: &Interleaved, x: &[f32], m: usize) -> Option<Self> {
        let (proof, rounding) = (multiplier(level, matrix.format, m)?, level.bf16()?);
        let (cols, length) = (matrix.cols(), matrix.cols() / COLS);
        let mut tiles = vec![Tile([[0; LANES]; LANES]); m.div_ceil(LANES) * length];
        let mut blocks: Vec<_> = tiles.chunks_exact_mut(length).zip(x.chunks(LANES * cols)).collect();
        pool::for_each(&mut blocks, |_, (block, rows)| {
            let mut rounded = vec![[0; LANES]; rows.len() / COLS];
            rounding.round(rows, 1.0, &mut rounded);
            scatter(&rounded, length, block);
        });
        Some(Self { proof, tiles })
    }

    /// Writes the products with as many groups from the `first` as `out` has rows for.
    pub(super) fn multiply(&self, level: Level, matrix: &Interleaved, first: usize, out: &mut [&mut [f32]]) {
        let rows = out.first().map_or(0, |out| out.len());
        with_pairs(level, matrix, first, rows, |groups| {
            let groups: Vec<&[Tile]> = groups.iter().map(|group| bytemuck::cast_slice(group)).collect();
            SUMS.with_borrow_mut(|sums| self.multiply_groups(matrix.cols() / COLS, &groups, sums, out));
        });
    }

    /// Blocks and groups go two by two, the last with itself where it is alone.
    fn multiply_groups(&self, length: usize, groups: &[&[Tile]], sums: &mut Vec<Sums>, out: &mut [&mut [f32]]) {
        let thread = self.proof.configure();
        let needed = self.tiles.len().div_ceil(2 * length) * groups.len().div_ceil(2);
        if sums.len() < needed {
            sums.resize(needed, Sums([[[0.0; LANES]; LANES]; 4]));
        }
        for start in (0..length).step_by(CHUNK) {
            let chunk = start..length.min(start + CHUNK);
            let mut sums = sums.iter_mut();
            for (x, out) in self.tiles.chunks(2 * length).zip(out.chunks_mut(2 * LANES)) {
                let x = [&x[..length][chunk.clone()], &x[x.len() - length..][chunk.clone()]];
                for ((i, pair), sums) in groups.chunks(2).enumerate().zip(&mut sums) {
                    let weights = [pair[0], pair[pair.len() - 1]].map(|group| &group[chunk.clone()]);
                    thread.product(weights, x, start > 0, sums);
                    if chunk.end == length {
                        let (upper, lower) = out.split_at_mut(LANES.min(out.len()));
                        for j in 0..pair.len() {
                            let row = (2 * i + j) * LANES;
                            store(upper, row, &sums.0[j]);
                            store(lower, row, &sums.0[2 + j]);
                        }
                    }
                }
            }
        }
    }
}
