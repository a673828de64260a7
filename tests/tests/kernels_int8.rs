//! A GPU's products of packed weights with activations of eight bits, against exact products of rounded
//! activations. The CPU's are tested beside their kernels.
#![cfg(any(feature = "vulkan", feature = "cuda", feature = "metal", feature = "webgpu"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::formats::Format;
use atelico_kernels::ops::{self, Activation, Fusion, MoeGatingSpec, MoeScores, Precision, Weight};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, tensor};

/// A value on the edge between two bytes may fall to either side.
const BOUND: f32 = 2e-3;

/// What the kernels make of activations: sixteen bytes and a scale.
fn rounded(x: &[f32]) -> Vec<f32> {
    let run = |run: &[f32]| {
        let largest = run.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let round =
            |v: &f32| if largest > 0.0 { (v * (127.0 / largest)).round_ties_even() * (largest / 127.0) } else { 0.0 };
        run.iter().map(round).collect::<Vec<_>>()
    };
    x.chunks(16).flat_map(run).collect()
}

#[test]
fn activations_are_rounded_to_bytes() {
    each_device(|device, name| {
        if ops::is_cpu(device) {
            return;
        }
        for (f, format) in Format::ALL.into_iter().filter(|format| !format.is_float()).enumerate() {
            for (i, (rows, m)) in [(38, 1), (14, 3), (70, 8)].into_iter().enumerate() {
                let (normed, gated, added) =
                    [(true, true, false), (false, false, true), (true, false, false)][(f + i) % 3];
                // A row of several planes, one that a plane does not fill, and columns that a cube holds in parts.
                let cols = format.block_len().max(64) * [20, 3, 13][i];
                let mut noise = Noise((rows * 1000 + f) as u64);
                let bytes = noise.blocks(format, rows * cols);
                let mut x = noise.floats(m * cols);
                // A run of zeros.
                x[..16].fill(0.0);
                let (norm, residual) = (noise.floats(cols), noise.floats(m * rows));
                let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
                let run = |x: &[f32]| {
                    let fusion = Fusion {
                        norm: normed.then(|| (tensor(&norm, [cols], device), 1e-5)),
                        activation: if gated { Activation::SwiGlu } else { Activation::None },
                        residual: added.then(|| tensor(&residual, [m, rows], device)),
                        bias: None,
                    };
                    let x = tensor(x, [m, cols], device);
                    floats(ops::linear_fused(x, std::slice::from_ref(&weight), fusion, Precision::Int8))
                };
                let product = |round: fn(&[f32]) -> Vec<f32>| {
                    let of_row = |x: &[f32]| {
                        let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f32>() / cols as f32 + 1e-5).sqrt();
                        let scaled = x.iter().zip(&norm).map(|(x, w)| x * w).collect::<Vec<_>>();
                        let (x, scale) = if normed { (&*scaled, scale) } else { (x, 1.0) };
                        let product = reference::linear(&round(x), format, &bytes, rows, cols);
                        product.into_iter().map(|v| v * scale).collect::<Vec<_>>()
                    };
                    x.chunks(cols).flat_map(of_row).collect::<Vec<_>>()
                };
                let complete = |product: Vec<f32>| match (gated, added) {
                    (true, _) => reference::silu_mul(&product, rows / 2),
                    (_, true) => product.iter().zip(&residual).map(|(a, b)| a + b).collect(),
                    _ => product,
                };
                let what = format!("{name} {format:?} [{rows}, {cols}] x {m}");
                let found = run(&x);
                close(&what, &found, &complete(product(rounded)), BOUND);
                let exact = complete(product(<[f32]>::to_vec));
                let size = exact.iter().fold(1.0f32, |most, v| most.max(v.abs()));
                let apart = found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size;
                assert!(apart > 1e-5, "{what}: nothing was rounded");
                for wrong in [f32::NAN, f32::INFINITY] {
                    x[17] = wrong;
                    assert!(run(&x)[..rows / 2].iter().all(|v| !v.is_finite()), "{what}: {wrong} is lost");
                }
            }
        }
    });
}

/// Planes take more rows of a large matrix.
#[test]
fn large_matrices_are_multiplied_alike() {
    each_device(|device, name| {
        for format in [Format::Q4_K, Format::Q6_K].into_iter().filter(|_| !ops::is_cpu(device)) {
            let (rows, cols) = (1604, 8192);
            let mut noise = Noise(rows as u64);
            let bytes = noise.blocks(format, rows * cols);
            let (x, norm) = (noise.floats(cols), noise.floats(cols));
            let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
            let product = |x: &[f32]| reference::linear(&rounded(x), format, &bytes, rows, cols);
            let run = |fusion: Fusion| {
                let x = tensor(&x, [1, cols], device);
                floats(ops::linear_fused(x, std::slice::from_ref(&weight), fusion, Precision::Int8))
            };
            let what = format!("{name} {format:?}");
            close(&what, &run(Fusion::default()), &product(&x), BOUND);
            let norm_weight = Some((tensor(&norm, [cols], device), 1e-5));
            let found = run(Fusion { norm: norm_weight, activation: Activation::SwiGlu, ..Fusion::default() });
            let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f32>() / cols as f32 + 1e-5).sqrt();
            let scaled = x.iter().zip(&norm).map(|(x, w)| x * w).collect::<Vec<_>>();
            let normed = product(&scaled).iter().map(|v| v * scale).collect::<Vec<_>>();
            close(&what, &found, &reference::silu_mul(&normed, rows / 2), BOUND);
        }
    });
}

#[test]
fn experts_meet_rounded_activations() {
    each_device(|device, name| {
        for format in [Format::Q4_K, Format::Q8_0, Format::Q5_0].into_iter().filter(|_| !ops::is_cpu(device)) {
            let (experts, top_k, rows, m, cols) = (5, 3, 70, 2, format.block_len() * 2);
            let mut noise = Noise(cols as u64);
            let bytes = noise.blocks(format, experts * rows * cols);
            let weight = Weight::new(format, experts * rows, cols, &bytes, device).unwrap();
            let spec = MoeGatingSpec {
                experts,
                top_k,
                shared: false,
                scores: MoeScores::Softmax,
                groups: 1,
                top_groups: 1,
                normalize: true,
                scale: 1.0,
            };
            let route = ops::moe_gate(tensor(&noise.floats(m * experts), [m, experts], device), None, None, spec);
            let ids = route.ids.clone().into_data().try_to_vec::<i32>().unwrap();
            let expert = |x: &[f32], id: i32| reference::expert_linear(x, format, &bytes, rows, cols, id as usize);
            let what = format!("{name} {format:?}");

            let x = noise.floats(m * cols);
            let x_tensor = tensor(&x, [m, cols], device);
            let weights = std::slice::from_ref(&weight);
            let found = ops::moe_linear(&x_tensor, weights, &route, None, Activation::None, Precision::Int8);
            let products = |x: &[f32]| {
                let product = |(choice, id): (usize, &i32)| expert(&x[choice / top_k * cols..][..cols], *id);
                ids.iter().enumerate().flat_map(product).collect::<Vec<_>>()
            };
            close(&what, &floats(found), &products(&rounded(&x)), BOUND);

            let norm = noise.floats(cols);
            let norm_weight = Some((tensor(&norm, [cols], device), 1e-5));
            let found = ops::moe_linear(&x_tensor, weights, &route, norm_weight, Activation::SwiGlu, Precision::Int8);
            // The scale of the norm follows the product.
            let scale = |x: &[f32]| 1.0 / (x.iter().map(|v| v * v).sum::<f32>() / cols as f32 + 1e-5).sqrt();
            let scaled = x.chunks_exact(cols).flat_map(|x| x.iter().zip(&norm).map(|(x, w)| x * w));
            let scaled = rounded(&scaled.collect::<Vec<_>>());
            let normed = products(&scaled).into_iter().enumerate();
            let normed = normed.map(|(i, v)| v * scale(&x[i / (top_k * rows) * cols..][..cols])).collect::<Vec<_>>();
            close(&what, &floats(found), &reference::silu_mul(&normed, rows / 2), BOUND);

            let h = noise.floats(m * top_k * cols);
            let h_tensor = tensor(&h, [m * top_k, cols], device);
            let found = ops::moe_linear_sum(h_tensor, &weight, &route, None, Precision::Int8);
            let (h, shares) = (rounded(&h), floats(route.weights.clone()));
            let mut expected = vec![0.0; m * rows];
            for (choice, id) in ids.iter().enumerate() {
                let y = expert(&h[choice * cols..][..cols], *id);
                let out = &mut expected[choice / top_k * rows..][..rows];
                out.iter_mut().zip(y).for_each(|(out, y)| *out += shares[choice] * y);
            }
            close(&what, &floats(found), &expected, BOUND);
        }
    });
}
