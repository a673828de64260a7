use super::rope_append;
use crate::flex::kv_cache::{CacheMut, ElementsMut};
use crate::flex::test_data::Random;
use crate::ops::{KvSource, RopePairing, RopeSpec};

/// The operation on one head, in f64.
fn reference(head: &[f32], norm: &[f32], angles: &[f32], spec: &RopeSpec) -> Vec<f64> {
    let d = head.len();
    let mut x: Vec<f64> = head.iter().map(|x| f64::from(*x)).collect();
    if let Some(bits) = spec.qk_norm_eps_bits {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / d as f64;
        let factor = 1.0 / (mean + f64::from(f32::from_bits(bits))).sqrt();
        x = x.iter().zip(norm).map(|(x, w)| x * factor * f64::from(*w)).collect();
    }
    let mut out = x.clone();
    for i in 0..d / 2 {
        let (a, b) = match spec.pairing {
            RopePairing::Half => (i, i + d / 2),
            RopePairing::Interleaved => (2 * i, 2 * i + 1),
            RopePairing::None => continue,
        };
        let (cos, sin) = (f64::from(angles[i]), f64::from(angles[d / 2 + i]));
        out[a] = x[a] * cos - x[b] * sin;
        out[b] = x[a] * sin + x[b] * cos;
    }
    out
}

fn cache(held: &mut [f32], capacity: usize, width: usize) -> CacheMut<'_> {
    CacheMut { elements: ElementsMut::F32(held), capacity, width }
}

fn assert_close(found: &[f32], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}

fn check(spec: RopeSpec, m: usize) {
    let mut random = Random::new(13);
    let (d, capacity, slot_count) = (spec.head_dim, 300, 2);
    let width = (spec.heads + 2 * spec.kv_heads) * d;
    let qkv = random.normals(m * width);
    let (q_norm, k_norm) = (random.normals(d), random.normals(d));
    let table: Vec<f32> = (0..capacity * d).map(|_| random.uniform() * 2.0 - 1.0).collect();
    let positions: Vec<i32> = (0..m).map(|row| (row * 7 % capacity) as i32).collect();
    let slots: Vec<i32> = (0..m).map(|row| (row % slot_count) as i32).collect();
    let before = f32::MAX;
    let mut k_cache = vec![before; slot_count * spec.kv_heads * capacity * d];
    let mut v_cache = k_cache.clone();
    let mut q = vec![f32::NAN; m * spec.heads * d];
    rope_append(
        &qkv,
        width,
        &q_norm,
        &k_norm,
        &table,
        d,
        &positions,
        &slots,
        cache(&mut k_cache, capacity, d),
        cache(&mut v_cache, capacity, d),
        &spec,
        &mut q,
    );
    for row in 0..m {
        let position = positions[row] as usize;
        let angles = &table[position * d..][..d];
        let heads: Vec<&[f32]> = qkv[row * width..][..width].chunks_exact(d).collect();
        for head in 0..spec.heads {
            assert_close(&q[(row * spec.heads + head) * d..][..d], &reference(heads[head], &q_norm, angles, &spec));
        }
        for head in 0..spec.kv_heads {
            let at = ((slots[row] as usize * spec.kv_heads + head) * capacity + position) * d;
            let (key, value) = (heads[spec.heads + head], heads[spec.heads + spec.kv_heads + head]);
            assert_close(&k_cache[at..at + d], &reference(key, &k_norm, angles, &spec));
            assert_eq!(&v_cache[at..at + d], value);
        }
    }
    for cache in [&k_cache, &v_cache] {
        let written = cache.iter().filter(|v| **v != before).count();
        assert_eq!(written, m * spec.kv_heads * d, "wrote beside the rows' places");
    }
}

#[test]
fn heads_are_normed_rotated_and_appended() {
    for pairing in [RopePairing::Half, RopePairing::Interleaved, RopePairing::None] {
        for qk_norm_eps_bits in [None, Some(1e-6f32.to_bits())] {
            check(
                RopeSpec { heads: 4, kv_heads: 2, head_dim: 20, pairing, qk_norm_eps_bits, kv: KvSource::Projected },
                3,
            );
            check(
                RopeSpec { heads: 8, kv_heads: 8, head_dim: 64, pairing, qk_norm_eps_bits, kv: KvSource::Projected },
                200,
            );
        }
    }
}

#[test]
fn rows_outside_the_cache_are_idle() {
    let spec = RopeSpec {
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        pairing: RopePairing::Half,
        qk_norm_eps_bits: None,
        kv: KvSource::Projected,
    };
    let (capacity, slot_count) = (3, 2);
    let (positions, slots) = ([-1, 3, 0, 0], [0, 0, 2, -1]);
    let qkv = vec![1.0; 4 * 16];
    let mut k_cache = vec![5.0; slot_count * capacity * 4];
    let mut v_cache = k_cache.clone();
    let mut q = vec![f32::NAN; 4 * 8];
    let table = vec![1.0; capacity * 4];
    rope_append(
        &qkv,
        16,
        &[],
        &[],
        &table,
        4,
        &positions,
        &slots,
        cache(&mut k_cache, capacity, 4),
        cache(&mut v_cache, capacity, 4),
        &spec,
        &mut q,
    );
    assert!(k_cache.iter().chain(&v_cache).all(|v| *v == 5.0));
    assert!(q[..16].iter().all(|v| *v == 0.0));
}
