use super::{Params, draw, floor, gumbel, mass_threshold, order_key, sample};
use crate::flex::test_data::Random;
use crate::ops::{IN_PROMPT, SAMPLE_PARAMS, SampleSpec};

/// A slot's parameters, everything off.
fn params(temperature: f32, seed: u64) -> Vec<i32> {
    let mut params = vec![0; SAMPLE_PARAMS];
    params[0] = temperature.to_bits() as i32;
    params[2] = 1.0f32.to_bits() as i32;
    params[4] = 1.0f32.to_bits() as i32;
    params[7] = seed as i32;
    params[8] = (seed >> 32) as i32;
    params
}

fn set(params: &mut [i32], index: usize, value: f32) {
    params[index] = value.to_bits() as i32;
}

struct Step {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    counts: Vec<i32>,
    out: Vec<i32>,
}

fn step(logits: &[f32], vocab: usize, params: &[i32], counts: Vec<i32>, spec: SampleSpec) -> Step {
    let m = logits.len() / vocab;
    let mut step = Step { tokens: vec![7; m], positions: vec![40; m], counts, out: vec![99; m * (2 + 2 * spec.top)] };
    let slots: Vec<i32> = (0..m as i32).rev().collect();
    let Step { tokens, positions, counts, out } = &mut step;
    sample(logits, vocab, tokens, positions, &slots, params, counts, spec, out);
    step
}

#[test]
fn greedy_takes_the_first_of_the_largest_and_reports_log_probabilities() {
    let mut random = Random::new(30);
    for vocab in [1, 5, 16, 1003] {
        let logits = random.normals(3 * vocab);
        let top = 5.min(vocab);
        let Step { tokens, positions, out, .. } = step(&logits, vocab, &[], vec![], SampleSpec { greedy: true, top });
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            let log_sum = logits.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            let mut order: Vec<usize> = (0..vocab).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            let out = &out[row * (2 + 2 * top)..][..2 + 2 * top];
            assert_eq!((out[0], tokens[row], positions[row]), (order[0] as i32, order[0] as i32, 41));
            let close = |bits: i32, id: usize| {
                let found = f64::from(f32::from_bits(bits as u32));
                let expected = f64::from(logits[id]) - log_sum;
                assert!((found - expected).abs() < 2e-6, "{found} is not {expected}");
            };
            close(out[1], order[0]);
            for n in 0..top {
                assert_eq!(out[2 + n], order[n] as i32);
                close(out[2 + top + n], order[n]);
            }
        }
    }
    let ties = [1.0, 3.0, 2.0, 3.0, 3.0];
    let out = step(&ties, 5, &[], vec![], SampleSpec { greedy: true, top: 3 }).out;
    assert_eq!((out[0], &out[2..5]), (1, &[1, 3, 4][..]));
}

#[test]
fn logits_that_are_not_finite_are_reported() {
    for vocab in [20, 32] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, vocab - 1] {
                let mut logits = vec![0.5; vocab];
                logits[at] = bad;
                for greedy in [true, false] {
                    let params = params(1.0, 1);
                    let found = step(&logits, vocab, &params, vec![0; vocab], SampleSpec { greedy, top: 0 });
                    assert_eq!((found.out[0], found.tokens[0]), (-1, 0), "{bad} at {at}, greedy {greedy}");
                }
            }
        }
    }
}

#[test]
fn draws_follow_the_distribution_and_repeat_with_the_seed() {
    let logits = [1.0, 0.0, 2.0, -1.0, 0.5];
    let temperature = 0.7;
    let weights = logits.map(|v: f32| f64::from(v / temperature).exp());
    let total: f64 = weights.iter().sum();
    let mut seen = [0.0; 5];
    let draws = 40_000;
    let params = params(temperature, 0x1234_5678_9abc_def0);
    let params = Params::read(&params);
    for position in 0..draws {
        let id = draw(&logits, &[0; 5], &params, position).unwrap();
        assert_eq!(Some(id), draw(&logits, &[0; 5], &params, position));
        seen[id] += 1.0 / f64::from(draws);
    }
    for (seen, weight) in seen.iter().zip(weights) {
        // Four standard deviations of the worst case.
        assert!((seen - weight / total).abs() < 0.01, "{seen} is not {}", weight / total);
    }
}

#[test]
fn another_seed_draws_another_sequence() {
    let logits = vec![0.0; 1000];
    let ids = |seed| -> Vec<usize> {
        let params = params(1.0, seed);
        let params = Params::read(&params);
        (0..20).map(|position| draw(&logits, &[0; 1000], &params, position).unwrap()).collect()
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
    assert_ne!(ids(1), ids(1 | 1 << 32));
}

/// Ids that the cuts leave.
fn kept(scores: &[f32], top_k: i32, top_p: f32, min_p: f32) -> Vec<usize> {
    let mut slot = params(1.0, 0);
    slot[1] = top_k;
    set(&mut slot, 2, top_p);
    set(&mut slot, 3, min_p);
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let floor = floor(scores, largest, &Params::read(&slot));
    (0..scores.len()).filter(|id| order_key(scores[*id]) >= floor).collect()
}

#[test]
fn cuts_keep_what_their_definitions_say() {
    // Probabilities 0.5, 0.25, 0.125, 0.125.
    let scores = [0.25f32.ln(), 0.5f32.ln(), 0.125f32.ln(), 0.125f32.ln()];
    assert_eq!(kept(&scores, 0, 1.0, 0.0), [0, 1, 2, 3]);
    assert_eq!(kept(&scores, 1, 1.0, 0.0), [1]);
    assert_eq!(kept(&scores, 2, 1.0, 0.0), [0, 1]);
    // Ties with the last included.
    assert_eq!(kept(&scores, 3, 1.0, 0.0), [0, 1, 2, 3]);
    assert_eq!(kept(&scores, 9, 1.0, 0.0), [0, 1, 2, 3]);
    assert_eq!(kept(&scores, 0, 0.4, 0.0), [1]);
    assert_eq!(kept(&scores, 0, 0.6, 0.0), [0, 1]);
    assert_eq!(kept(&scores, 0, 0.8, 0.0), [0, 1, 2, 3]);
    // The mass kept by top-k counts as the whole: 0.5 of 0.75 reaches 0.6.
    assert_eq!(kept(&scores, 2, 0.6, 0.0), [1]);
    assert_eq!(kept(&scores, 0, 1.0, 0.4), [0, 1]);
    assert_eq!(kept(&scores, 0, 1.0, 1.0), [1]);
}

#[test]
fn mass_threshold_agrees_with_sorting() {
    let mut random = Random::new(31);
    for _ in 0..200 {
        let masses: Vec<(u32, f32)> =
            (0..300).map(|_| (order_key(random.normal() * 5.0), random.uniform() + 0.01)).collect();
        let target = masses.iter().map(|(_, mass)| mass).sum::<f32>() * random.uniform() * 0.99;
        let mut sorted = masses.clone();
        sorted.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        let mut sum = 0.0;
        let place = sorted.iter().position(|(_, mass)| {
            sum += mass;
            sum >= target
        });
        let found = sorted.iter().position(|(key, _)| *key == mass_threshold(masses.clone(), target)).unwrap();
        // Sums in another order may round to the other side of the target.
        assert!(found.abs_diff(place.unwrap()) <= 1);
    }
}

#[test]
fn penalties_and_biases_change_the_scores() {
    let vocab = 6;
    let logits = [2.0, -2.0, 2.0, 2.0, 1.0, 0.0];
    let counts = [IN_PROMPT, IN_PROMPT, 3, IN_PROMPT | 1, 0, 0];
    let mut slot = params(1e-3, 0);
    let choice = |slot: &[i32]| draw(&logits, &counts, &Params::read(slot), 0);
    // At this temperature the largest score wins: 2, of three tokens, any.
    assert!(matches!(choice(&slot), Some(0 | 2 | 3)));
    // The repetition penalty halves every token seen: 1 of token 4 ties with 0, 2 and 3.
    set(&mut slot, 4, 4.0);
    assert_eq!(choice(&slot), Some(4));
    set(&mut slot, 4, 1.0);
    // Presence counts the answer only, frequency its occurrences.
    set(&mut slot, 5, 0.5);
    assert_eq!(choice(&slot), Some(0));
    slot[9] = 2;
    slot[10] = 0;
    set(&mut slot, 11, -5.0);
    slot[12] = 2;
    set(&mut slot, 13, -1.0);
    // Tokens 0 and 2 are pushed down, 3 has lost 0.5.
    assert_eq!(choice(&slot), Some(3));
    set(&mut slot, 6, 2.0);
    assert_eq!(choice(&slot), Some(4));
    let found = step(&logits, vocab, &slot, counts.to_vec(), SampleSpec { greedy: false, top: 0 });
    assert_eq!((found.out[0], found.tokens[0], found.positions[0], found.counts[4]), (4, 4, 41, 1));
}

#[test]
fn rows_do_not_depend_on_their_batch() {
    let mut random = Random::new(32);
    let vocab = 500;
    let logits = random.normals(3 * vocab);
    // Rows use the slots in reverse order.
    let all: Vec<i32> = (0..3).rev().flat_map(|row| params(1.0, row)).collect();
    let spec = SampleSpec { greedy: false, top: 2 };
    let together = step(&logits, vocab, &all, vec![0; 3 * vocab], spec);
    for row in 0..3 {
        let logits = &logits[row * vocab..][..vocab];
        let alone = step(logits, vocab, &params(1.0, row as u64), vec![0; vocab], spec);
        assert_eq!(together.out[row * 6..][..6], alone.out[..]);
        assert_eq!(together.counts[(2 - row) * vocab..][..vocab], alone.counts[..]);
    }
}

#[test]
fn noise_is_finite_and_bounded_by_the_leading_ones() {
    // An infinite noise would make about every hundredth token of a large vocabulary a wrong one.
    for low in [0, 1, 0x1ff, 0x200, 0x7fff_ffff, u32::MAX] {
        for ones in 0..=32 {
            let bits = !(u32::MAX.checked_shr(ones).unwrap_or(0)) | low.checked_shr(ones + 1).unwrap_or(0);
            let noise = gumbel(bits);
            assert!(noise.is_finite(), "{bits:#x}");
            assert!(noise <= (bits.leading_ones() + 1) as f32 * std::f32::consts::LN_2, "{bits:#x}: {noise}");
        }
    }
}
