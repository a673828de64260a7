//! Every kernel against its plain reference, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::formats::Format;
use atelico_kernels::ops::{
    self, Activation, AttentionSpec, Fusion, IN_PROMPT, KvSource, Precision, RopePairing, RopeSpec, SAMPLE_PARAMS,
    SampleSpec, SampleState, Weight,
};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, ints, tensor};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

#[test]
fn unpacked_blocks_equal_the_scalar_reference() {
    each_device(|device, name| {
        for format in Format::ALL {
            let mut noise = Noise(7);
            let (rows, cols) = (3, if format.block_len() == 1 { 40 } else { format.block_len() * 3 });
            // Any bits at all, NaN and infinite scales included.
            let bytes = (0..rows * format.row_bytes(cols).unwrap()).map(|_| noise.word() as u8).collect::<Vec<_>>();
            let mut expected = vec![0.0; rows * cols];
            format.dequantize(&bytes, &mut expected);
            let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
            let found = floats(ops::dequantize(&weight, FloatDType::F32));
            for (block, (found, expected)) in
                found.chunks(format.block_len().max(8)).zip(expected.chunks(format.block_len().max(8))).enumerate()
            {
                // `d q - m` may be one rounding or two: the last bit of the block's largest term.
                let largest = expected.iter().filter(|v| v.is_finite()).map(|v| v.abs()).fold(0.0, f32::max);
                for (a, b) in found.iter().zip(expected) {
                    let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= f32::EPSILON * largest;
                    // Devices may flush values below the smallest normal one to zero.
                    let tiny = a.abs().max(b.abs()) < 2.0 * f32::MIN_POSITIVE;
                    assert!(same || tiny, "{name} {format:?} block {block}: {a} expected {b}");
                }
            }
        }
    });
}

#[test]
fn products_equal_the_reference() {
    each_device(|device, name| {
        for (f, format) in Format::ALL.into_iter().enumerate() {
            let block = format.block_len();
            // Every width and every shape, not every pair: each pair is a kernel to compile.
            let widths = if block == 1 { vec![8, 20, 33, 64, 136, 2048] } else { vec![block, block * 3, block * 20] };
            let shapes = [(1, 1), (7, 1), (33, 3), (70, 8), (65, 9), (130, 70)];
            for (i, (rows, m)) in shapes.into_iter().enumerate() {
                let cols = widths[(i + f) % widths.len()];
                let mut noise = Noise((rows * 1000 + cols + m) as u64);
                let bytes = noise.blocks(format, rows * cols);
                let x = noise.floats(m * cols);
                let expected = reference::linear(&x, format, &bytes, rows, cols);
                let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
                let found = ops::linear(tensor(&x, [m, cols], device), &weight, Precision::F32);
                close(&format!("{name} {format:?} [{rows}, {cols}] x {m}"), &floats(found), &expected, 2e-5);
            }
        }
    });
}

/// Norm, activation and residual that ride along with a product equal the steps one by one.
#[test]
fn fused_products_equal_their_parts() {
    // Normed inputs are large beside what their products cancel to.
    each_device(|device, name| {
        for (f, format) in Format::ALL.into_iter().enumerate() {
            let cols = if format.block_len() == 1 { 520 } else { format.block_len() * 5 };
            for (i, (rows, m)) in [(38, 1), (14, 3), (70, 8), (6, 9)].into_iter().enumerate() {
                // For several columns one of three: each is a kernel to compile.
                let tries = |which: usize| m == 1 || m > 8 || (f + i) % 3 == which;
                let mut noise = Noise((rows * 1000 + m) as u64);
                let bytes = noise.blocks(format, rows * cols);
                let (x, norm) = (noise.floats(m * cols), noise.floats(cols));
                let residual = noise.floats(m * rows);
                let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
                let run = |normed: bool, activation: Activation, added: bool| {
                    let fusion = Fusion {
                        norm: normed.then(|| (tensor(&norm, [cols], device), 1e-5)),
                        activation,
                        residual: added.then(|| tensor(&residual, [m, rows], device)),
                        bias: None,
                    };
                    let x = tensor(&x, [m, cols], device);
                    floats(ops::linear_fused(x, std::slice::from_ref(&weight), fusion, Precision::F32))
                };
                let normed = reference::rms_norm(&x, &norm, 1e-5);
                let product = reference::linear(&normed, format, &bytes, rows, cols);
                let what = format!("{name} {format:?} [{rows}, {cols}] x {m}");
                if tries(0) {
                    let squares = product.iter().map(|v| v.max(0.0).powi(2)).collect::<Vec<_>>();
                    let activation = if f % 2 == 0 { Activation::Relu2 } else { Activation::None };
                    let expected = if f % 2 == 0 { &squares } else { &product };
                    close(&what, &run(true, activation, false), expected, 1e-4);
                }
                if tries(1) {
                    let gated = reference::silu_mul(&product, rows / 2);
                    close(&what, &run(true, Activation::SwiGlu, false), &gated, 1e-4);
                }
                let plain = reference::linear(&x, format, &bytes, rows, cols);
                let sum = plain.iter().zip(&residual).map(|(a, b)| a + b).collect::<Vec<_>>();
                if tries(2) {
                    close(&what, &run(false, Activation::None, true), &sum, 1e-4);
                }
            }
        }
    });
}

#[test]
fn merged_products_lie_side_by_side() {
    each_device(|device, name| {
        let mut noise = Noise(3);
        let (cols, m) = (256, 2);
        let x = noise.floats(m * cols);
        let parts = [(Format::Q4_K, 5), (Format::Q6_K, 9), (Format::F16, 3)];
        let stored = parts.map(|(format, rows)| noise.blocks(format, rows * cols));
        let weights = parts.iter().zip(&stored).map(|(&(f, rows), b)| Weight::new(f, rows, cols, b, device).unwrap());
        let weights = weights.collect::<Vec<_>>();
        let found = floats(ops::linear_merged(tensor(&x, [m, cols], device), &weights, Precision::F32));
        let outputs = parts.iter().zip(&stored).map(|(&(f, rows), b)| reference::linear(&x, f, b, rows, cols));
        let outputs = outputs.collect::<Vec<_>>();
        let expected = (0..m)
            .flat_map(|i| outputs.iter().flat_map(move |o| o[i * o.len() / m..(i + 1) * o.len() / m].to_vec()))
            .collect::<Vec<_>>();
        close(name, &found, &expected, 2e-5);
    });
}

#[test]
fn rows_are_picked() {
    each_device(|device, name| {
        for format in Format::ALL {
            let cols = if format.block_len() == 1 { 33 } else { format.block_len() * 2 };
            let rows = 11;
            let bytes = Noise(5).blocks(format, rows * cols);
            let mut all = vec![0.0; rows * cols];
            format.dequantize(&bytes, &mut all);
            let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
            let picked = [10, 0, 3, 3];
            let found = floats(ops::embedding(&weight, ints(&picked, device)));
            let expected = picked.iter().flat_map(|&r| all[r as usize * cols..(r as usize + 1) * cols].to_vec());
            close(&format!("{name} {format:?}"), &found, &expected.collect::<Vec<_>>(), 1e-6);
        }
    });
}

#[test]
fn norms_equal_the_reference() {
    each_device(|device, name| {
        for (m, hidden) in [(1, 1), (1, 576), (3, 255), (2, 1024), (9, 33)] {
            let mut noise = Noise(hidden as u64);
            let (x, residual, weight) = (noise.floats(m * hidden), noise.floats(m * hidden), noise.floats(hidden));
            let w = tensor(&weight, [hidden], device);
            let found = ops::rms_norm(tensor(&x, [m, hidden], device), w.clone(), 1e-5);
            close(name, &floats(found), &reference::rms_norm(&x, &weight, 1e-5), 1e-5);
            let (sum, norm) =
                ops::add_rms_norm(tensor(&x, [m, hidden], device), tensor(&residual, [m, hidden], device), w, 1e-5);
            let expected = x.iter().zip(&residual).map(|(a, b)| a + b).collect::<Vec<_>>();
            close(name, &floats(sum), &expected, 1e-6);
            close(name, &floats(norm), &reference::rms_norm(&expected, &weight, 1e-5), 1e-5);
        }
    });
}

#[test]
fn gated_activations_equal_the_reference() {
    each_device(|device, name| {
        for (m, n) in [(1, 1), (3, 129), (17, 64)] {
            let x = Noise(9).floats(m * 2 * n).iter().map(|v| v * 12.0).collect::<Vec<_>>();
            let found = floats(ops::silu_mul(tensor(&x, [m, 2 * n], device)));
            close(name, &found, &reference::silu_mul(&x, n), 1e-5);
        }
    });
}

#[test]
fn heads_are_prepared_and_cached() {
    each_device(|device, name| {
        let pairings = [RopePairing::Half, RopePairing::Interleaved, RopePairing::None];
        // Elements of a head that are rotated, and columns after the values.
        for (heads, kv_heads, d, rotary, rest) in
            [(4, 2, 16, 16, 0), (3, 1, 64, 16, 192), (2, 2, 128, 128, 0), (6, 3, 80, 20, 1)]
        {
            for pairing in pairings {
                for norm in [None, Some(1e-6f32.to_bits())] {
                    let spec = RopeSpec {
                        heads,
                        kv_heads,
                        head_dim: d,
                        pairing,
                        qk_norm_eps_bits: norm,
                        kv: KvSource::Projected,
                    };
                    let mut noise = Noise((heads * d) as u64);
                    let (slots, capacity, m) = (3, 9, 4);
                    let width = (heads + 2 * kv_heads) * d + rest;
                    let qkv = noise.floats(m * width);
                    let (qn, kn, table) = (noise.floats(d), noise.floats(d), noise.floats(capacity * rotary));
                    let (positions, rows) = ([8, 0, 3, 4], [0, 2, 1, 1]);
                    let cache =
                        |_| tensor(&vec![0.0; slots * kv_heads * capacity * d], [slots, kv_heads, capacity, d], device);
                    let (q, k, v) = ops::rope_append(
                        tensor(&qkv, [m, width], device),
                        tensor(&qn, [d], device),
                        tensor(&kn, [d], device),
                        tensor(&table, [capacity, rotary], device),
                        ints(&positions, device),
                        ints(&rows, device),
                        cache(0),
                        cache(1),
                        spec,
                    );
                    let (q, k, v) = (floats(q), floats(k), floats(v));
                    let what = format!("{name} {spec:?}");
                    let mut filled = 0;
                    for i in 0..m {
                        let p = positions[i] as usize;
                        let (eq, ek, ev) = reference::rope_row(
                            &qkv[i * width..(i + 1) * width],
                            &qn,
                            &kn,
                            &table[p * rotary..(p + 1) * rotary],
                            &spec,
                        );
                        close(&what, &q[i * heads * d..(i + 1) * heads * d], &eq, 1e-5);
                        for h in 0..kv_heads {
                            let at = ((rows[i] as usize * kv_heads + h) * capacity + p) * d;
                            close(&what, &k[at..at + d], &ek[h * d..(h + 1) * d], 1e-5);
                            close(&what, &v[at..at + d], &ev[h * d..(h + 1) * d], 1e-6);
                            filled += d;
                        }
                    }
                    assert!(v.iter().filter(|x| **x != 0.0).count() <= filled, "{what}: wrote elsewhere");
                }
            }
        }
    });
}

/// One kernel for a decode step's attention equals its two parts, the caches' new rows included.
#[test]
fn decode_attention_equals_its_parts() {
    each_device(|device, name| {
        let shapes = [(4, 2, 16), (8, 2, 64), (3, 3, 80), (16, 2, 128), (8, 1, 256), (4, 2, 512)];
        let pairings = [RopePairing::Half, RopePairing::Interleaved, RopePairing::None];
        for (case, (heads, kv_heads, d)) in shapes.into_iter().enumerate() {
            for (window, dtype, bound) in [
                (None, DType::F32, 2e-5),
                (Some(50), DType::F32, 2e-5),
                (Some(1), DType::F16, 4e-3),
                (Some(50), DType::F16, 4e-3),
                (None, DType::F16, 4e-3),
            ] {
                let mut noise = Noise(d as u64);
                // One row's keys are many enough to be shared among cubes, and to be merged by others.
                let (slots, capacity) = (4, 1300);
                let shape = [slots, kv_heads, capacity, d];
                let caches = [(); 2].map(|()| noise.floats(shape.iter().product()));
                let (positions, rows) = (vec![0, 1299, 128, 31], vec![2, 0, 1, 3]);
                let m = positions.len();
                // Every other case turns half of a head, and has columns after the projection.
                let rotary = if case % 2 == 0 { d } else { d / 2 };
                let gate = (case % 3 > 0).then_some((heads + 2 * kv_heads) * d + case % 2 * 12);
                let width = gate.map_or((heads + 2 * kv_heads) * d + case % 2 * 12, |gate| gate + heads * d + 4);
                let qkv = noise.floats(m * width).iter().map(|v| v * 2.0).collect::<Vec<_>>();
                let (q_norm, k_norm) = (noise.floats(d), noise.floats(d));
                let table = noise.floats(capacity * rotary);
                let rope = RopeSpec {
                    heads,
                    kv_heads,
                    head_dim: d,
                    pairing: pairings[case % 3],
                    qk_norm_eps_bits: (case % 2 == 1).then(|| 1e-5f32.to_bits()),
                    kv: KvSource::Projected,
                };
                let scale = (d as f32).powf(-0.5);
                let spec =
                    AttentionSpec { heads, kv_heads, head_dim: d, scale, window, consecutive: false, narrow: false };
                // In one row: a device may leave gaps between the rows of what it casts or takes itself.
                let cache = |i: usize| {
                    let data = TensorData::new(caches[i].clone(), [caches[i].len()]).convert_dtype(dtype);
                    Tensor::<1>::from_data(data, (device, dtype)).reshape(shape)
                };
                let (positions, rows) = (ints(&positions, device), ints(&rows, device));
                let projection = || tensor(&qkv, [m, width], device);
                let norms = || (tensor(&q_norm, [d], device), tensor(&k_norm, [d], device));
                let table = || tensor(&table, [capacity, rotary], device);
                let arrivals = ints(&vec![0; m * heads], device);
                let (found, found_k, found_v) = ops::rope_attention(
                    projection(),
                    norms().0,
                    norms().1,
                    table(),
                    positions.clone(),
                    rows.clone(),
                    cache(0),
                    cache(1),
                    arrivals.clone(),
                    rope,
                    spec,
                    gate,
                );
                let (q, k, v) = ops::rope_append(
                    projection(),
                    norms().0,
                    norms().1,
                    table(),
                    positions.clone(),
                    rows.clone(),
                    cache(0),
                    cache(1),
                    rope,
                );
                let mut expected = floats(ops::attention(q, k.clone(), v.clone(), positions, rows, spec));
                if let Some(gate) = gate {
                    for (out, qkv) in expected.chunks_exact_mut(heads * d).zip(qkv.chunks_exact(width)) {
                        out.iter_mut().zip(&qkv[gate..]).for_each(|(out, gate)| *out /= 1.0 + (-gate).exp());
                    }
                }
                let what = format!("{name} {rope:?} {spec:?} {dtype:?} gate {gate:?}");
                let left = arrivals.into_data().try_to_vec::<i32>().unwrap();
                assert!(left.iter().all(|count| *count == 0), "{what}: {left:?} arrived");
                close(&what, &floats(found), &expected, bound);
                close(&what, &floats(found_k.cast(DType::F32)), &floats(k.cast(DType::F32)), bound);
                close(&what, &floats(found_v.cast(DType::F32)), &floats(v.cast(DType::F32)), bound);
            }
        }
    });
}

#[test]
fn attention_equals_the_reference() {
    each_device(|device, name| {
        for (heads, kv_heads, d) in [(4, 2, 16), (8, 1, 64), (3, 3, 80), (4, 1, 128), (2, 1, 256)] {
            for window in [None, Some(1), Some(50)] {
                let mut noise = Noise(d as u64);
                let (slots, capacity) = (3, 330);
                let shape = [slots, kv_heads, capacity, d];
                let (k, v) = (noise.floats(shape.iter().product()), noise.floats(shape.iter().product()));
                let decode: (Vec<i32>, Vec<i32>) = (vec![0, 329, 128, 127], vec![2, 0, 1, 0]);
                let prefill: (Vec<i32>, Vec<i32>) = ((120..157).collect(), vec![1; 37]);
                for ((positions, rows), consecutive) in [(decode, false), (prefill, true)] {
                    let m = positions.len();
                    let scale = (d as f32).powf(-0.5);
                    let spec =
                        AttentionSpec { heads, kv_heads, head_dim: d, scale, window, consecutive, narrow: false };
                    let q = noise.floats(m * heads * d).iter().map(|v| v * 4.0).collect::<Vec<_>>();
                    let found = floats(ops::attention(
                        tensor(&q, [m, heads * d], device),
                        tensor(&k, shape, device),
                        tensor(&v, shape, device),
                        ints(&positions, device),
                        ints(&rows, device),
                        spec,
                    ));
                    let of_slot = kv_heads * capacity * d;
                    let expected = (0..m).flat_map(|i| {
                        let slot = rows[i] as usize * of_slot;
                        let q = &q[i * heads * d..(i + 1) * heads * d];
                        let (k, v) = (&k[slot..slot + of_slot], &v[slot..slot + of_slot]);
                        reference::attention_row(q, k, v, capacity, positions[i] as usize, &spec)
                    });
                    close(&format!("{name} {spec:?}"), &found, &expected.collect::<Vec<_>>(), 2e-5);
                }
            }
        }
    });
}

struct Choice {
    id: i32,
    values: Vec<i32>,
    tokens: Vec<i32>,
    positions: Vec<i32>,
    counts: Vec<i32>,
}

/// One row in slot 1 of 2, at position 41.
fn choose(logits: &[f32], params: &[i32], counts: &[i32], spec: SampleSpec, device: &Device) -> Choice {
    let vocab = logits.len();
    let mut all_params = vec![0; SAMPLE_PARAMS];
    all_params.extend(params);
    all_params.resize(2 * SAMPLE_PARAMS, 0);
    let mut all_counts = vec![0; vocab];
    all_counts.extend(counts);
    let state = SampleState {
        tokens: ints(&[9], device),
        positions: ints(&[41], device),
        slots: ints(&[1], device),
        params: ints(&all_params, device).reshape([2, SAMPLE_PARAMS]),
        counts: ints(&all_counts, device).reshape([2, vocab]),
    };
    let (state, out) = ops::sample(tensor(logits, [1, vocab], device), state, spec);
    let read = |t: Tensor<1, Int>| t.into_data().try_to_vec::<i32>().unwrap();
    let values = out.into_data().try_to_vec::<i32>().unwrap();
    Choice {
        id: values[0],
        values,
        tokens: read(state.tokens),
        positions: read(state.positions),
        counts: state.counts.into_data().try_to_vec::<i32>().unwrap()[vocab..].to_vec(),
    }
}

fn log_softmax(logits: &[f32], id: usize) -> f32 {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum = logits.iter().map(|l| f64::from(l - largest).exp()).sum::<f64>();
    logits[id] - largest - sum.ln() as f32
}

#[test]
fn the_most_likely_token_is_chosen_and_reported() {
    each_device(|device, name| {
        for vocab in [5, 64, 1000, 49_155] {
            let mut logits = Noise(vocab as u64).floats(vocab).iter().map(|v| v * 8.0).collect::<Vec<_>>();
            // Ties: the lowest id wins.
            let best = vocab / 3;
            logits[best] = 9.0;
            logits[vocab - 1] = 9.0;
            let counts = vec![0; vocab];
            let top = 4;
            let choice = choose(&logits, &[], &counts, SampleSpec { greedy: true, top }, device);
            assert_eq!(choice.id as usize, best, "{name}");
            assert_eq!((choice.tokens[0], choice.positions[0]), (best as i32, 42), "{name}");
            let logprob = f32::from_bits(choice.values[1] as u32);
            assert!((logprob - log_softmax(&logits, best)).abs() < 1e-4, "{name}: {logprob}");
            let mut order = (0..vocab).collect::<Vec<_>>();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            for (n, &id) in order.iter().take(top).enumerate() {
                assert_eq!(choice.values[2 + n] as usize, id, "{name}");
                let logprob = f32::from_bits(choice.values[2 + top + n] as u32);
                assert!((logprob - log_softmax(&logits, id)).abs() < 1e-4, "{name}");
            }
        }
    });
}

#[test]
fn draws_follow_the_reference() {
    each_device(|device, name| {
        let vocab = 1003;
        let logits = Noise(77).floats(vocab).iter().map(|v| v * 10.0).collect::<Vec<_>>();
        let base = reference::Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
            seed: 0,
        };
        let settings = [
            base,
            reference::Sampling { temperature: 3.0, ..base },
            reference::Sampling { top_k: 7, temperature: 5.0, ..base },
            reference::Sampling { top_p: 0.6, temperature: 4.0, ..base },
            reference::Sampling { min_p: 0.3, temperature: 2.0, ..base },
            reference::Sampling { top_k: 50, top_p: 0.8, min_p: 0.05, temperature: 6.0, ..base },
            reference::Sampling { repetition: 1.5, presence: 0.5, frequency: 0.25, temperature: 4.0, ..base },
        ];
        let mut counts = vec![0; vocab];
        for i in 0..200 {
            counts[i * 5] = if i % 2 == 0 { IN_PROMPT } else { IN_PROMPT + (i % 7) as i32 };
        }
        let bias = [(3usize, 4.0f32), (900, -6.0)];
        for (n, settings) in settings.iter().enumerate() {
            let kept = |s: &reference::Sampling| reference::candidates(&logits, &counts, &bias, s);
            for seed in 0..12u64 {
                let s = reference::Sampling { seed: seed * 0x1_2345_6789_abcd, ..*settings };
                let expected = kept(&s)
                    .into_iter()
                    .map(|(id, z)| (id, z + reference::gumbel(s.seed, 41, id as u32)))
                    .max_by(|a, b| a.1.total_cmp(&b.1))
                    .unwrap();
                let bits = |x: f32| x.to_bits() as i32;
                let mut params = vec![
                    bits(s.temperature),
                    s.top_k as i32,
                    bits(s.top_p),
                    bits(s.min_p),
                    bits(s.repetition),
                    bits(s.presence),
                    bits(s.frequency),
                    s.seed as i32,
                    (s.seed >> 32) as i32,
                    bias.len() as i32,
                ];
                params.extend(bias.iter().flat_map(|&(id, b)| [id as i32, bits(b)]));
                let choice = choose(&logits, &params, &counts, SampleSpec { greedy: false, top: 0 }, device);
                assert_eq!(choice.id as usize, expected.0, "{name}, setting {n}, seed {seed}");
                let id = expected.0;
                assert_eq!(choice.counts[id], counts[id] + 1, "{name}, setting {n}");
                let logprob = f32::from_bits(choice.values[1] as u32);
                assert!((logprob - log_softmax(&logits, id)).abs() < 1e-4, "{name}, setting {n}");
            }
        }
    });
}

#[test]
fn logits_that_are_not_finite_are_reported() {
    each_device(|device, name| {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for greedy in [true, false] {
                let mut logits = Noise(1).floats(300);
                logits[271] = bad;
                let mut params = vec![0; 10];
                params[0] = 1.0f32.to_bits() as i32;
                params[2] = 1.0f32.to_bits() as i32;
                params[4] = 1.0f32.to_bits() as i32;
                let choice = choose(&logits, &params, &vec![0; 300], SampleSpec { greedy, top: 0 }, device);
                assert_eq!(choice.id, -1, "{name}: {bad}, greedy {greedy}");
            }
        }
    });
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    each_device(|device, _| {
        let error = Weight::new(Format::Q4_K, 2, 255, &[0; 288], device).unwrap_err().to_string();
        assert!(error.contains("256") && error.contains("255"), "{error}");
        let error = Weight::new(Format::Q8_0, 2, 32, &[0; 67], device).unwrap_err().to_string();
        assert!(error.contains("68") && error.contains("67"), "{error}");
    });
}
