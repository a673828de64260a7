//! Products of many rows in 16-bit types, which tensor cores multiply where a device has them, against the plain
//! reference; what a device does not multiply is passed over.
#![allow(clippy::unwrap_used, clippy::panic)]

use atelico_kernels::formats::Format;
use atelico_kernels::ops::{self, Activation, Fusion, MoeGatingSpec, MoeScores, Precision, Weight};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, tensor};
use burn::tensor::{DType, Device};

const FORMATS: [Format; 5] = [Format::F16, Format::BF16, Format::Q8_0, Format::Q4_K, Format::Q6_K];

/// Precisions that the device multiplies in, and how far from the reference they may be.
fn precisions(device: &Device) -> impl Iterator<Item = (Precision, f32)> {
    let all = [(Precision::F16, DType::F16, 4e-3), (Precision::BF16, DType::BF16, 3e-2)];
    all.into_iter()
        .filter(|(_, dtype, _)| ops::multiplies(device, *dtype))
        .map(|(precision, _, bound)| (precision, bound))
}

/// Inputs whose products, squared, float16 can hold.
fn small(noise: Vec<f32>) -> Vec<f32> {
    noise.into_iter().map(|v| v * 0.02).collect()
}

/// What an activation leaves of `[m, rows]`.
fn activated(product: &[f32], rows: usize, activation: Activation) -> Vec<f32> {
    match activation {
        Activation::None => product.to_vec(),
        Activation::SwiGlu => reference::silu_mul(product, rows / 2),
        Activation::Relu2 => product.iter().map(|v| v.max(0.0).powi(2)).collect(),
    }
}

/// Rows of a decode batch, with what rides along: a norm, then an activation; a residual after the next product.
#[test]
fn products_of_few_rows_stay_near_the_reference() {
    each_device(|device, name| {
        for (precision, bound) in precisions(device) {
            for format in [Format::F16, Format::BF16, Format::Q8_0] {
                // Packed weights meet x rounded to bytes, whose steps are coarser.
                let bound = if format.is_float() { bound } else { 4e-2 };
                // Rows that fill no tile, one step of columns and many, steps that planes share unevenly.
                for (i, (rows, cols, m)) in
                    [(70, 256, 3), (32, 32, 8), (264, 2048, 5), (96, 8192, 7), (130, 288, 4)].into_iter().enumerate()
                {
                    for activation in [Activation::None, Activation::SwiGlu, Activation::Relu2] {
                        let mut noise = Noise((rows + i) as u64);
                        let bytes = noise.blocks(format, rows * cols);
                        let (x, norm) = (noise.floats(m * cols), small(noise.floats(cols)));
                        let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
                        let norm_weight = Some((tensor(&norm, [cols], device), 1e-5));
                        let fusion = Fusion { norm: norm_weight, activation, ..Fusion::default() };
                        let x_tensor = tensor(&x, [m, cols], device);
                        let found = ops::linear_fused(x_tensor, std::slice::from_ref(&weight), fusion, precision);
                        let product =
                            reference::linear(&reference::rms_norm(&x, &norm, 1e-5), format, &bytes, rows, cols);
                        let expected = activated(&product, rows, activation);
                        let what = format!("{name} {precision:?} {format:?} [{rows}, {cols}] x {m} {activation:?}");
                        close(&what, &floats(found.clone().cast(DType::F32)), &expected, bound);

                        let width = expected.len() / m;
                        if !width.is_multiple_of(32) {
                            continue;
                        }
                        let bytes = noise.blocks(format, 50 * width);
                        let weight = Weight::new(format, 50, width, &bytes, device).unwrap();
                        let residual = noise.floats(m * 50);
                        let added = Some(tensor(&residual, [m, 50], device));
                        let fusion = Fusion { residual: added, ..Fusion::default() };
                        let found = ops::linear_fused(found, std::slice::from_ref(&weight), fusion, precision);
                        let product = reference::linear(&expected, format, &bytes, 50, width);
                        let expected = product.iter().zip(&residual).map(|(a, b)| a + b).collect::<Vec<_>>();
                        close(&what, &floats(found), &expected, 2.0 * bound);
                    }
                }
            }
        }
    });
}

#[test]
fn products_of_many_rows_stay_near_the_reference() {
    each_device(|device, name| {
        for (precision, bound) in precisions(device) {
            for (f, format) in FORMATS.into_iter().enumerate() {
                // A tile of every height; rows that fill no tile; columns that steps of 64 divide, and that they don't.
                for (i, (rows, cols, m)) in
                    [(70, 256, 12), (130, 512, 30), (256, 2048, 50), (264, 768, 130)].into_iter().enumerate()
                {
                    let activations = [Activation::None, Activation::SwiGlu, Activation::Relu2];
                    let activation = activations[(f + i) % 3];
                    let mut noise = Noise((rows + f) as u64);
                    let bytes = noise.blocks(format, rows * cols);
                    let x = small(noise.floats(m * cols));
                    let weight = Weight::new(format, rows, cols, &bytes, device).unwrap();
                    let fusion = Fusion { activation, ..Fusion::default() };
                    let found = ops::linear_fused(
                        tensor(&x, [m, cols], device),
                        std::slice::from_ref(&weight),
                        fusion,
                        precision,
                    );
                    let expected = activated(&reference::linear(&x, format, &bytes, rows, cols), rows, activation);
                    let what = format!("{name} {precision:?} {format:?} [{rows}, {cols}] x {m} {activation:?}");
                    close(&what, &floats(found.cast(DType::F32)), &expected, bound);
                }
            }
        }
    });
}

#[test]
fn products_with_experts_stay_near_the_reference() {
    each_device(|device, name| {
        for (precision, bound) in precisions(device) {
            for (f, format) in FORMATS.into_iter().enumerate() {
                // Tiles of 16, 32 and 64 choices, with experts that nobody and that many choose.
                for (experts, top_k, rows, cols, m) in
                    [(40, 2, 70, 256, 20), (6, 2, 130, 512, 60), (3, 1, 96, 256, 200)]
                {
                    let mut noise = Noise((experts * rows + f) as u64);
                    let bytes = noise.blocks(format, experts * rows * cols);
                    let weight = Weight::new(format, experts * rows, cols, &bytes, device).unwrap();
                    // Later experts are chosen less.
                    let mut logits = noise.floats(m * experts);
                    logits.iter_mut().enumerate().for_each(|(i, v)| *v -= (i % experts) as f32 * 0.1);
                    let logits = tensor(&logits, [m, experts], device);
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
                    let route = ops::moe_gate(logits, None, None, spec);
                    let ids = route.ids.clone().into_data().try_to_vec::<i32>().unwrap();
                    let x = small(noise.floats(m * cols));
                    let product = ids.iter().enumerate().flat_map(|(choice, id)| {
                        let x = &x[choice / top_k * cols..][..cols];
                        reference::expert_linear(x, format, &bytes, rows, cols, *id as usize)
                    });
                    let product = product.collect::<Vec<_>>();
                    for activation in [Activation::None, Activation::Relu2, Activation::SwiGlu] {
                        let weights = std::slice::from_ref(&weight);
                        let x = tensor(&x, [m, cols], device);
                        let found = ops::moe_linear(&x, weights, &route, None, activation, precision);
                        let what = format!(
                            "{name} {precision:?} {format:?} {experts} x [{rows}, {cols}] x {m} {activation:?}"
                        );
                        let expected = activated(&product, rows, activation);
                        close(&what, &floats(found.cast(DType::F32)), &expected, bound);
                    }
                }
            }
        }
    });
}
