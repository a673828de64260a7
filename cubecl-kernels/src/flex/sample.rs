//! Choosing the next token: the same choice as the GPU's kernel, draw for draw.

use rayon::prelude::*;

use super::simd::{Kernel, LANES, Level, Simd, exp};
use crate::ops::{IN_PROMPT, SAMPLE_PARAMS, SampleSpec};

/// Chooses one token per row, reports it in `out` and advances the state.
///
/// # Shapes
/// logits `[m, vocab]`, tokens, positions and slots `[m]`, params `[slots, SAMPLE_PARAMS]`, counts
/// `[slots, vocab]`, out `[m, 2 + 2 top]`; see [`crate::ops::sample`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn sample(
    logits: &[f32],
    vocab: usize,
    tokens: &mut [i32],
    positions: &mut [i32],
    slots: &[i32],
    params: &[i32],
    counts: &mut [i32],
    spec: SampleSpec,
    out: &mut [i32],
) {
    let width = 2 + 2 * spec.top;
    let rows = logits.par_chunks_exact(vocab).zip(&*positions).zip(slots).zip(out.par_chunks_exact_mut(width));
    let counts_now = &*counts;
    let chosen: Vec<usize> = rows
        .map(|(((logits, position), slot), out)| {
            let slot = *slot as usize;
            let stats = Level::best().run(Scan { logits });
            let choice = if spec.greedy {
                argmax(logits, stats.largest)
            } else {
                let params = Params::read(&params[slot * SAMPLE_PARAMS..][..SAMPLE_PARAMS]);
                draw(logits, &counts_now[slot * vocab..][..vocab], &params, *position as u32)
            };
            let id = choice.filter(|_| stats.finite);
            report(logits, stats.log_sum, id, spec.top, out);
            id.unwrap_or(0)
        })
        .collect();
    for (row, id) in chosen.into_iter().enumerate() {
        tokens[row] = id as i32;
        positions[row] = positions[row].wrapping_add(1);
        if !spec.greedy {
            counts[slots[row] as usize * vocab + id] += 1;
        }
    }
}

/// Writes a row of the output; no `id` when the logits are not finite.
fn report(logits: &[f32], log_sum: f32, id: Option<usize>, top: usize, out: &mut [i32]) {
    out[0] = id.map_or(-1, |id| id as i32);
    out[1] = (logits[id.unwrap_or(0)] - log_sum).to_bits() as i32;
    let (ids, logprobs) = out[2..].split_at_mut(top);
    for ((to_id, to_logprob), id) in ids.iter_mut().zip(logprobs).zip(most_likely(logits, top)) {
        *to_id = id as i32;
        *to_logprob = (logits[id] - log_sum).to_bits() as i32;
    }
}

/// The `top` most likely tokens, best first, of equals the lowest id first.
fn most_likely(logits: &[f32], top: usize) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(top + 1);
    for (id, logit) in logits.iter().enumerate() {
        let full = best.len() == top;
        if full && best.last().is_none_or(|last| *logit <= logits[*last]) {
            continue;
        }
        let place = best.partition_point(|other| logits[*other] >= *logit);
        best.insert(place, id);
        best.truncate(top);
    }
    best
}

/// The lowest id with the largest logit.
fn argmax(logits: &[f32], largest: f32) -> Option<usize> {
    logits.iter().position(|logit| *logit == largest)
}

/// One look over a row.
struct Scan<'a> {
    logits: &'a [f32],
}

struct Stats {
    largest: f32,
    /// Logarithm of the sum of the exponentials.
    log_sum: f32,
    /// No logit is NaN or infinite.
    finite: bool,
}

impl Kernel for Scan<'_> {
    type Output = Stats;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Stats {
        let (units, rest) = self.logits.as_chunks::<LANES>();
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let mut most = simd.load(&last);
        let mut zeros = simd.splat(0.0);
        for unit in units {
            let logits = simd.load(unit);
            most = simd.max(logits, most);
            zeros = simd.fma(logits, simd.splat(0.0), zeros);
        }
        let largest = simd.max_lane(most);
        // Zero times a number is zero, times NaN or an infinity it is NaN.
        let finite = simd.sum(zeros) == 0.0 && rest.iter().all(|logit| logit.is_finite());
        let largest_lanes = simd.splat(largest);
        let mut sum = simd.splat(0.0);
        for unit in units {
            sum = simd.add(sum, exp(simd, simd.sub(simd.load(unit), largest_lanes)));
        }
        let sum = simd.sum(sum) + rest.iter().map(|logit| (logit - largest).exp()).sum::<f32>();
        Stats { largest, log_sum: largest + sum.ln(), finite }
    }
}

/// A slot's parameters; see [`SAMPLE_PARAMS`].
struct Params<'a> {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    seed: [u32; 2],
    biases: &'a [[i32; 2]],
}

impl<'a> Params<'a> {
    fn read(params: &'a [i32]) -> Self {
        let float = |i: usize| f32::from_bits(params[i] as u32);
        let biases = params[10..].as_chunks::<2>().0;
        Self {
            temperature: float(0),
            top_k: usize::try_from(params[1]).unwrap_or(0),
            top_p: float(2),
            min_p: float(3),
            repetition_penalty: float(4),
            presence_penalty: float(5),
            frequency_penalty: float(6),
            seed: [params[7] as u32, params[8] as u32],
            biases: &biases[..usize::try_from(params[9]).unwrap_or(0).min(biases.len())],
        }
    }
}

/// Penalties, biases, temperature, cuts, and a Gumbel draw from what is left.
fn draw(logits: &[f32], counts: &[i32], params: &Params<'_>, position: u32) -> Option<usize> {
    let mut scores = logits.to_vec();
    penalize(&mut scores, counts, params);
    for [id, bias] in params.biases {
        if let Some(score) = scores.get_mut(*id as usize) {
            *score += f32::from_bits(*bias as u32);
        }
    }
    for score in &mut scores {
        *score /= params.temperature;
    }
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let floor = floor(&scores, largest, params);
    gumbel_max(&scores, floor, params.seed, position)
}

fn penalize(scores: &mut [f32], counts: &[i32], params: &Params<'_>) {
    for (score, count) in scores.iter_mut().zip(counts) {
        if *count == 0 {
            continue;
        }
        *score = if *score > 0.0 { *score / params.repetition_penalty } else { *score * params.repetition_penalty };
        let times = count & (IN_PROMPT - 1);
        if times > 0 {
            *score -= params.presence_penalty + times as f32 * params.frequency_penalty;
        }
    }
}

/// A float as an integer of the same order.
fn order_key(value: f32) -> u32 {
    let bits = value.to_bits();
    bits ^ if bits >> 31 == 1 { u32::MAX } else { 1 << 31 }
}

/// The smallest key that top-k, top-p and min-p leave.
fn floor(scores: &[f32], largest: f32, params: &Params<'_>) -> u32 {
    let mut floor = 0;
    if params.top_k > 0 && params.top_k < scores.len() {
        let mut keys: Vec<u32> = scores.iter().map(|score| order_key(*score)).collect();
        let (_, kth, _) = keys.select_nth_unstable_by(params.top_k - 1, |a, b| b.cmp(a));
        floor = *kth;
    }
    if params.top_p < 1.0 {
        let kept = scores.iter().filter(|score| order_key(**score) >= floor);
        let masses: Vec<(u32, f32)> = kept.map(|score| (order_key(*score), (score - largest).exp())).collect();
        let total: f32 = masses.iter().map(|(_, mass)| mass).sum();
        floor = floor.max(mass_threshold(masses, total * params.top_p));
    }
    if params.min_p > 0.0 {
        floor = floor.max(order_key(largest + params.min_p.ln()));
    }
    floor
}

/// The largest key such that it and the keys above weigh `target` or more; 0 if none does.
///
/// The answer's bits are found eight at a time from a histogram of the masses.
fn mass_threshold(mut masses: Vec<(u32, f32)>, target: f32) -> u32 {
    let mut found = 0;
    let mut above = 0.0;
    for shift in [24, 16, 8, 0] {
        let mut histogram = [0.0; 256];
        for (key, mass) in &masses {
            histogram[(key >> shift & 0xff) as usize] += mass;
        }
        let digit = (0..256).rev().find(|digit| {
            let reached = above + histogram[*digit] >= target;
            if !reached {
                above += histogram[*digit];
            }
            reached
        });
        // Rounding may leave a bucket just short of what the pass before found in it.
        let Some(digit) = digit else { return found };
        found |= (digit as u32) << shift;
        masses.retain(|(key, _)| (key >> shift & 0xff) as usize == digit);
    }
    found
}

/// A well-mixed word (the finalizer of MurmurHash3).
fn mix(value: u32) -> u32 {
    let h = (value ^ value >> 16).wrapping_mul(0x85eb_ca6b);
    let h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// Gumbel noise from a word of random bits.
fn gumbel(bits: u32) -> f32 {
    // 23 bits: with 24 the half could round the number up to 1, whose noise is infinite.
    let uniform = ((bits >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0);
    -(-uniform.ln()).ln()
}

/// The id whose score plus Gumbel noise is largest: a draw from the softmax of the scores whose
/// keys reach `floor`.
fn gumbel_max(scores: &[f32], floor: u32, seed: [u32; 2], position: u32) -> Option<usize> {
    let key = mix(seed[0] ^ mix(seed[1] ^ mix(position)));
    let mut best = f32::NEG_INFINITY;
    let mut chosen = None;
    for (id, score) in scores.iter().enumerate() {
        if order_key(*score) < floor {
            continue;
        }
        let bits = mix(key ^ mix((id as u32).wrapping_add(0x9e37_79b9)));
        // The noise is at most -ln(1 - u), and n leading ones put u below 1 - 2^-(n + 1).
        let most_noise = (bits.leading_ones() + 1) as f32 * std::f32::consts::LN_2;
        if score + most_noise < best {
            continue;
        }
        let noisy = score + gumbel(bits);
        if noisy > best {
            best = noisy;
            chosen = Some(id);
        }
    }
    chosen
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
