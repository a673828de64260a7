//! Tiles of x and of the weights on their way into shared memory.

use cubecl::prelude::*;

use super::plan::{GemmPlan, PIECE};
use crate::cube::runs::{code_float, code_offset, load_run, run_codes, run_of, run_scale, run_words, zero};
use crate::cube::unpack::{Planes, groups_per_block, unpack1, unpack8};

/// Row of the tile, of `rows` rows, and part of that row of piece `p`, of `piece` vectors, of a unit. Where
/// there are fewer pieces than units, some units bring the last one too.
#[cube]
pub(super) fn row_and_part(
    p: u32,
    unit: u32,
    #[comptime] rows: u32,
    #[comptime] piece: u32,
    #[comptime] plan: GemmPlan,
) -> (u32, u32) {
    let mut index = p * comptime!(plan.units()) + unit;
    let parts = comptime!(plan.depth / (piece * plan.vector));
    let last = comptime!(rows * parts - 1);
    if comptime!(!(last + 1).is_multiple_of(plan.units())) {
        index = select(index < last, index, last);
    }
    (index / parts, index % parts)
}

/// Puts pieces where their tile begins, `to`.
#[cube]
pub(super) fn keep<E: Float, N: Size>(
    held: &Array<Vector<E, N>>,
    tile: &mut Shared<[Vector<E, N>]>,
    to: u32,
    unit: u32,
    #[comptime] rows: u32,
    #[comptime] plan: GemmPlan,
) {
    #[unroll]
    for p in 0..comptime!(plan.pieces(rows, plan.piece())) {
        let (row, part) = row_and_part(p, unit, rows, comptime!(plan.piece()), plan);
        let at = to + row * comptime!(plan.row()) + part * comptime!(plan.piece());
        #[unroll]
        for j in 0..comptime!(plan.piece()) {
            tile[(at + j) as usize] = held[comptime!((p * plan.piece() + j) as usize)];
        }
    }
}

/// Sixteen elements of a row of floats, from column `k` on: those of `source` from vector `base`.
#[cube]
pub(super) fn fetch_floats<E: Float, N: Size>(
    source: &[Vector<E, N>],
    base: u32,
    k: u32,
    held: &mut Array<Vector<E, N>>,
    #[comptime] at: u32,
    #[comptime] plan: GemmPlan,
) {
    #[unroll]
    for j in 0..comptime!(plan.piece()) {
        let to = comptime!((at + j) as usize);
        let index = (base + k / plan.vector + j) as usize;
        if comptime!(plan.cols % plan.depth == 0) {
            held[to] = source[index];
        } else {
            held[to] = Vector::new(E::from_int(0));
            if k + comptime!(j * plan.vector) < plan.cols {
                held[to] = source[index];
            }
        }
    }
}

/// Sixteen elements of weight row `row` from column `k` on, in the type of the tiles.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn fetch_weights<E: Float, N: Size, W: Size>(
    floats: &[Vector<E, N>],
    vectors: &[Vector<u32, W>],
    words: &[u32],
    planes: &Planes,
    exponent: u32,
    row: u32,
    k: u32,
    held: &mut Array<Vector<E, N>>,
    #[comptime] at: u32,
    #[comptime] plan: GemmPlan,
) {
    if comptime!(plan.same_type) {
        fetch_floats(floats, row * comptime!(plan.cols / plan.vector), k, held, at, plan);
    } else {
        let mut values = Array::<f32>::new(comptime!(PIECE as usize));
        if comptime!(plan.format.is_float()) {
            unpack_floats(words, planes, row, k, &mut values, plan);
        } else if comptime!(plan.cols % plan.depth == 0) {
            unpack_run(vectors, words, planes, exponent, row, k, &mut values, plan);
        } else {
            #[unroll]
            for j in 0..PIECE {
                values[j as usize] = 0.0f32;
            }
            if k < plan.cols {
                unpack_run(vectors, words, planes, exponent, row, k, &mut values, plan);
            }
        }
        #[unroll]
        for j in 0..comptime!(plan.piece()) {
            let mut vector = Vector::<E, N>::empty();
            #[unroll]
            for i in 0..plan.vector {
                vector.insert(comptime!(i as usize), E::cast_from(values[comptime!((j * plan.vector + i) as usize)]));
            }
            held[comptime!((at + j) as usize)] = vector;
        }
    }
}

/// A run of a packed format.
#[cube]
#[allow(clippy::too_many_arguments)]
fn unpack_run<W: Size>(
    vectors: &[Vector<u32, W>],
    words: &[u32],
    planes: &Planes,
    exponent: u32,
    row: u32,
    k: u32,
    values: &mut Array<f32>,
    #[comptime] plan: GemmPlan,
) {
    let length = comptime!(plan.format.block_len() as u32);
    let block = row * comptime!(plan.cols / length) + k / length;
    let (chunk, run) = run_of(k % length / PIECE, plan.format);
    let mut raw = Array::<u32>::new(comptime!(run_words(plan.format) as usize));
    load_run(vectors, words, planes, block, chunk, run, &mut raw, 0u32, plan.format);
    let mut codes = Array::<u32>::new(4usize);
    run_codes(&raw, chunk, run, &mut codes, 0u32, plan.format);
    let (scale, min) = run_scale(&raw, block, chunk, run, 0u32, plan.format, plan.native_half);
    let shift = comptime!(code_offset(plan.format) + zero(plan.format) as f32);
    let least = -(scale * shift) - min;
    #[unroll]
    for i in 0..4u32 {
        #[unroll]
        for j in 0..4u32 {
            let code = code_float(codes[i as usize], exponent, j, plan.format);
            // Without tensor cores exact but for the last rounding; narrow types lose more than this.
            values[comptime!((i * 4 + j) as usize)] =
                if comptime!(plan.tensor_cores()) { scale * code + least } else { scale * (code - shift) - min };
        }
    }
}

/// Sixteen elements of a float format of another type than the tiles'.
#[cube]
fn unpack_floats(
    words: &[u32],
    planes: &Planes,
    row: u32,
    k: u32,
    values: &mut Array<f32>,
    #[comptime] plan: GemmPlan,
) {
    if comptime!(plan.cols % 8 == 0) {
        #[unroll]
        for half in 0..2u32 {
            let mut eight = Array::<f32>::new(8usize);
            #[unroll]
            for j in 0..8usize {
                eight[j] = 0.0f32;
            }
            if k + half * 8 < plan.cols {
                let group = row * comptime!(plan.cols / 8) + k / 8 + half;
                let per_block = comptime!(groups_per_block(plan.format));
                unpack8(words, planes, group / per_block, group % per_block, &mut eight, plan.format);
            }
            #[unroll]
            for j in 0..8u32 {
                values[comptime!((half * 8 + j) as usize)] = eight[j as usize];
            }
        }
    } else {
        #[unroll]
        for j in 0..PIECE {
            values[j as usize] = 0.0f32;
            if k + j < plan.cols {
                values[j as usize] = unpack1(words, row * plan.cols + k + j, plan.format);
            }
        }
    }
}
