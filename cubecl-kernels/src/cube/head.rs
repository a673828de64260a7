//! Heads spread over a few units each: norm and rotary embedding without shared memory.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dims;
use crate::ops::kv_cache::is_q8;
use crate::ops::{RopePairing, RopeSpec};

/// How a head lies over the units that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HeadPlan {
    /// Elements of a head.
    pub(super) d: u32,
    /// Leading elements that are rotated.
    pub(super) rotary: u32,
    pub(super) pairing: RopePairing,
    pub(super) norm: bool,
    /// Elements that lie side by side in a unit: those of a cache load.
    pub(super) width: u32,
    /// Units that hold a head.
    pub(super) lanes: u32,
}

impl HeadPlan {
    /// For heads whose keys and values lie in caches like `cache`.
    pub(super) fn new(head_dim: usize, rotary: usize, rope: &RopeSpec, cache: &CubeTensor, plane: u32) -> Self {
        let [_, _, _, cache_width] = dims(cache);
        let width = if is_q8(cache_width, head_dim) || cache.dtype.size() == 2 { 8 } else { 4 };
        // The largest power of two that divides a head's loads.
        let loads = head_dim / width;
        let lanes = (1u32 << loads.trailing_zeros()).min(plane);
        Self {
            d: head_dim as u32,
            rotary: rotary as u32,
            pairing: rope.pairing,
            norm: rope.qk_norm_eps_bits.is_some(),
            width: width as u32,
            lanes,
        }
    }

    /// Elements of a head that a unit holds.
    pub(super) fn slice(self) -> u32 {
        self.d / self.lanes
    }
}

/// Sum over the units that hold a head.
#[cube]
pub(super) fn lanes_sum(value: f32, #[comptime] lanes: u32) -> f32 {
    let mut sum = value;
    #[unroll]
    for i in 0..comptime!(lanes.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(1 << i));
    }
    sum
}

/// The unit's slice of a head, normed and rotated.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn prepare<N: Size>(
    qkv: &[Vector<f32, N>],
    norm_weight: &[Vector<f32, N>],
    table: &[Vector<f32, N>],
    base: u32,
    position: u32,
    eps: f32,
    out: &mut Array<f32>,
    #[comptime] at: u32,
    #[comptime] plan: HeadPlan,
) {
    let lane = UNIT_POS_X % plan.lanes;
    let mut scale = 1.0f32;
    if comptime!(plan.norm) {
        let mut squares = 0.0f32;
        #[unroll]
        for i in 0..comptime!(plan.slice() / 4) {
            let v = qkv[((base + element(lane, i, plan)) / 4) as usize];
            #[unroll]
            for j in 0..4usize {
                squares += v.extract(j) * v.extract(j);
            }
        }
        scale = f32::inverse_sqrt(lanes_sum(squares, plan.lanes) * comptime!(1.0 / plan.d as f32) + eps);
    }
    #[unroll]
    for i in 0..comptime!(plan.slice() / 4) {
        let e = element(lane, i, plan);
        let mut a = qkv[((base + e) / 4) as usize];
        if comptime!(plan.norm) {
            a = a * norm_weight[(e / 4) as usize] * Vector::new(scale);
        }
        if comptime!(matches!(plan.pairing, RopePairing::Half)) {
            let half = comptime!(plan.rotary / 2);
            let first = e < half;
            let turned = e < plan.rotary;
            let partner = select(turned, select(first, e + half, e - half), e);
            let mut b = qkv[((base + partner) / 4) as usize];
            if comptime!(plan.norm) {
                b = b * norm_weight[(partner / 4) as usize] * Vector::new(scale);
            }
            let pair = select(turned, select(first, e, partner), 0u32);
            let cos = table[((position * plan.rotary + pair) / 4) as usize];
            let sin = table[((position * plan.rotary + half + pair) / 4) as usize];
            let sign = select(first, -1.0f32, 1.0f32);
            #[unroll]
            for j in 0..4usize {
                let value = a.extract(j) * cos.extract(j) + sign * b.extract(j) * sin.extract(j);
                out[comptime!((at + i * 4) as usize + j)] = select(turned, value, a.extract(j));
            }
        } else if comptime!(matches!(plan.pairing, RopePairing::Interleaved)) {
            // Two pairs, whose cosines are one half of a vector.
            let turned = e < plan.rotary;
            let pair = select(turned, e / 2, 0u32);
            let cos = table[((position * plan.rotary + pair) / 4) as usize];
            let sin = table[((position * plan.rotary + comptime!(plan.rotary / 2) + pair) / 4) as usize];
            let low = (e / 2) % 4 == 0;
            #[unroll]
            for j in 0..2usize {
                let c = select(low, cos.extract(j), cos.extract(comptime!(j + 2)));
                let s = select(low, sin.extract(j), sin.extract(comptime!(j + 2)));
                let (x, y) = (a.extract(comptime!(2 * j)), a.extract(comptime!(2 * j + 1)));
                out[comptime!((at + i * 4) as usize + 2 * j)] = select(turned, x * c - y * s, x);
                out[comptime!((at + i * 4) as usize + 2 * j + 1)] = select(turned, x * s + y * c, y);
            }
        } else {
            #[unroll]
            for j in 0..4usize {
                out[comptime!((at + i * 4) as usize + j)] = a.extract(j);
            }
        }
    }
}

/// The element of the head that a unit's quadruple `i` begins with; loads of a group lie side by side.
#[cube]
pub(super) fn element(lane: u32, #[comptime] i: u32, #[comptime] plan: HeadPlan) -> u32 {
    let per_load = comptime!(plan.width / 4);
    (comptime!(i / per_load * plan.lanes) + lane) * plan.width + comptime!(i % per_load * 4)
}
