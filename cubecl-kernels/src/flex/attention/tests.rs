use half::f16;

use super::tiles::Proof;
use super::{Cache, attention_at};
use crate::flex::kv_cache::Elements;
use crate::flex::simd::Level;
use crate::flex::test_data::Random;
use crate::ops::AttentionSpec;

#[derive(Clone)]
struct Case {
    spec: AttentionSpec,
    capacity: usize,
    positions: Vec<i32>,
    slots: Vec<i32>,
}

fn spec(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) -> AttentionSpec {
    let scale = (head_dim as f32).powf(-0.5);
    AttentionSpec { heads, kv_heads, head_dim, scale, window, consecutive: false, narrow: true }
}

fn cache(elements: Elements<'_>, capacity: usize, head_dim: usize) -> Cache<'_> {
    Cache { elements, capacity, width: head_dim, head_dim }
}

/// Plain attention in f64.
fn reference(case: &Case, q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f64> {
    let AttentionSpec { heads, kv_heads, head_dim: d, scale, window, .. } = case.spec;
    let mut out = Vec::new();
    for (row, (position, slot)) in case.positions.iter().zip(&case.slots).enumerate() {
        let end = *position as usize + 1;
        let start = window.map_or(0, |window| end.saturating_sub(window));
        for head in 0..heads {
            let q = &q[(row * heads + head) * d..][..d];
            let base = (*slot as usize * kv_heads + head / (heads / kv_heads)) * case.capacity;
            let at = |cache: &[f32], j: usize, i: usize| f64::from(cache[(base + j) * d + i]);
            let score = |j| (0..d).map(|i| f64::from(q[i]) * at(keys, j, i)).sum::<f64>() * f64::from(scale);
            let scores: Vec<f64> = (start..end).map(score).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..d {
                let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * at(values, start + j, i)).sum();
                out.push(sum / total);
            }
        }
    }
    out
}

fn check(case: &Case) {
    let mut random = Random::new(20);
    let AttentionSpec { heads, kv_heads, head_dim: d, .. } = case.spec;
    let slot_count = case.slots.iter().max().map_or(1, |slot| *slot as usize + 1);
    let q = random.normals(case.positions.len() * heads * d);
    let mut keys = random.normals(slot_count * kv_heads * case.capacity * d);
    let mut values = random.normals(keys.len());
    // What nobody sees may be anything.
    for slot in 0..slot_count {
        let mine = case.positions.iter().zip(&case.slots).filter(|(_, s)| **s as usize == slot);
        let used = mine.map(|(position, _)| *position as usize + 1).max().unwrap_or(0);
        for head in 0..kv_heads {
            let base = (slot * kv_heads + head) * case.capacity;
            keys[(base + used) * d..(base + case.capacity) * d].fill(f32::NAN);
            values[(base + used) * d..(base + case.capacity) * d].fill(f32::NAN);
        }
    }
    let expected = reference(case, &q, &keys, &values);
    for level in Level::available() {
        let caches = [&keys, &values].map(|held| cache(Elements::F32(held), case.capacity, d));
        compare(level, case, &q, caches, &expected, 1e-5);
    }
    let halves = [keys, values].map(|held| held.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>());
    let [keys, values] = halves.each_ref().map(|held| held.iter().map(|x| x.to_f32()).collect::<Vec<_>>());
    let expected = reference(case, &q, &keys, &values);
    for level in Level::available() {
        let caches = halves.each_ref().map(|held| cache(Elements::F16(held), case.capacity, d));
        // Scores of normal numbers are large, rounded ones off by some hundredths.
        let bound = if Proof::new(level, caches[0].head(0), d).is_some() { 4e-2 } else { 1e-5 };
        compare(level, case, &q, caches, &expected, bound);
        let exact = AttentionSpec { narrow: false, ..case.spec };
        compare(level, &Case { spec: exact, ..case.clone() }, &q, caches, &expected, 1e-5);
    }
}

fn compare(level: Level, case: &Case, q: &[f32], caches: [Cache<'_>; 2], expected: &[f64], bound: f64) {
    let mut out = vec![f32::NAN; q.len()];
    attention_at(level, q, caches, &case.positions, &case.slots, &case.spec, &mut out);
    for (i, (found, expected)) in out.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error < bound, "{level:?} {:?} element {i}: {found} is not {expected}", case.spec);
    }
}

#[test]
fn decode_agrees_with_the_reference() {
    for (heads, kv_heads, d) in [(4, 2, 8), (5, 5, 20), (9, 3, 64), (8, 1, 80), (4, 4, 128)] {
        for position in [0, 1, 15, 16, 63, 64, 200] {
            for window in [None, Some(1), Some(40), Some(500)] {
                let (positions, slots) = (vec![position, position / 2, 3], vec![1, 0, 2]);
                check(&Case { spec: spec(heads, kv_heads, d, window), capacity: 210, positions, slots });
            }
        }
    }
}

#[test]
fn long_contexts_are_split_and_joined() {
    for window in [None, Some(1500)] {
        let (positions, slots) = (vec![2999, 1023, 1024], vec![0, 1, 2]);
        check(&Case { spec: spec(4, 2, 32, window), capacity: 3000, positions, slots });
    }
}

#[test]
fn prefill_agrees_with_the_reference() {
    for (heads, kv_heads, d) in [(4, 2, 16), (6, 2, 20), (3, 3, 64)] {
        for window in [None, Some(7), Some(100)] {
            for (first, rows) in [(0, 130), (57, 70)] {
                let positions = (first..first + rows).collect();
                let slots = vec![1; rows as usize];
                check(&Case { spec: spec(heads, kv_heads, d, window), capacity: 140, positions, slots });
            }
        }
    }
}

#[test]
fn rows_of_several_prompts_may_be_mixed() {
    let positions = (0..40).chain(10..50).chain([3, 99]).collect();
    let slots = [vec![2; 40], vec![0; 40], vec![1, 2]].concat();
    check(&Case { spec: spec(4, 1, 32, Some(33)), capacity: 100, positions, slots });
}

#[test]
fn rows_outside_the_cache_are_idle() {
    let spec = spec(2, 1, 16, None);
    let (keys, values) = (vec![1.0; 4 * 16], vec![1.0; 4 * 16]);
    let mut out = vec![f32::NAN; 4 * 32];
    let cache = [&keys, &values].map(|held| cache(Elements::F32(held), 4, 16));
    attention_at(Level::best(), &vec![1.0; 4 * 32], cache, &[-1, 4, 2, 1], &[0, 0, 1, 0], &spec, &mut out);
    assert!(out[..96].iter().all(|v| *v == 0.0));
    assert!(out[96..].iter().all(|v| (*v - 1.0).abs() < 1e-6));
}

/// Run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut random = Random::new(21);
    let spec = spec(32, 8, 64, None);
    let capacity = 4096;
    let keys: Vec<_> = random.normals(8 * capacity * 64).into_iter().map(f16::from_f32).collect();
    let values = keys.clone();
    for (first, rows) in [(100, 1), (1000, 1), (4000, 1), (0, 512), (3000, 512)] {
        let positions: Vec<i32> = (first..first + rows).collect();
        let q = random.normals(positions.len() * 2048);
        let mut out = vec![0.0; q.len()];
        let slots = vec![0; positions.len()];
        let mut best = f64::INFINITY;
        for _ in 0..20 {
            let start = std::time::Instant::now();
            let cache = [&keys, &values].map(|held| cache(Elements::F16(held), capacity, spec.head_dim));
            attention_at(Level::best(), &q, cache, &positions, &slots, &spec, &mut out);
            best = best.min(start.elapsed().as_secs_f64());
        }
        let pairs: f64 = positions.iter().map(|p| f64::from(*p) + 1.0).sum();
        println!("{rows} rows at {first}: {:.0} us, {:.1} GFLOP/s", best * 1e6, pairs * 4.0 * 2048.0 / best / 1e9);
    }
}
