//! Packed weights: a unit unpacks a chunk of each of its rows, and hands over four elements of a row at a time.

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

use super::{LANES, Plan, finish, rows_of, zero_sums};
use crate::cube::dependent::{begin_next, wait_for_launches};
use crate::cube::gemm::Pair;
use crate::cube::runs::{
    CHUNK, RUN, chunks_per_block, code_float, code_offset, has_min, load_run, run_codes, run_scale, run_start,
    run_words, zero,
};
use crate::cube::unpack::Planes;
use crate::formats::Format;

/// Steps whose weights are in flight.
pub(super) const AHEAD: u32 = 2;

/// Words that a chunk of a row is loaded as.
fn chunk_words(format: Format) -> u32 {
    CHUNK / RUN * run_words(format)
}

/// Asks for the chunks of two rows in the steps of a turn; steps past the last are the last again.
#[cube]
#[allow(clippy::too_many_arguments)]
fn load<W: Size>(
    vectors: &[Vector<u32, W>],
    words: &[u32],
    planes: &Planes,
    upper: u32,
    lower: u32,
    turn: u32,
    raw: &mut Array<u32>,
    #[comptime] plan: Plan,
) {
    let per_block = comptime!(chunks_per_block(plan.format));
    let row_blocks = comptime!(plan.cols / CHUNK / chunks_per_block(plan.format));
    #[unroll]
    for j in 0..AHEAD {
        let step = (turn * AHEAD + j) * plan.split + UNIT_POS_Y % plan.split;
        let chunk = min(step, comptime!(plan.steps() - 1)) * LANES + UNIT_POS_X % LANES;
        #[unroll]
        for half in 0..2u32 {
            let row = if comptime!(half == 0) { upper } else { lower };
            let block = row * row_blocks + chunk / per_block;
            #[unroll]
            for run in 0..comptime!(CHUNK / RUN) {
                let at = comptime!((j * 2 + half) * chunk_words(plan.format) + run * run_words(plan.format));
                load_run(vectors, words, planes, block, chunk % per_block, run, raw, at, plan.format);
            }
        }
    }
}

/// The elements of a run that was loaded from `at` on, sixteen in pairs.
#[cube]
fn unpacked<E: Float>(
    raw: &Array<u32>,
    block: u32,
    within: u32,
    run: u32,
    exponent: u32,
    #[comptime] at: u32,
    #[comptime] plan: Plan,
) -> Array<Vector<E, Pair>> {
    let mut codes = Array::<u32>::new(4usize);
    run_codes(raw, within, run, &mut codes, at, plan.format);
    let (scale, min) = run_scale(raw, block, within, run, at, plan.format, true);
    let mut lift = scale * comptime!(code_offset(plan.format) + zero(plan.format) as f32);
    if comptime!(has_min(plan.format)) {
        lift += min;
    }
    let mut pairs = Array::<Vector<E, Pair>>::new(8usize);
    #[unroll]
    for i in 0..8u32 {
        let mut pair = Vector::<f32, Pair>::empty();
        #[unroll]
        for j in 0..2u32 {
            let code = code_float(codes[comptime!((i / 2) as usize)], exponent, comptime!(i % 2 * 2 + j), plan.format);
            pair.insert(comptime!(j as usize), scale * code - lift);
        }
        pairs[i as usize] = Vector::cast_from(pair);
    }
    pairs
}

/// `vectors` and `words` are the same buffer.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn product<E: Float, X: Float, O: Float, V: Size, W: Size>(
    x: &[Vector<X, V>],
    vectors: &[Vector<u32, W>],
    words: &[u32],
    norm_weight: &[Vector<f32, W>],
    residual: &[f32],
    out: &mut [O],
    planes: Planes,
    exponent: u32,
    eps: f32,
    outputs: u32,
    stride: u32,
    offset: u32,
    #[comptime] plan: Plan,
    #[define(E)] _tile: ElemType,
    #[define(X)] _read: ElemType,
    #[define(O)] _written: ElemType,
) {
    begin_next();
    let (m, split) = comptime!((plan.m, plan.split));
    let lane = UNIT_POS_X;
    let per_block = comptime!(chunks_per_block(plan.format));
    let row_blocks = comptime!(plan.cols / CHUNK / chunks_per_block(plan.format));
    let (upper, lower) = rows_of(outputs, plan);
    let mut raw = Array::<u32>::new(comptime!((AHEAD * 2 * chunk_words(plan.format)) as usize));
    load(vectors, words, &planes, upper, lower, 0u32, &mut raw, plan);
    wait_for_launches();

    // Columns past the last are the last again, and not written.
    let column = min(lane / LANES, comptime!(m - 1)) * comptime!(plan.x_loads(plan.cols));
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let mut sums = zero_sums();
    let mut squares = 0.0f32;
    for turn in 0..comptime!(plan.turns(AHEAD)) {
        if turn > 0 {
            load(vectors, words, &planes, upper, lower, turn, &mut raw, plan);
        }
        #[unroll]
        for j in 0..AHEAD {
            let step = (turn * AHEAD + j) * split + UNIT_POS_Y % split;
            if step < comptime!(plan.steps()) {
                let chunk = step * LANES + lane % LANES;
                let within = chunk % per_block;
                let block = chunk / per_block;
                #[unroll]
                for run in 0..comptime!(CHUNK / RUN) {
                    let start = block * comptime!(plan.format.block_len() as u32) + run_start(within, run, plan.format);
                    let mut own = Array::<Vector<E, Pair>>::new(8usize);
                    #[unroll]
                    for i in 0..comptime!(plan.x_loads(RUN)) {
                        let at = start / plan.x_vector + i;
                        let mut part = x[(column + at) as usize];
                        if comptime!(plan.norm) {
                            let weight = norm_weight[at as usize];
                            #[unroll]
                            for e in 0..plan.x_vector {
                                let at = comptime!(e as usize);
                                let element = f32::cast_from(part.extract(at));
                                squares += element * element;
                                part.insert(at, X::cast_from(element * weight.extract(at)));
                            }
                        }
                        #[unroll]
                        for e in 0..comptime!(plan.x_vector / 2) {
                            let mut pair = Vector::<X, Pair>::empty();
                            pair.insert(0usize, part.extract(comptime!((2 * e) as usize)));
                            pair.insert(1usize, part.extract(comptime!((2 * e + 1) as usize)));
                            own[comptime!((i * plan.x_vector / 2 + e) as usize)] = Vector::cast_from(pair);
                        }
                    }
                    let at = comptime!(j * 2 * chunk_words(plan.format) + run * run_words(plan.format));
                    let above = unpacked::<E>(&raw, upper * row_blocks + block, within, run, exponent, at, plan);
                    let at = comptime!((j * 2 + 1) * chunk_words(plan.format) + run * run_words(plan.format));
                    let below = unpacked::<E>(&raw, lower * row_blocks + block, within, run, exponent, at, plan);
                    #[unroll]
                    for four in 0..4u32 {
                        let mut a = Array::<Vector<E, Pair>>::new(4usize);
                        let mut b = Array::<Vector<E, Pair>>::new(2usize);
                        #[unroll]
                        for i in 0..2u32 {
                            let pair = comptime!((2 * four + i) as usize);
                            a[comptime!((2 * i) as usize)] = above[pair];
                            a[comptime!((2 * i + 1) as usize)] = below[pair];
                            b[i as usize] = own[pair];
                        }
                        definition.execute_inplace(&a, &b, &mut sums);
                    }
                }
            }
        }
    }
    finish(&sums, squares, residual, out, eps, outputs, stride, offset, plan);
}
