//! Value embeddings against their reference, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::{ops, reference};
use atelico_tests::devices;
use burn::tensor::{DType, Device, Tensor, TensorData};

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::F32)).reshape(shape)
}

/// Repeatable numbers from -2 to 2.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mix = |i: u32| (i ^ seed.rotate_left(9)).wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b);
    (0..n as u32).map(|i| (mix(i) >> 8) as f32 / (1u32 << 22) as f32 - 2.0).collect()
}

#[test]
fn gated_embeddings_are_added_to_the_values() {
    for spec in devices() {
        let opened = spec.open().unwrap();
        let device = &opened.device;
        // The last is large enough to be shared by threads.
        for (m, heads, kv_heads, head_dim, hidden, channels) in [
            (1, 5, 5, 8, 40, 32),
            (3, 4, 2, 20, 33, 32),
            (2, 1, 1, 4, 1, 1),
            (37, 6, 3, 128, 768, 32),
            (70, 12, 12, 128, 64, 7),
        ] {
            let (values, width) = (kv_heads * head_dim, (heads + 2 * kv_heads) * head_dim);
            let (qkv, x) = (noise(m * width, 1), noise(m * hidden, 2));
            let (gate, embeds) = (noise(kv_heads * channels, 3), noise(m * values, 4));
            let found = ops::add_value_embeds(
                tensor(&qkv, [m, width], device),
                tensor(&x, [m, hidden], device),
                tensor(&gate, [kv_heads, channels], device),
                tensor(&embeds, [m, values], device),
            );
            assert_eq!(found.dims(), [m, width]);
            let found = found.into_data().try_to_vec::<f32>().unwrap();
            for (row, found) in found.chunks_exact(width).enumerate() {
                let of = |all: &[f32], n: usize| all[row * n..(row + 1) * n].to_vec();
                let expected = reference::value_embeds_row(
                    &of(&qkv, width),
                    &of(&x, hidden),
                    &gate,
                    kv_heads,
                    &of(&embeds, values),
                );
                for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                    assert!((a - b).abs() < 1e-4, "{}, row {row}, element {i}: {a}, expected {b}", opened.name);
                }
            }
        }
    }
}
