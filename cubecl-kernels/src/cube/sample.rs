//! Choosing the next token: argmax or penalties, cuts and a Gumbel draw. See `ops::sample`.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dependent::{begin_next, wait_for_launches};
use super::{contiguous, dims, empty, line};
use crate::ops::{IN_PROMPT, SAMPLE_PARAMS, SampleOps, SampleSpec};

/// Units of a cube that scans the vocabulary.
const UNITS: u32 = 256;
/// Cubes that share a row in the first pass.
const PARTS: u32 = 128;
/// Thresholds tried in one pass over the vocabulary: three bits of the answer.
const TRIES: u32 = 7;
/// No token.
const NOBODY: u32 = 0xffff_ffff;

impl SampleOps for CubeBackend {
    fn sample(
        logits: CubeTensor,
        tokens: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        params: CubeTensor,
        counts: CubeTensor,
        spec: SampleSpec,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let logits = contiguous(logits);
        let [m, vocab] = dims(&logits);
        let client = logits.client.clone();
        let width = 2 + 2 * spec.top;
        let out = empty(&logits, [m, width], DType::I32);
        let partial = empty(&logits, [m * PARTS as usize, 4], DType::F32);
        let stats = empty(&logits, [m, 2], DType::F32);
        scan::launch(
            &client,
            CubeCount::Static(PARTS, m as u32, 1),
            line(UNITS),
            logits.clone().into_buffer_arg(),
            partial.clone().into_buffer_arg(),
            vocab as u32,
        );
        choose_greedy::launch(
            &client,
            CubeCount::Static(m as u32, 1, 1),
            line(PARTS),
            logits.clone().into_buffer_arg(),
            partial.into_buffer_arg(),
            stats.clone().into_buffer_arg(),
            tokens.clone().into_buffer_arg(),
            positions.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vocab as u32,
            width as u32,
            spec.greedy,
        );
        if !spec.greedy {
            let work = empty(&logits, [m, vocab], DType::F32);
            draw::launch(
                &client,
                CubeCount::Static(m as u32, 1, 1),
                line(UNITS),
                logits.clone().into_buffer_arg(),
                work.into_buffer_arg(),
                stats.clone().into_buffer_arg(),
                tokens.clone().into_buffer_arg(),
                positions.clone().into_buffer_arg(),
                slots.into_buffer_arg(),
                params.into_buffer_arg(),
                counts.clone().into_buffer_arg(),
                out.clone().into_buffer_arg(),
                vocab as u32,
                width as u32,
            );
        }
        if spec.top > 0 {
            top_tokens::launch(
                &client,
                CubeCount::Static(m as u32, 1, 1),
                line(UNITS),
                logits.into_buffer_arg(),
                stats.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                vocab as u32,
                spec.top as u32,
            );
        }
        (tokens, positions, counts, out)
    }
}

/// Largest value of the cube and the lowest id that has it, for every unit.
#[cube]
fn cube_argmax(value: f32, id: u32) -> (f32, u32) {
    let mut values = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut ids = Shared::<[u32]>::new_slice(comptime!(UNITS as usize));
    let largest = plane_max(value);
    let lowest = plane_min(select(value == largest, id, NOBODY));
    if UNIT_POS_PLANE == 0 {
        values[(UNIT_POS_X / PLANE_DIM) as usize] = largest;
        ids[(UNIT_POS_X / PLANE_DIM) as usize] = lowest;
    }
    sync_cube();
    let mut best = values[0];
    let mut best_id = ids[0];
    for i in 1..CUBE_DIM_X / PLANE_DIM {
        let (v, id) = (values[i as usize], ids[i as usize]);
        let better = v > best || (v == best && id < best_id);
        best = select(better, v, best);
        best_id = select(better, id, best_id);
    }
    sync_cube();
    (best, best_id)
}

/// The cube's sum, for every unit.
#[cube]
fn cube_total(value: f32) -> f32 {
    let mut parts = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let total = plane_sum(value);
    if UNIT_POS_PLANE == 0 {
        parts[(UNIT_POS_X / PLANE_DIM) as usize] = total;
    }
    sync_cube();
    let mut sum = 0.0f32;
    for i in 0..CUBE_DIM_X / PLANE_DIM {
        sum += parts[i as usize];
    }
    sync_cube();
    sum
}

/// Whether a float is NaN or infinite, by its bits: comparisons may be compiled away.
#[cube]
fn not_finite(value: f32) -> bool {
    (u32::reinterpret(value) & 0x7f80_0000) == 0x7f80_0000
}

/// First pass, a part of a row a cube: largest logit, its id, the sum of exponentials relative to
/// it, and the number of values that are not finite.
#[cube(launch)]
fn scan(logits: &[f32], partial: &mut [f32], vocab: u32) {
    begin_next();
    wait_for_launches();
    let row = CUBE_POS_Y;
    let share = vocab.div_ceil(PARTS);
    let begin = CUBE_POS_X * share;
    let end = select(begin + share < vocab, begin + share, vocab);
    let mut best = (-3.0e38f32).runtime();
    let mut best_id = NOBODY.runtime();
    let mut bad = 0.0f32;
    let mut i = begin + UNIT_POS_X;
    while i < end {
        let v = logits[(row * vocab + i) as usize];
        if not_finite(v) {
            bad += 1.0f32;
        } else if v > best {
            best = v;
            best_id = i;
        }
        i += UNITS;
    }
    let (best, best_id) = cube_argmax(best, best_id);
    let bad = cube_total(bad);
    let mut sum = 0.0f32;
    let mut i = begin + UNIT_POS_X;
    while i < end {
        let v = logits[(row * vocab + i) as usize];
        if !not_finite(v) {
            sum += f32::exp(v - best);
        }
        i += UNITS;
    }
    let sum = cube_total(sum);
    if UNIT_POS_X == 0 {
        let at = ((row * PARTS + CUBE_POS_X) * 4) as usize;
        partial[at] = best;
        partial[at + 1] = f32::reinterpret(best_id);
        partial[at + 2] = sum;
        partial[at + 3] = bad;
    }
}

/// Merges the parts; `stats` gets the row's log-sum-exp and 1 when a value was not finite.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn choose_greedy(
    logits: &[f32],
    partial: &[f32],
    stats: &mut [f32],
    tokens: &mut [i32],
    positions: &mut [i32],
    out: &mut [i32],
    vocab: u32,
    width: u32,
    #[comptime] greedy: bool,
) {
    begin_next();
    wait_for_launches();
    let row = CUBE_POS_X;
    // A unit a part.
    let at = ((row * PARTS + UNIT_POS_X) * 4) as usize;
    let mine = partial[at];
    let (best, best_id) = cube_argmax(mine, u32::reinterpret(partial[at + 1]));
    let bad = cube_total(partial[at + 3]);
    let sum = cube_total(partial[at + 2] * f32::exp(mine - best));
    let log_sum = best + f32::ln(sum);
    let failed = bad > 0.0f32 || best_id >= vocab;
    if UNIT_POS_X == 0 {
        stats[(row * 2) as usize] = log_sum;
        stats[(row * 2 + 1) as usize] = select(failed, 1.0f32, 0.0f32);
    }
    if comptime!(greedy) && UNIT_POS_X == 0 {
        let id = select(failed, 0u32, best_id);
        let at = (row * width) as usize;
        out[at] = select(failed, -1i32, i32::cast_from(id));
        out[at + 1] = i32::reinterpret(logits[(row * vocab + id) as usize] - log_sum);
        tokens[row as usize] = i32::cast_from(id);
        positions[row as usize] += 1i32;
    }
}

/// A float as an integer of the same order.
#[cube]
fn order_key(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    bits ^ select(bits >> 31 == 1, 0xffff_ffffu32, 0x8000_0000u32)
}

/// The largest key `t` not below `floor` such that the values with keys of at least `t` weigh
/// `target` or more: every value weighs 1, or its share of probability.
#[cube]
fn find_threshold(
    work: &mut [f32],
    base: u32,
    vocab: u32,
    floor: u32,
    largest: f32,
    target: f32,
    #[comptime] by_mass: bool,
) -> u32 {
    let mut parts = Shared::<[f32]>::new_slice(comptime!((UNITS * TRIES) as usize));
    let mut found = floor;
    let mut low = 0u32.runtime();
    for pass in 0..11u32 {
        let shift = 30 - 3 * pass;
        // The first pass has two bits left, the others three.
        let tries = select(pass == 0, 3u32, TRIES);
        let mut sums = Array::<f32>::new(comptime!(TRIES as usize));
        #[unroll]
        for t in 0..TRIES {
            sums[t as usize] = 0.0f32;
        }
        let mut i = UNIT_POS_X;
        while i < vocab {
            let v = work[(base + i) as usize];
            let key = order_key(v);
            if key >= floor && key >= low {
                let weight = if comptime!(by_mass) { f32::exp(v - largest) } else { 1.0f32.runtime() };
                #[unroll]
                for t in 0..TRIES {
                    let reached = t < tries && (key - low) >> shift >= t + 1;
                    sums[t as usize] += select(reached, weight, 0.0f32);
                }
            }
            i += UNITS;
        }
        let planes = CUBE_DIM_X / PLANE_DIM;
        #[unroll]
        for t in 0..TRIES {
            let total = plane_sum(sums[t as usize]);
            if UNIT_POS_PLANE == 0 {
                parts[(t * UNITS + UNIT_POS_X / PLANE_DIM) as usize] = total;
            }
        }
        sync_cube();
        let mut steps = 0u32.runtime();
        #[unroll]
        for t in 0..TRIES {
            let mut total = 0.0f32;
            for p in 0..planes {
                total += parts[(t * UNITS + p) as usize];
            }
            if t < tries && total >= target {
                steps = t + 1;
            }
        }
        low += steps << shift;
        sync_cube();
    }
    found = select(low > found, low, found);
    found
}

/// A well-mixed word (the finalizer of MurmurHash3).
#[cube]
fn mix(value: u32) -> u32 {
    let h = (value ^ (value >> 16)) * 0x85eb_ca6bu32;
    let h = (h ^ (h >> 13)) * 0xc2b2_ae35u32;
    h ^ (h >> 16)
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn draw(
    logits: &[f32],
    work: &mut [f32],
    stats: &[f32],
    tokens: &mut [i32],
    positions: &mut [i32],
    slots: &[i32],
    params: &[i32],
    counts: &mut [i32],
    out: &mut [i32],
    vocab: u32,
    width: u32,
) {
    let row = CUBE_POS_X;
    let base = row * vocab;
    let slot = u32::cast_from(slots[row as usize]);
    let p = slot * comptime!(SAMPLE_PARAMS as u32);
    let temperature = f32::reinterpret(params[p as usize]);
    let top_k = params[(p + 1) as usize];
    let top_p = f32::reinterpret(params[(p + 2) as usize]);
    let min_p = f32::reinterpret(params[(p + 3) as usize]);
    let repetition = f32::reinterpret(params[(p + 4) as usize]);
    let presence = f32::reinterpret(params[(p + 5) as usize]);
    let frequency = f32::reinterpret(params[(p + 6) as usize]);
    let seed_low = u32::cast_from(params[(p + 7) as usize]);
    let seed_high = u32::cast_from(params[(p + 8) as usize]);
    let biases = u32::cast_from(params[(p + 9) as usize]);
    let position = u32::cast_from(positions[row as usize]);

    let mut i = UNIT_POS_X;
    while i < vocab {
        let mut v = logits[(base + i) as usize];
        let count = counts[(slot * vocab + i) as usize];
        if count != 0 {
            v = select(v > 0.0f32, v / repetition, v * repetition);
            let times = count & comptime!(IN_PROMPT - 1);
            if times > 0 {
                v -= presence + f32::cast_from(times) * frequency;
            }
        }
        work[(base + i) as usize] = v;
        i += UNITS;
    }
    sync_storage();
    // Ids of the list are distinct, so no two units write one value.
    let mut b = UNIT_POS_X;
    while b < biases {
        let at = p + 10 + 2 * b;
        let id = u32::cast_from(params[at as usize]);
        work[(base + id) as usize] += f32::reinterpret(params[(at + 1) as usize]);
        b += UNITS;
    }
    sync_storage();
    let mut largest = (-3.0e38f32).runtime();
    let mut i = UNIT_POS_X;
    while i < vocab {
        let v = work[(base + i) as usize] / temperature;
        work[(base + i) as usize] = v;
        largest = max(largest, v);
        i += UNITS;
    }
    let (largest, _) = cube_argmax(largest, 0u32.runtime());
    // Each unit scans the values that it wrote itself: no barrier is needed from here on.
    let mut floor = 0u32.runtime();
    if top_k > 0 {
        floor = find_threshold(work, base, vocab, floor, largest, f32::cast_from(top_k), false);
    }
    if top_p < 1.0f32 {
        let mut mass = 0.0f32;
        let mut i = UNIT_POS_X;
        while i < vocab {
            let v = work[(base + i) as usize];
            if order_key(v) >= floor {
                mass += f32::exp(v - largest);
            }
            i += UNITS;
        }
        let mass = cube_total(mass);
        floor = find_threshold(work, base, vocab, floor, largest, mass * top_p, true);
    }
    if min_p > 0.0f32 {
        let least = order_key(largest + f32::ln(min_p));
        floor = select(least > floor, least, floor);
    }

    let key = mix(seed_low ^ mix(seed_high ^ mix(position)));
    let mut best = (-3.0e38f32).runtime();
    let mut best_id = NOBODY.runtime();
    let mut i = UNIT_POS_X;
    while i < vocab {
        let v = work[(base + i) as usize];
        if order_key(v) >= floor {
            let bits = mix(key ^ mix(i + 0x9e37_79b9u32));
            // 23 bits and a half: exact in float32, and never 0 or 1.
            let uniform = (f32::cast_from(bits >> 9) + 0.5f32) * (1.0f32 / 8_388_608.0f32);
            let score = v - f32::ln(-f32::ln(uniform));
            if score > best {
                best = score;
                best_id = i;
            }
        }
        i += UNITS;
    }
    let (_, chosen) = cube_argmax(best, best_id);
    if UNIT_POS_X == 0 {
        let failed = stats[(row * 2 + 1) as usize] > 0.0f32 || chosen >= vocab;
        let id = select(failed, 0u32, chosen);
        let at = (row * width) as usize;
        out[at] = select(failed, -1i32, i32::cast_from(id));
        out[at + 1] = i32::reinterpret(logits[(base + id) as usize] - stats[(row * 2) as usize]);
        tokens[row as usize] = i32::cast_from(id);
        positions[row as usize] = i32::cast_from(position + 1);
        counts[(slot * vocab + id) as usize] += 1i32;
    }
}

/// The most likely tokens in order, one pass over the row each.
#[cube(launch)]
fn top_tokens(logits: &[f32], stats: &[f32], out: &mut [i32], vocab: u32, #[comptime] top: u32) {
    let row = CUBE_POS_X;
    let log_sum = stats[(row * 2) as usize];
    let mut last = (3.0e38f32).runtime();
    let mut last_id = 0u32.runtime();
    for n in 0..top {
        let mut best = (-3.0e38f32).runtime();
        let mut best_id = NOBODY.runtime();
        let mut i = UNIT_POS_X;
        while i < vocab {
            let v = logits[(row * vocab + i) as usize];
            let after = n == 0 || v < last || (v == last && i > last_id);
            if after && v > best {
                best = v;
                best_id = i;
            }
            i += UNITS;
        }
        let (best, best_id) = cube_argmax(best, best_id);
        last = best;
        last_id = best_id;
        if UNIT_POS_X == 0 {
            let at = row * comptime!(2 + 2 * top) + 2 + n;
            out[at as usize] = i32::cast_from(best_id);
            out[(at + top) as usize] = i32::reinterpret(best - log_sum);
        }
    }
}
