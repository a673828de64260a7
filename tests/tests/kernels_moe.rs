//! Mixture-of-experts kernels against their plain references, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::formats::Format;
use atelico_kernels::ops::{self, Activation, MoeGatingSpec, MoeScores, Precision, Weight};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, tensor};

fn softmax(experts: usize, top_k: usize) -> MoeGatingSpec {
    let scores = MoeScores::Softmax;
    MoeGatingSpec { experts, top_k, shared: false, scores, groups: 1, top_groups: 1, normalize: true, scale: 1.0 }
}

fn sigmoid(experts: usize, top_k: usize, groups: usize, top_groups: usize) -> MoeGatingSpec {
    let scores = MoeScores::Sigmoid;
    MoeGatingSpec { experts, top_k, shared: false, scores, groups, top_groups, normalize: true, scale: 2.5 }
}

#[test]
fn choices_equal_the_reference() {
    each_device(|device, name| {
        let plain = MoeGatingSpec { normalize: false, ..softmax(5, 2) };
        let specs = [
            softmax(8, 2),
            softmax(256, 8),
            plain,
            softmax(1, 1),
            sigmoid(128, 6, 1, 1),
            sigmoid(512, 22, 1, 1),
            sigmoid(64, 6, 8, 3),
            sigmoid(9, 3, 9, 4),
            softmax(33, 33),
            softmax(70, 40),
            MoeGatingSpec { shared: true, ..softmax(256, 8) },
            MoeGatingSpec { shared: true, ..sigmoid(12, 3, 4, 2) },
        ];
        for spec in specs {
            for m in [1, 3, 40] {
                for (has_bias, has_scale) in [(false, false), (true, false), (false, true)] {
                    let mut noise = Noise((spec.experts * 7 + m) as u64);
                    let experts = spec.experts;
                    let logits = noise.floats(m * spec.logits()).iter().map(|l| l * 4.0).collect::<Vec<_>>();
                    let (bias, scale) = (noise.floats(experts), noise.floats(experts));
                    let vector = |values: &[f32]| tensor(values, [experts], device);
                    let route = ops::moe_gate(
                        tensor(&logits, [m, spec.logits()], device),
                        has_bias.then(|| vector(&bias)),
                        has_scale.then(|| vector(&scale)),
                        spec,
                    );
                    let ids = route.ids.into_data().try_to_vec::<i32>().unwrap();
                    let expected = logits.chunks_exact(spec.logits()).flat_map(|logits| {
                        let (bias, scale) = (has_bias.then_some(&bias[..]), has_scale.then_some(&scale[..]));
                        reference::moe_gate_row(logits, bias, scale, &spec)
                    });
                    let (expected_ids, weights): (Vec<_>, Vec<_>) = expected.map(|(id, w)| (id as i32, w)).unzip();
                    let what = format!("{name} {spec:?} x {m}");
                    assert_eq!(ids, expected_ids, "{what}");
                    close(&what, &floats(route.weights), &weights, 1e-5);
                }
            }
        }
    });
}

#[test]
fn of_equal_scores_the_lowest_id_wins() {
    each_device(|device, name| {
        for spec in [softmax(12, 5), sigmoid(12, 5, 4, 2)] {
            let logits = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
            let route = ops::moe_gate(tensor(&logits, [1, 12], device), None, None, spec);
            let expected = if spec.groups == 1 { [1, 2, 4, 5, 9] } else { [1, 2, 4, 5, 0] };
            assert_eq!(route.ids.into_data().try_to_vec::<i32>().unwrap(), expected, "{name}");
        }
    });
}

/// Both products of a layer, for few rows (experts one by one) and many (grouped).
#[test]
fn products_with_experts_equal_the_reference() {
    each_device(|device, name| {
        let formats = [Format::F32, Format::BF16, Format::Q4_0, Format::Q8_0, Format::Q4_K, Format::Q6_K];
        for format in formats {
            let widths = if format.block_len() == 1 { vec![20, 24, 136] } else { vec![format.block_len() * 2] };
            for cols in widths {
                for (experts, top_k, rows, m) in [(4, 2, 7, 1), (5, 3, 70, 4), (3, 1, 33, 9), (6, 4, 66, 80)] {
                    let mut noise = Noise((rows * 1000 + cols + m) as u64);
                    let bytes = noise.blocks(format, experts * rows * cols);
                    let weight = Weight::new(format, experts * rows, cols, &bytes, device).unwrap();
                    // The last expert is chosen, or taken by all.
                    let spec = MoeGatingSpec { shared: m % 4 == 0, ..softmax(experts - 1, top_k - 1) };
                    let spec = if spec.shared { spec } else { softmax(experts, top_k) };
                    let logits = tensor(&noise.floats(m * experts), [m, experts], device);
                    let route = ops::moe_gate(logits, None, None, spec);
                    let ids = route.ids.clone().into_data().try_to_vec::<i32>().unwrap();
                    let what = format!("{name} {format:?} {experts} x [{rows}, {cols}] x {m}");
                    let expert =
                        |x: &[f32], id: i32| reference::expert_linear(x, format, &bytes, rows, cols, id as usize);

                    let x = noise.floats(m * cols);
                    let pairs = [weight.clone(), weight.clone()];
                    let expected = ids
                        .iter()
                        .enumerate()
                        .flat_map(|(choice, id)| expert(&x[choice / top_k * cols..][..cols], *id).repeat(2))
                        .collect::<Vec<_>>();
                    let squares = expected.iter().map(|v| v.max(0.0).powi(2)).collect::<Vec<_>>();
                    for (activation, expected) in [(Activation::None, &expected), (Activation::Relu2, &squares)] {
                        let x = tensor(&x, [m, cols], device);
                        let found = ops::moe_linear(&x, &pairs, &route, None, activation, Precision::F32);
                        close(&what, &floats(found), expected, 4e-5);
                    }

                    // Normed and gated; the gate may lie in another weight.
                    let norm = noise.floats(cols);
                    let normed = reference::rms_norm(&x, &norm, 1e-5);
                    let mut gate_up = Vec::new();
                    for (choice, id) in ids.iter().enumerate() {
                        gate_up.extend(expert(&normed[choice / top_k * cols..][..cols], *id));
                    }
                    let twice = gate_up.chunks_exact(rows).flat_map(|row| row.repeat(2)).collect::<Vec<_>>();
                    let one = std::slice::from_ref(&weight);
                    for (weights, gate_up, n) in [(one, &gate_up, rows / 2), (&pairs[..], &twice, rows)] {
                        if weights.len() == 1 && !rows.is_multiple_of(2) {
                            continue;
                        }
                        let norm = Some((tensor(&norm, [cols], device), 1e-5));
                        let x = tensor(&x, [m, cols], device);
                        let found = ops::moe_linear(&x, weights, &route, norm, Activation::SwiGlu, Precision::F32);
                        close(&what, &floats(found), &reference::silu_mul(gate_up, n), 1e-4);
                    }

                    let h = noise.floats(m * top_k * cols);
                    let h_tensor = tensor(&h, [m * top_k, cols], device);
                    let residual = noise.floats(m * rows);
                    let residual_tensor = Some(tensor(&residual, [m, rows], device));
                    let found = floats(ops::moe_linear_sum(h_tensor, &weight, &route, residual_tensor, Precision::F32));
                    let shares = floats(route.weights.clone());
                    let mut expected = residual;
                    for (choice, id) in ids.iter().enumerate() {
                        let y = expert(&h[choice * cols..][..cols], *id);
                        let out = &mut expected[choice / top_k * rows..][..rows];
                        out.iter_mut().zip(y).for_each(|(out, y)| *out += shares[choice] * y);
                    }
                    close(&what, &found, &expected, 2e-5);
                }
            }
        }
    });
}
