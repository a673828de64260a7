//! The sums of a matrix-vector product in integers of eight bits: four products an instruction.
//!
//! Sixteen elements of x, as many as a run of weights, become bytes with a scale of their own in the
//! unit that multiplies them: a launch to do it once for all would take longer.

use cubecl::prelude::*;

use super::matvec::{Choice, MatvecPlan, Place, sums_squares};
use super::runs::{RUN, chunks_per_block, code_bits, has_min, run_codes, run_scale, run_start, zero};
use super::unpack::Planes;
use crate::formats::Format;

/// Adding this leaves a float's nearest integer in the low bits of its mantissa.
const ROUND: f32 = 12_582_912.0;
/// Largest magnitude of a byte.
const LARGEST: f32 = 127.0;
/// The least that a run of x is scaled by.
const TINY: f32 = 1e-30;

/// The signed code that stands for zero.
fn signed_zero(format: Format) -> i32 {
    if code_bits(format) == 8 { zero(format) as i32 - 128 } else { zero(format) as i32 }
}

/// Adds chunk `chunk` of the plane's rows to the sums, `[rows, m]`. `squares` take the squares of x, or
/// without a norm its elements: bytes would not show that one is not finite.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn step_sums_int8<N: Size>(
    x: &[Vector<f32, N>],
    vectors: &[Vector<u32, N>],
    words: &[u32],
    norm_weight: &[Vector<f32, N>],
    planes: &Planes,
    place: &Place,
    sums: &mut Array<f32>,
    squares: &mut Array<f32>,
    #[comptime] plan: MatvecPlan,
) {
    let per_block = comptime!(chunks_per_block(plan.format));
    let (chunk, within) = (place.chunk, place.chunk % per_block);
    #[unroll]
    for half in 0..comptime!(plan.runs()) {
        // Weights of all rows first, so that their loads are in flight together.
        let mut codes = Array::<i32>::new(comptime!((plan.rows * 4) as usize));
        let mut scales = Array::<f32>::new(comptime!(plan.rows as usize));
        let mut mins = Array::<f32>::new(comptime!(plan.rows as usize));
        #[unroll]
        for r in 0..comptime!(plan.rows) {
            let row = place.row(r, plan);
            let block = row * comptime!(plan.chunks / chunks_per_block(plan.format)) + chunk / per_block;
            let mut run = Array::<u32>::new(4usize);
            run_codes(vectors, words, planes, block, within, half, &mut run, plan.format);
            #[unroll]
            for i in 0..4u32 {
                let mut word = run[i as usize];
                if comptime!(code_bits(plan.format) == 8) {
                    word ^= 0x8080_8080;
                }
                codes[comptime!((r * 4 + i) as usize)] = i32::reinterpret(word);
            }
            let (scale, min) = run_scale(words, planes, block, within, half, plan.format, plan.native_half);
            scales[r as usize] = scale;
            mins[r as usize] = min;
        }
        let start = (chunk / per_block) * comptime!(plan.format.block_len() as u32 / 4)
            + run_start(within, half, plan.format) / 4;
        #[unroll]
        for c in 0..comptime!(plan.m) {
            let mut raw = Array::<f32>::new(comptime!(RUN as usize));
            let mut values = Array::<f32>::new(comptime!(RUN as usize));
            let mut largest = 0.0f32;
            #[unroll]
            for i in 0..comptime!(RUN / 4) {
                let mut v = x[(place.x_base + c * comptime!(plan.x_row()) + start + i) as usize];
                if comptime!(matches!(plan.choice, Choice::Sum { .. })) {
                    v *= Vector::new(place.factor);
                }
                #[unroll]
                for j in 0..4usize {
                    raw[comptime!(i as usize * 4 + j)] = v.extract(j);
                }
                if comptime!(plan.norm) {
                    v *= norm_weight[(start + i) as usize];
                }
                #[unroll]
                for j in 0..4usize {
                    let element = v.extract(j);
                    values[comptime!(i as usize * 4 + j)] = element;
                    largest = max(largest, f32::abs(element));
                }
            }
            if comptime!(!plan.norm) {
                #[unroll]
                for k in 0..RUN {
                    squares[c as usize] += raw[k as usize];
                }
            } else if sums_squares(plan) {
                #[unroll]
                for k in 0..RUN {
                    squares[c as usize] += raw[k as usize] * raw[k as usize];
                }
            }
            // Nearly 127 over the largest, without a division's many instructions.
            let root = f32::inverse_sqrt(max(largest, TINY));
            let inverse = LARGEST * root * root;
            let scale = largest * (1.0f32 / LARGEST);
            let mut bytes = Array::<i32>::new(4usize);
            let mut total = 0i32;
            #[unroll]
            for i in 0..4u32 {
                let mut word = 0u32;
                #[unroll]
                for j in 0..4u32 {
                    let rounded = u32::reinterpret(values[comptime!((i * 4 + j) as usize)] * inverse + ROUND);
                    word |= (rounded & 0xff) << comptime!(8 * j);
                }
                bytes[i as usize] = i32::reinterpret(word);
                if comptime!(signed_zero(plan.format) != 0 || has_min(plan.format)) {
                    total = dp4a(bytes[i as usize], 0x0101_0101i32, total);
                }
            }
            #[unroll]
            for r in 0..comptime!(plan.rows) {
                let mut dot = total * comptime!(-signed_zero(plan.format));
                #[unroll]
                for i in 0..4u32 {
                    dot = dp4a(codes[comptime!((r * 4 + i) as usize)], bytes[i as usize], dot);
                }
                let mut sum = scales[r as usize] * f32::cast_from(dot);
                if comptime!(has_min(plan.format)) {
                    sum -= mins[r as usize] * f32::cast_from(total);
                }
                let at = comptime!((r * plan.m + c) as usize);
                sums[at] += scale * sum;
            }
        }
    }
}
