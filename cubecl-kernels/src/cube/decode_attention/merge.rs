//! Partial softmaxes on their way to one: those of a cube's planes, then those of the cubes.

use cubecl::prelude::*;

use super::MASKED;
use crate::cube::dependent::{begin_next, wait_for_launches};

/// Partial results that a unit loads at once.
const AT_ONCE: u32 = 8;
/// Bytes of partial results that one cube merges in the time that a launch takes.
const MERGED_ALONE: u32 = 64 << 10;
/// Vectors that a cube of such a launch merges, where heads consist of as many.
const MERGED_EACH: u32 = 16;

/// How a row's keys are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Split {
    /// Query heads of the layer.
    pub(super) heads: u32,
    /// Query heads of a cube, all of one key-value head.
    pub(super) group: u32,
    /// Elements of a head.
    pub(super) d: u32,
    /// Positions that a row sees; 0: all before it.
    pub(super) window: u32,
    /// Planes of a cube, and units of a plane.
    pub(super) planes: u32,
    pub(super) plane: u32,
    /// Keys that a cube's planes take in one step.
    pub(super) keys: u32,
    /// Most cubes that share a row's keys. So many take part as there are steps, if there are enough.
    pub(super) splits: u32,
    /// Most steps that one cube takes by itself.
    pub(super) alone: u32,
    /// The last cube of a row merges, where cubes see what others wrote.
    pub(super) folds: bool,
    /// Column of the projection where gates of the outputs begin.
    pub(super) gate: Option<u32>,
}

impl Split {
    /// Units of a cube.
    fn units(self) -> u32 {
        self.planes * self.plane
    }

    /// Vectors of a cube's heads.
    fn vectors(self) -> u32 {
        self.group * self.d / 4
    }

    /// Decides who merges, and leaves those who do no last round of loads for a few parts.
    pub(super) fn merged_well(mut self) -> Self {
        self.folds &= self.splits * self.vectors() * 16 <= MERGED_ALONE;
        let round = self.deep() * AT_ONCE;
        if self.splits > round {
            self.splits -= self.splits % round;
        }
        self
    }

    /// Vectors that a cube merges: those of its heads, or where merging is a launch of its own, a few of one.
    pub(super) fn merged(self) -> u32 {
        let length = self.d / 4;
        let divides = |count: &u32| length.is_multiple_of(*count);
        if self.folds { self.vectors() } else { (1..=MERGED_EACH).rev().find(divides).unwrap_or(1) }
    }

    /// Heads that a cube merges, wholly or in part.
    fn merged_heads(self) -> u32 {
        self.merged().div_ceil(self.d / 4)
    }

    /// Units that share the partial results of the same vector.
    fn deep(self) -> u32 {
        // As many as what planes have found leaves room for.
        (self.units() / self.merged()).clamp(1, self.planes)
    }
}

/// First key that position `position` sees.
#[cube]
pub(super) fn first_key(position: u32, #[comptime] window: u32) -> u32 {
    if comptime!(window > 0) { select(position + 1 > window, position + 1 - window, 0u32) } else { 0u32.runtime() }
}

/// Cubes that share the keys of a row.
#[cube]
pub(super) fn used_splits(position: u32, #[comptime] split: Split) -> u32 {
    let steps = (position + 1 - first_key(position, split.window)).div_ceil(split.keys);
    select(steps <= split.alone, 1u32, min(steps, split.splits))
}

/// What planes or parts of them have found, for some that share a cube's memory.
#[derive(CubeType)]
pub(super) struct Found<N: Size> {
    /// Weighted values, `[planes, group, d]`.
    pub(super) values: Shared<[Vector<f32, N>]>,
    /// Largest score and sum of weights, `[planes, group, 2]`.
    pub(super) stats: Shared<[f32]>,
}

#[cube]
impl<N: Size> Found<N> {
    pub(super) fn new(#[comptime] split: Split) -> Found<N> {
        Found::<N> {
            values: Shared::<[Vector<f32, N>]>::new_slice(comptime!((split.planes * split.vectors()) as usize)),
            stats: Shared::<[f32]>::new_slice(comptime!((split.planes * split.group * 2) as usize)),
        }
    }
}

/// What scales vector `at` of a row's outputs.
#[cube]
fn gate_of<N: Size>(qkv: &[Vector<f32, N>], width: u32, at: u32, #[comptime] gate: Option<u32>) -> Vector<f32, N> {
    let mut scale = Vector::<f32, N>::new(1.0f32);
    if comptime!(gate.is_some()) {
        let gates = qkv[((CUBE_POS_Y * width + comptime!(gate.unwrap_or(0))) / 4 + at) as usize];
        #[unroll]
        for i in 0..4usize {
            scale.insert(i, 1.0f32 / (1.0f32 + f32::exp(-gates.extract(i))));
        }
    }
    scale
}

/// Merges what the planes of a cube have `found` for the heads from `head0` of the row on, and where other cubes
/// have a part, what all have, if this is the last of them. `arrivals` counts them; it is zero before and after.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn finish<N: Size>(
    found: &mut Found<N>,
    head0: u32,
    used: u32,
    partial: &mut [Vector<f32, N>],
    stats: &mut [f32],
    arrivals: &mut [Atomic<i32>],
    qkv: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    width: u32,
    #[comptime] split: Split,
) {
    sync_cube();
    merge_planes(found, head0, used, partial, stats, qkv, out, width, split);
    if comptime!(split.folds && split.splits > 1) {
        if used > 1 {
            let mut arrived = Shared::<[i32]>::new_slice(1usize);
            let counter = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) as usize;
            let first = UNIT_POS_Y == 0 && UNIT_POS_X == 0;
            // What this cube wrote is seen by the last, and what the others wrote by this if it is the last.
            sync_storage();
            if first {
                arrived[0] = arrivals[counter].fetch_add(1i32);
            }
            sync_storage();
            if u32::cast_from(arrived[0]) == used - 1 {
                merge_parts(found, head0 * comptime!(split.d / 4), used, partial, stats, qkv, out, width, split);
                if first {
                    arrivals[counter].store(0i32);
                }
            }
        }
    }
}

/// Writes what the planes found together: the outputs, or values and stats of this cube's part.
#[cube]
#[allow(clippy::too_many_arguments)]
fn merge_planes<N: Size>(
    found: &mut Found<N>,
    head0: u32,
    used: u32,
    partial: &mut [Vector<f32, N>],
    stats: &mut [f32],
    qkv: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    width: u32,
    #[comptime] split: Split,
) {
    let (group, length) = comptime!((split.group, split.d / 4));
    let mut i = UNIT_POS_Y * split.plane + UNIT_POS_X;
    while i < comptime!(split.vectors()) {
        let h = i / length;
        let mut largest = MASKED.runtime();
        #[unroll]
        for p in 0..split.planes {
            largest = max(largest, found.stats[((p * group + h) * 2) as usize]);
        }
        let mut sum = 0.0f32;
        let mut value = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for p in 0..split.planes {
            let at = p * group + h;
            let factor = f32::exp(found.stats[(at * 2) as usize] - largest);
            sum += found.stats[(at * 2 + 1) as usize] * factor;
            value += found.values[(at * length + i % length) as usize] * Vector::new(factor);
        }
        let head = CUBE_POS_Y * split.heads + head0 + h;
        if used == 1 {
            let gate = gate_of(qkv, width, (head0 + h) * length + i % length, split.gate);
            out[(head * length + i % length) as usize] = value * Vector::new(1.0f32 / sum) * gate;
        } else {
            let at = head * split.splits + CUBE_POS_Z;
            partial[(at * length + i % length) as usize] = value;
            if i % length == 0 {
                stats[(at * 2) as usize] = largest;
                stats[(at * 2 + 1) as usize] = sum;
            }
        }
        i += comptime!(split.units());
    }
}

/// Merges the parts of `used` cubes: the vectors of the row from `first` on.
#[cube]
#[allow(clippy::too_many_arguments)]
fn merge_parts<N: Size>(
    found: &mut Found<N>,
    first: u32,
    used: u32,
    partial: &mut [Vector<f32, N>],
    stats: &mut [f32],
    qkv: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    width: u32,
    #[comptime] split: Split,
) {
    let (length, vectors, deep) = comptime!((split.d / 4, split.merged(), split.deep()));
    let heads = comptime!(split.merged_heads());
    let unit = UNIT_POS_Y * split.plane + UNIT_POS_X;
    #[unroll]
    for pass in 0..comptime!(split.merged().div_ceil(split.units())) {
        let turn = unit / vectors;
        let here = pass * comptime!(split.units()) + unit % vectors;
        let takes_part = turn < deep && here < vectors;
        let (h, vector) = (here / length, first + here);
        let head = CUBE_POS_Y * split.heads + vector / length;
        let at = head * split.splits;
        let mut largest = MASKED.runtime();
        let mut sum = 0.0f32;
        let mut value = Vector::<f32, N>::new(0.0f32);
        if takes_part {
            for round in 0..used.div_ceil(comptime!(split.deep() * AT_ONCE)) {
                let mut maxima = Array::<f32>::new(comptime!(AT_ONCE as usize));
                let mut sums = Array::<f32>::new(comptime!(AT_ONCE as usize));
                let mut values = Array::<Vector<f32, N>>::new(comptime!(AT_ONCE as usize));
                let mut next = largest;
                #[unroll]
                for i in 0..AT_ONCE {
                    let part = (round * AT_ONCE + i) * deep + turn;
                    let from = at + min(part, used - 1);
                    maxima[i as usize] = select(part < used, stats[(from * 2) as usize], MASKED);
                    sums[i as usize] = stats[(from * 2 + 1) as usize];
                    values[i as usize] = partial[(from * length + vector % length) as usize];
                    next = max(next, maxima[i as usize]);
                }
                let shrink = f32::exp(largest - next);
                sum *= shrink;
                value *= Vector::new(shrink);
                #[unroll]
                for i in 0..AT_ONCE {
                    let part = (round * AT_ONCE + i) * deep + turn;
                    let weight = select(part < used, f32::exp(maxima[i as usize] - next), 0.0f32);
                    sum += weight * sums[i as usize];
                    value += values[i as usize] * Vector::new(weight);
                }
                largest = next;
            }
        }
        if comptime!(deep > 1) {
            if takes_part {
                found.values[(turn * vectors + here) as usize] = value;
                if here % length == 0 {
                    let to = (turn * heads + h) * 2;
                    found.stats[to as usize] = largest;
                    found.stats[(to + 1) as usize] = sum;
                }
            }
            sync_cube();
            if turn == 0 {
                #[unroll]
                for i in 1..deep {
                    largest = max(largest, found.stats[((i * heads + h) * 2) as usize]);
                }
                sum = 0.0f32;
                value = Vector::new(0.0f32);
                #[unroll]
                for i in 0..deep {
                    let from = (i * heads + h) * 2;
                    let weight = f32::exp(found.stats[from as usize] - largest);
                    sum += weight * found.stats[(from + 1) as usize];
                    value += found.values[(i * vectors + here) as usize] * Vector::new(weight);
                }
            }
        }
        if turn == 0 && here < vectors {
            let gate = gate_of(qkv, width, vector, split.gate);
            out[(head * length + vector % length) as usize] = value * Vector::new(1.0f32 / sum) * gate;
        }
    }
}

/// [`merge_parts`] in a launch of its own.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn merge<N: Size>(
    partial: &mut [Vector<f32, N>],
    stats: &mut [f32],
    positions: &[i32],
    qkv: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    width: u32,
    #[comptime] split: Split,
) {
    begin_next();
    wait_for_launches();
    let mut found = Found::<N>::new(comptime!(Split { group: 1, ..split }));
    let used = used_splits(u32::cast_from(positions[CUBE_POS_Y as usize]), split);
    if used > 1 {
        merge_parts(&mut found, CUBE_POS_X * comptime!(split.merged()), used, partial, stats, qkv, out, width, split);
    }
}
