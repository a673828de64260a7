//! What Gemma 4 asks of kernels, against the plain references, on every device: sources of keys and
//! values, heads of 512 elements, activations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::ops::{self, AttentionSpec, KvSource, RopePairing, RopeSpec};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, ints, tensor};

#[test]
fn keys_and_values_come_from_where_the_layer_says() {
    each_device(|device, name| {
        for kv in [KvSource::Projected, KvSource::NormedValues, KvSource::KeysAsValues, KvSource::Shared] {
            for (heads, kv_heads, d) in [(4, 2, 12), (8, 1, 512)] {
                let eps = Some(1e-6f32.to_bits());
                let spec =
                    RopeSpec { heads, kv_heads, head_dim: d, pairing: RopePairing::Half, qk_norm_eps_bits: eps, kv };
                let mut noise = Noise((heads * d) as u64);
                let (slots, capacity, positions, rows) = (3, 9, [8, 0, 3], [0, 2, 1]);
                let m = positions.len();
                let parts = match kv {
                    KvSource::Projected | KvSource::NormedValues => 2,
                    KvSource::KeysAsValues => 1,
                    KvSource::Shared => 0,
                };
                let width = (heads + parts * kv_heads) * d;
                let qkv = noise.floats(m * width);
                let (qn, kn, table) = (noise.floats(d), noise.floats(d), noise.floats(capacity * d));
                let shape = [slots, kv_heads, capacity, d];
                let before = vec![7.0; shape.iter().product()];
                let (q, k, v) = ops::rope_append(
                    tensor(&qkv, [m, width], device),
                    tensor(&qn, [d], device),
                    tensor(&kn, [d], device),
                    tensor(&table, [capacity, d], device),
                    ints(&positions, device),
                    ints(&rows, device),
                    tensor(&before, shape, device),
                    tensor(&before, shape, device),
                    spec,
                );
                let (q, k, v) = (floats(q), floats(k), floats(v));
                let what = format!("{name} {spec:?}");
                let (mut keys, mut values) = (before.clone(), before.clone());
                for i in 0..m {
                    let p = positions[i] as usize;
                    let row = &qkv[i * width..(i + 1) * width];
                    let (eq, ek, ev) = reference::rope_row(row, &qn, &kn, &table[p * d..(p + 1) * d], &spec);
                    close(&what, &q[i * heads * d..(i + 1) * heads * d], &eq, 1e-5);
                    for (h, (key, value)) in ek.chunks_exact(d).zip(ev.chunks_exact(d)).enumerate() {
                        let at = ((rows[i] as usize * kv_heads + h) * capacity + p) * d;
                        keys[at..at + d].copy_from_slice(key);
                        values[at..at + d].copy_from_slice(value);
                    }
                }
                close(&what, &k, &keys, 1e-5);
                close(&what, &v, &values, 1e-5);
            }
        }
    });
}

/// Groups of heads that do not fit one cube's memory.
#[test]
fn attention_takes_heads_of_512_elements() {
    each_device(|device, name| {
        for (heads, kv_heads, d) in [(8, 1, 512), (16, 2, 256), (6, 2, 512)] {
            for window in [None, Some(40)] {
                let mut noise = Noise(d as u64);
                let (slots, capacity) = (2, 150);
                let shape = [slots, kv_heads, capacity, d];
                let (k, v) = (noise.floats(shape.iter().product()), noise.floats(shape.iter().product()));
                let decode: (Vec<i32>, Vec<i32>) = (vec![0, 149, 128], vec![1, 0, 1]);
                let prefill: (Vec<i32>, Vec<i32>) = ((120..131).collect(), vec![1; 11]);
                for ((positions, rows), consecutive) in [(decode, false), (prefill, true)] {
                    let m = positions.len();
                    let spec =
                        AttentionSpec { heads, kv_heads, head_dim: d, scale: 0.25, window, consecutive, narrow: false };
                    let q = noise.floats(m * heads * d);
                    let found = floats(ops::attention(
                        tensor(&q, [m, heads * d], device),
                        tensor(&k, shape, device),
                        tensor(&v, shape, device),
                        ints(&positions, device),
                        ints(&rows, device),
                        spec,
                    ));
                    for (i, found) in found.chunks_exact(heads * d).enumerate() {
                        let slot = rows[i] as usize * kv_heads * capacity * d;
                        let part = slot..slot + kv_heads * capacity * d;
                        let q = &q[i * heads * d..(i + 1) * heads * d];
                        let (k, v) = (&k[part.clone()], &v[part]);
                        let expected = reference::attention_row(q, k, v, capacity, positions[i] as usize, &spec);
                        close(&format!("{name} {spec:?} row {i}"), found, &expected, 2e-5);
                    }
                }
            }
        }
    });
}

#[test]
fn activations_equal_the_reference() {
    each_device(|device, name| {
        for (m, n) in [(1, 1), (3, 129), (17, 64)] {
            let gate = Noise(9).floats(m * n).iter().map(|v| v * 12.0).collect::<Vec<_>>();
            let up = Noise(8).floats(m * n);
            let side_by_side =
                gate.chunks_exact(n).zip(up.chunks_exact(n)).flat_map(|(g, u)| [g, u].concat()).collect::<Vec<_>>();
            let expected = reference::gelu_mul(&gate, &up);
            let merged = tensor(&side_by_side, [m, 2 * n], device);
            close(name, &floats(ops::gelu_mul(merged.clone())), &expected, 1e-5);
            let found = ops::gelu_mul_table(tensor(&gate, [m, n], device), merged, n);
            close(name, &floats(found), &expected, 1e-5);
            let expected = gate.iter().map(|g| g.max(0.0).powi(2)).collect::<Vec<_>>();
            close(name, &floats(ops::relu2(tensor(&gate, [m, n], device))), &expected, 1e-6);
        }
    });
}

#[test]
fn a_norm_before_an_addition_equals_the_reference() {
    each_device(|device, name| {
        for (m, hidden) in [(1, 1), (3, 255), (2, 1024), (70, 1500)] {
            let mut noise = Noise(hidden as u64);
            let (x, residual, weight) = (noise.floats(m * hidden), noise.floats(m * hidden), noise.floats(hidden));
            let matrix = |values: &[f32]| tensor(values, [m, hidden], device);
            let found = ops::rms_norm_add(matrix(&x), matrix(&residual), tensor(&weight, [hidden], device), 1e-5, 0.7);
            let normed = reference::rms_norm(&x, &weight, 1e-5);
            let expected = normed.iter().zip(&residual).map(|(n, r)| (n + r) * 0.7).collect::<Vec<_>>();
            close(name, &floats(found), &expected, 1e-5);
        }
    });
}
