//! Attention of many queries in tiles of bfloat16, for processors that multiply those: queries, keys, exponentials
//! and values are rounded to it, as flash attention on tensor cores does, scores and sums are float32.

use super::{KEY_UNITS, KEYS, Part, Task};
use crate::flex::kv_cache::Head;
use crate::flex::simd::{Bf16, Dots, Kernel, LANES, Level, Sums, Tile, Tiles, Words, scatter};

/// Columns of a tile of activations: dimensions of queries, keys of exponentials.
const COLS: usize = 2 * LANES;
/// Tiles of a query's exponentials.
const KEY_TILES: usize = KEYS / COLS;
/// Fewest queries that fill tiles.
const LEAST_QUERIES: usize = LANES;

const ZEROS: Tile = Tile([[0; LANES]; LANES]);

/// Proof that the processor multiplies tiles and rounds to them.
#[derive(Clone, Copy)]
pub(super) struct Proof {
    tiles: Tiles,
    rounding: Bf16,
}

impl Proof {
    /// The proof, if it does, and heads like `keys` fill tiles and have no float32 that would be rounded.
    pub(super) fn new(level: Level, keys: Head<'_>, head_dim: usize) -> Option<Self> {
        let fits = head_dim.is_multiple_of(COLS) && !matches!(keys, Head::F32(_));
        Some(Self { tiles: level.tiles().filter(|_| fits)?, rounding: level.bf16()? })
    }

    /// The task's attention.
    pub(super) fn attend(self, level: Level, task: Task<'_>) -> Part {
        if task.queries() < LEAST_QUERIES { level.run(task) } else { level.run(TileTask { task, proof: self }) }
    }
}

/// A task with enough queries.
struct TileTask<'a> {
    task: Task<'a>,
    proof: Proof,
}

impl Kernel for TileTask<'_> {
    type Output = Part;

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) -> Part {
        let Self { task, proof: Proof { tiles, rounding } } = self;
        let d = task.spec.head_dim;
        let (count, units, steps) = (task.queries(), d / LANES, d / COLS);
        let pairs = count.div_ceil(2 * LANES); // of blocks of sixteen queries
        let mut part = Part::new(count, units);
        let mut words = vec![[0; LANES]; count.max(KEYS) * steps.max(KEY_TILES)];
        let mut scratch = Vec::new();

        rounding.round(&task.scaled_queries(), 1.0, &mut words[..count * steps]);
        let mut queries = vec![ZEROS; 2 * pairs * steps]; // [blocks, head_dim / COLS] of [queries, dimensions]
        scatter(&words[..count * steps], steps, &mut queries);
        let mut keys = vec![ZEROS; KEYS / LANES * steps]; // [KEYS / LANES, head_dim / COLS] of [dimensions, keys]
        let mut scores = vec![[0.0; LANES]; count * KEY_UNITS]; // [queries, KEYS]
        let mut exponentials = vec![ZEROS; 2 * pairs * KEY_TILES]; // [blocks, KEYS / COLS] of [queries, keys]
        let mut values = vec![ZEROS; units * KEY_TILES]; // [head_dim / LANES, KEYS / COLS] of [keys, dimensions]
        let mut sums = Sums([[[0.0; LANES]; LANES]; 4]);
        let thread = tiles.configure();

        for start in (task.start..task.end).step_by(KEYS) {
            let n = (task.end - start).min(KEYS);
            let tile = task.keys.rows(simd, start..start + n, d, &mut scratch);
            rounding.round(tile, 1.0, &mut words[..n * steps]);
            transpose(simd, &words[..n * steps], steps, &mut keys);
            for (pair, x) in queries.chunks_exact(2 * steps).enumerate() {
                for (i, weights) in keys.chunks_exact(2 * steps).enumerate().take(n.div_ceil(COLS)) {
                    thread.product(halves(weights), halves(x), false, &mut sums);
                    for (query, row) in (2 * LANES * pair..count).zip(0..2 * LANES) {
                        let scores = &mut scores[query * KEY_UNITS + 2 * i..][..2];
                        scores[0] = sums.0[row / LANES * 2][row % LANES];
                        scores[1] = sums.0[row / LANES * 2 + 1][row % LANES];
                    }
                }
            }
            task.softmax(simd, start, n, &mut scores, &mut part);

            rounding.round(scores.as_flattened(), 1.0, &mut words[..count * KEY_TILES]);
            scatter(&words[..count * KEY_TILES], KEY_TILES, &mut exponentials);
            pair_rows(simd, task.values.rows(simd, start..start + n, d, &mut scratch), d, &mut values);
            for (pair, x) in exponentials.chunks_exact(2 * KEY_TILES).enumerate() {
                for (i, weights) in values.chunks_exact(2 * KEY_TILES).enumerate() {
                    thread.product(halves(weights), halves(x), false, &mut sums);
                    for (query, row) in (2 * LANES * pair..count).zip(0..2 * LANES) {
                        let out = &mut part.values[query * units + 2 * i..][..2];
                        for (out, sums) in out.iter_mut().zip(&sums.0[row / LANES * 2..]) {
                            simd.store(simd.add(simd.load(out), simd.load(&sums[row % LANES])), out);
                        }
                    }
                }
            }
        }
        part
    }
}

fn halves(tiles: &[Tile]) -> [&[Tile]; 2] {
    let (first, second) = tiles.split_at(tiles.len() / 2);
    [first, second]
}

/// Rows of words, `[rows, steps]`, as tiles with a row to a column, `[blocks, steps]`; zeros for missing rows.
#[inline(always)]
fn transpose<S: Dots>(simd: S, words: &[Words], steps: usize, tiles: &mut [Tile]) {
    let rows = words.len() / steps;
    for (at, tile) in tiles.iter_mut().enumerate() {
        let (first, step) = (at / steps * LANES, at % steps);
        let mut columns = [simd.splat(0.0); LANES];
        for (row, column) in (first..rows).zip(&mut columns) {
            *column = simd.bits_as_f32(simd.load_words(&words[row * steps + step]));
        }
        simd.transpose(&mut columns);
        for (column, to) in columns.iter().zip(&mut tile.0) {
            simd.store(*column, bytemuck::cast_mut(to));
        }
    }
}

/// Rows of `d` elements, two to a row of words, as tiles `[d / LANES, KEYS / COLS]`; zeros for missing rows.
#[inline(always)]
fn pair_rows<S: Dots>(simd: S, rows: &[f32], d: usize, tiles: &mut [Tile]) {
    let unit = |row: usize, at: usize| rows.get(row * d + at..)?.first_chunk::<LANES>();
    for (i, tile) in tiles.iter_mut().enumerate() {
        let (at, first) = (i / KEY_TILES * LANES, i % KEY_TILES * COLS);
        for (pair, to) in tile.0.iter_mut().enumerate() {
            let [mut low, mut high] = [simd.splat(0.0); 2];
            if let Some(row) = unit(first + 2 * pair, at) {
                low = simd.load(row);
            }
            if let Some(row) = unit(first + 2 * pair + 1, at) {
                high = simd.load(row);
            }
            simd.store_pairs(low, high, to);
        }
    }
}
