//! The sums of a matrix-vector product in integers of eight bits: four products an instruction.
//!
//! A cube rounds x once: sixteen elements, as many as a run of weights, become bytes in shared memory with a
//! scale of their own. The first weights are asked for before x is waited for. A launch to round x once for
//! all cubes would take longer.

use cubecl::prelude::*;

use super::dependent::wait_for_launches;
use super::matvec::{Choice, MatvecPlan, Place, load_added, plane_sums};
use super::runs::{
    RUN, chunks_per_block, code_bits, has_min, load_run, run_codes, run_scale, run_start, run_words, zero,
};
use super::unpack::Planes;
use crate::formats::Format;

/// Adding this leaves a float's nearest integer in the low bits of its mantissa.
const ROUND: f32 = 12_582_912.0;
/// Its bits: added to an integer of 22 bits, they make a float that is larger by as much.
const ROUND_BITS: i32 = 0x4b40_0000;
/// Largest magnitude of a byte.
const LARGEST: f32 = 127.0;
/// The least that a run of x is scaled by.
const TINY: f32 = 1e-30;
/// Rows whose first weights a plane asks for before x is there.
const AHEAD: u32 = 4;

/// The signed code that stands for zero.
fn signed_zero(format: Format) -> i32 {
    if code_bits(format) == 8 { zero(format) as i32 - 128 } else { zero(format) as i32 }
}

impl MatvecPlan {
    /// Runs of a column that a cube holds.
    fn held_runs(self) -> u32 {
        (self.held * self.step_chunks()).min(self.all_chunks()) * self.runs()
    }

    /// Rounds of holding that a row takes.
    fn holdings(self) -> u32 {
        self.steps().div_ceil(self.held)
    }

    /// Runs that a cube rounds each time.
    fn rounded_runs(self) -> u32 {
        self.m * self.held_runs()
    }

    /// Words of a row's weights that a unit loads for a step.
    fn raw_words(self) -> u32 {
        self.runs() * run_words(self.format)
    }

    /// Bytes of shared memory that `m` columns of a step of `chunks` chunks take.
    pub(super) fn held_bytes(m: u32, chunks: u32) -> u32 {
        // The elements, and for each run a scale and a sum.
        m * chunks * (32 + 2 * 8)
    }

    /// Bytes of shared memory of a cube.
    pub(super) fn shared_bytes(self) -> u32 {
        let x = if self.int8 { Self::held_bytes(self.m, self.held_runs() / self.runs()) } else { 0 };
        x + 4 * self.planes * self.parts()
    }
}

/// Sixteen elements of x on their way.
#[derive(CubeType)]
struct Elements<N: Size> {
    x: Array<Vector<f32, N>>,
    norm: Array<Vector<f32, N>>,
    /// What they count in a sum.
    factor: f32,
}

#[cube]
impl<N: Size> Elements<N> {
    fn new() -> Elements<N> {
        Elements::<N> {
            x: Array::<Vector<f32, N>>::new(comptime!((RUN / 4) as usize)),
            norm: Array::<Vector<f32, N>>::new(comptime!((RUN / 4) as usize)),
            factor: 1.0f32.runtime(),
        }
    }

    /// Asks for number `i` of the runs that the cube holds next, the first of them run `first` of all.
    #[allow(clippy::too_many_arguments)]
    fn load(
        &mut self,
        x: &[Vector<f32, N>],
        norm_weight: &[Vector<f32, N>],
        weights: &[f32],
        share: u32,
        first: u32,
        i: u32,
        #[comptime] plan: MatvecPlan,
    ) {
        let all = comptime!(plan.all_chunks() * plan.runs());
        let run = min(first + i % comptime!(plan.held_runs()), all - 1);
        let mut row = i / comptime!(plan.held_runs());
        if comptime!(matches!(plan.choice, Choice::Each)) {
            row = CUBE_POS_Z / share;
        }
        if comptime!(matches!(plan.choice, Choice::Sum { .. })) {
            // A row of x for each choice of the token.
            row = CUBE_POS_Z;
            let choices = comptime!(plan.all_chunks() / plan.chunks);
            self.factor = weights[(CUBE_POS_Z * choices + run / comptime!(plan.chunks * plan.runs())) as usize];
        }
        let from = (row * all + run) * comptime!(RUN / 4);
        #[unroll]
        for i in 0..comptime!(RUN / 4) {
            self.x[i as usize] = x[(from + i) as usize];
            if comptime!(plan.norm) {
                self.norm[i as usize] = norm_weight[(run * comptime!(RUN / 4) + i) as usize];
            }
        }
    }
}

/// What a cube holds of x, `[m, held_runs]`.
#[derive(CubeType)]
struct Rounded<N: Size> {
    bytes: Shared<[Vector<u32, N>]>,
    scales: Shared<[f32]>,
    /// Sums of the bytes of a run.
    totals: Shared<[i32]>,
}

#[cube]
impl<N: Size> Rounded<N> {
    fn new(#[comptime] plan: MatvecPlan) -> Rounded<N> {
        let runs = comptime!(plan.rounded_runs() as usize);
        Rounded::<N> {
            bytes: Shared::<[Vector<u32, N>]>::new_slice(runs),
            scales: Shared::<[f32]>::new_slice(runs),
            totals: Shared::<[i32]>::new_slice(runs),
        }
    }

    /// Rounds number `i` of the runs that the cube holds from run `first` on, and adds to the squares of its
    /// column.
    fn hold(
        &mut self,
        elements: &Elements<N>,
        first: u32,
        i: u32,
        squares: &mut Array<f32>,
        #[comptime] plan: MatvecPlan,
    ) {
        let held_runs = comptime!(plan.held_runs());
        let mut values = Array::<f32>::new(comptime!(RUN as usize));
        // Four by four, so that fewer instructions wait for the one before.
        let mut tops = Array::<f32>::new(4usize);
        let mut sums = Vector::<f32, N>::new(0.0f32);
        let mut powers = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for j in 0..4u32 {
            tops[j as usize] = 0.0f32;
        }
        #[unroll]
        for i in 0..comptime!(RUN / 4) {
            let raw = elements.x[i as usize];
            let scaled = if comptime!(plan.norm) { raw * elements.norm[i as usize] } else { raw };
            sums += scaled;
            powers += raw * raw;
            #[unroll]
            for j in 0..4u32 {
                let element = scaled.extract(comptime!(j as usize));
                values[comptime!((i * 4 + j) as usize)] = element;
                tops[j as usize] = max(tops[j as usize], f32::abs(element));
            }
        }
        let largest = max(max(tops[0], tops[1]), max(tops[2], tops[3]));
        let sum = (sums.extract(0usize) + sums.extract(1usize)) + (sums.extract(2usize) + sums.extract(3usize));
        // Nearly 127 over the largest, without a division's many instructions.
        let root = f32::inverse_sqrt(max(largest, TINY));
        let inverse = LARGEST * root * root;
        let mut bytes = Vector::<u32, N>::empty();
        let mut total = 0i32;
        #[unroll]
        for i in 0..comptime!(RUN / 4) {
            let mut word = 0u32;
            #[unroll]
            for j in 0..4u32 {
                let rounded = u32::reinterpret(values[comptime!((i * 4 + j) as usize)] * inverse + ROUND);
                word |= (rounded & 0xff) << comptime!(8 * j);
            }
            bytes.insert(comptime!(i as usize), word);
            total = dp4a(i32::reinterpret(word), 0x0101_0101i32, total);
        }
        self.bytes[i as usize] = bytes;
        self.totals[i as usize] = total;
        // Bytes do not show that an element is not finite: the scale does.
        let scale = select(f32::abs(sum) <= f32::MAX, largest * (1.0f32 / LARGEST), sum);
        self.scales[i as usize] = scale * elements.factor;
        if comptime!(plan.norm) {
            let power =
                (powers.extract(0usize) + powers.extract(1usize)) + (powers.extract(2usize) + powers.extract(3usize));
            // Runs past the last of a column are the last again.
            let counts = first + i % held_runs < comptime!(plan.all_chunks() * plan.runs());
            #[unroll]
            for c in 0..comptime!(plan.m) {
                squares[c as usize] += select(counts && i / held_runs == c, power, 0.0f32);
            }
        }
    }
}

/// Loads chunk `place.chunk` of rows `from` to `to` of the plane's.
#[cube]
#[allow(clippy::too_many_arguments)]
fn load_rows<N: Size>(
    vectors: &[Vector<u32, N>],
    words: &[u32],
    planes: &Planes,
    place: &Place,
    raw: &mut Array<u32>,
    #[comptime] from: u32,
    #[comptime] to: u32,
    #[comptime] plan: MatvecPlan,
) {
    let per_block = comptime!(chunks_per_block(plan.format));
    #[unroll]
    for r in from..to {
        let block = place.block(r, plan);
        #[unroll]
        for run in 0..comptime!(plan.runs()) {
            let at = comptime!(r * plan.raw_words() + run * run_words(plan.format));
            load_run(vectors, words, planes, block, place.chunk % per_block, run, raw, at, plan.format);
        }
    }
}

/// Adds what was loaded to the sums, `[rows, m]`; chunk `held` of those that the cube holds is its x.
#[cube]
fn add_rows<N: Size>(
    raw: &Array<u32>,
    rounded: &Rounded<N>,
    place: &Place,
    held: u32,
    sums: &mut Array<f32>,
    #[comptime] plan: MatvecPlan,
) {
    let per_block = comptime!(chunks_per_block(plan.format));
    let within = place.chunk % per_block;
    #[unroll]
    for run in 0..comptime!(plan.runs()) {
        let from = (held / per_block) * comptime!(plan.format.block_len() as u32 / RUN)
            + run_start(within, run, plan.format) / RUN;
        let mut bytes = Array::<i32>::new(comptime!((plan.m * 4) as usize));
        let mut scales = Array::<f32>::new(comptime!(plan.m as usize));
        let mut zeros = Array::<i32>::new(comptime!(plan.m as usize));
        let mut totals = Array::<f32>::new(comptime!(plan.m as usize));
        #[unroll]
        for c in 0..comptime!(plan.m) {
            let at = (c * comptime!(plan.held_runs()) + from) as usize;
            let vector = rounded.bytes[at];
            #[unroll]
            for i in 0..4u32 {
                bytes[comptime!((c * 4 + i) as usize)] = i32::reinterpret(vector.extract(comptime!(i as usize)));
            }
            scales[c as usize] = rounded.scales[at];
            zeros[c as usize] = 0i32;
            totals[c as usize] = 0.0f32;
            if comptime!(signed_zero(plan.format) != 0) {
                zeros[c as usize] = rounded.totals[at] * comptime!(-signed_zero(plan.format));
            }
            if comptime!(has_min(plan.format)) {
                totals[c as usize] = f32::cast_from(rounded.totals[at]);
            }
        }
        #[unroll]
        for r in 0..comptime!(plan.rows) {
            let at = comptime!(r * plan.raw_words() + run * run_words(plan.format));
            let mut codes = Array::<u32>::new(4usize);
            run_codes(raw, within, run, &mut codes, at, plan.format);
            let block = place.block(r, plan);
            let (scale, min) = run_scale(raw, block, within, run, at, plan.format, plan.native_half);
            #[unroll]
            for c in 0..comptime!(plan.m) {
                let mut dot = zeros[c as usize];
                #[unroll]
                for i in 0..4u32 {
                    let mut word = codes[i as usize];
                    if comptime!(code_bits(plan.format) == 8) {
                        word ^= 0x8080_8080;
                    }
                    dot = dp4a(i32::reinterpret(word), bytes[comptime!((c * 4 + i) as usize)], dot);
                }
                // A conversion would take four times an addition.
                let dot = f32::reinterpret(dot + ROUND_BITS) - ROUND;
                let mut sum = scale * dot;
                if comptime!(has_min(plan.format)) {
                    sum -= min * totals[c as usize];
                }
                sums[comptime!((r * plan.m + c) as usize)] += scales[c as usize] * sum;
            }
        }
    }
}

/// Sums of the unit's chunks of the plane's rows, `[rows, m]`, and in `parts`, behind the plane's sums of rows,
/// those of squares that a norm needs.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn row_sums_int8<N: Size>(
    x: &[Vector<f32, N>],
    vectors: &[Vector<u32, N>],
    words: &[u32],
    norm_weight: &[Vector<f32, N>],
    residual: &[f32],
    ids: &[i32],
    weights: &[f32],
    planes: &Planes,
    first: u32,
    outputs: u32,
    stride: u32,
    offset: u32,
    share: u32,
    cube: u32,
    sums: &mut Array<f32>,
    added: &mut Array<f32>,
    parts: &mut Shared<[f32]>,
    #[comptime] plan: MatvecPlan,
) {
    let (m, rows) = comptime!((plan.m, plan.rows));
    let ahead = comptime!(plan.rows.min(AHEAD));
    let unit = UNIT_POS_Y * plan.plane + UNIT_POS_X;
    // The plane's chunk in a step.
    let own = UNIT_POS_Y % plan.split * plan.plane + UNIT_POS_X;
    let mut rounded = Rounded::<N>::new(plan);
    let mut elements = Elements::<N>::new();
    let mut squares = Array::<f32>::new(comptime!(m as usize));
    #[unroll]
    for c in 0..m {
        squares[c as usize] = 0.0f32;
    }
    let last = comptime!(plan.all_chunks() - 1);
    #[unroll(comptime!(plan.holdings() == 1))]
    for holding in 0..comptime!(plan.holdings()) {
        let first_chunk = holding * comptime!(plan.held * plan.step_chunks());
        let first_run = first_chunk * comptime!(plan.runs());
        let mut raw = Array::<u32>::new(comptime!((rows * plan.raw_words()) as usize));
        let place = Place::new(ids, weights, first, outputs, share, min(first_chunk + own, last), plan);
        load_rows(vectors, words, planes, &place, &mut raw, 0u32, ahead, plan);
        if comptime!(plan.asks_ahead()) {
            wait_for_launches();
        }
        if holding == 0 {
            load_added(residual, added, outputs, stride, offset, cube, plan);
        }
        for pass in 0..comptime!(plan.rounded_runs().div_ceil(plan.units())) {
            let i = unit + pass * comptime!(plan.units());
            if i < comptime!(plan.rounded_runs()) {
                elements.load(x, norm_weight, weights, share, first_run, i, plan);
                rounded.hold(&elements, first_run, i, &mut squares, plan);
            }
        }
        sync_cube();
        load_rows(vectors, words, planes, &place, &mut raw, ahead, rows, plan);
        let inside = if comptime!(plan.whole()) { true.runtime() } else { first_chunk + own <= last };
        if inside {
            add_rows(&raw, &rounded, &place, own, sums, plan);
        }
        #[unroll(comptime!(plan.held * plan.rows <= 16))]
        for step in 1..comptime!(plan.held) {
            let held = step * comptime!(plan.step_chunks()) + own;
            let chunk = first_chunk + held;
            if chunk <= last {
                let place = Place::new(ids, weights, first, outputs, share, chunk, plan);
                load_rows(vectors, words, planes, &place, &mut raw, 0u32, rows, plan);
                add_rows(&raw, &rounded, &place, held, sums, plan);
            }
        }
        if comptime!(plan.holdings() > 1) {
            sync_cube();
        }
    }
    if comptime!(plan.norm) {
        let at = UNIT_POS_Y * comptime!(plan.parts()) + comptime!(rows * m);
        plane_sums(&mut squares, parts, at, m, plan.plane);
    }
}
