//! The CPU's kernels at the sizes of real models, where tasks, tiles and threads divide the work:
//! the paths that prefill takes must agree with those of single rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::formats::Format;
use atelico_kernels::ops::{self, AttentionSpec, KvSource, Precision, RopePairing, RopeSpec, Weight};
use atelico_kernels::reference;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

/// A small generator of repeatable noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.word() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    /// Rows in `format`: random codes under scales of ordinary size.
    fn weight(&mut self, format: Format, rows: usize, cols: usize) -> Vec<u8> {
        let scale = 0x211f_u16.to_le_bytes(); // 0.01 in half precision
        let offsets: &[usize] = match format {
            Format::BF16 => {
                return self.floats(rows * cols).iter().flat_map(|v| v.to_le_bytes().into_iter().skip(2)).collect();
            }
            Format::Q8_0 => &[0],
            Format::Q4_K | Format::Q5_K => &[0, 2],
            Format::Q6_K => &[208],
            Format::TQ2_0 => &[64],
            other => panic!("{other} has no scales here"),
        };
        let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols).unwrap()).map(|_| self.word() as u8).collect();
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            offsets.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&scale));
        }
        bytes
    }
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    let device = Device::flex();
    Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), (&device, DType::F32)).reshape(shape)
}

fn ints(values: Vec<i32>) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (&Device::flex(), DType::I32))
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().map(|v| v.abs()).fold(f32::MIN_POSITIVE, f32::max);
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= bound * size, "{what}: element {i} is {a}, expected {b}");
    }
}

#[test]
fn large_products_equal_the_reference() {
    let mut noise = Noise(1);
    for format in [Format::BF16, Format::Q8_0, Format::Q4_K, Format::Q5_K, Format::Q6_K, Format::TQ2_0] {
        let (rows, cols) = (1543, 1280);
        let bytes = noise.weight(format, rows, cols);
        let weight = Weight::new(format, rows, cols, &bytes, &Device::flex()).unwrap();
        for m in [1, 4, 5, 100] {
            let x = noise.floats(m * cols);
            let found = floats(ops::linear(tensor(&x, [m, cols]), &weight, Precision::F32));
            close(&format!("{format} m {m}"), &found, &reference::linear(&x, format, &bytes, rows, cols), 1e-5);
        }
    }
}

#[test]
fn eight_bit_products_are_near_the_reference_and_rows_are_exact() {
    let mut noise = Noise(2);
    for format in [Format::BF16, Format::Q8_0, Format::Q4_K, Format::Q5_K, Format::Q6_K, Format::TQ2_0] {
        let (rows, cols) = (777, 1280);
        let bytes = noise.weight(format, rows, cols);
        let device = Device::flex();
        let weight = Weight::for_precision(format, rows, cols, &bytes, &device, Precision::Int8).unwrap();
        // bfloat16 takes twelve bits of sixteen on processors that multiply it.
        let least = if format == Format::BF16 { bytes.len() / 4 * 3 } else { bytes.len() };
        assert!(weight.bytes() >= least && weight.bytes() < bytes.len() + bytes.len() / 16);
        for m in [1, 4, 5, 100] {
            let x = noise.floats(m * cols);
            let found = floats(ops::linear(tensor(&x, [m, cols]), &weight, Precision::Int8));
            // Activations are within 1/254 of the largest of 32; errors of 1280 columns average out.
            close(&format!("{format} m {m}"), &found, &reference::linear(&x, format, &bytes, rows, cols), 1e-2);
        }
        let mut expected = vec![0.0; rows * cols];
        format.dequantize(&bytes, &mut expected);
        assert_eq!(floats(ops::dequantize(&weight, FloatDType::F32)), expected, "{format}");
        let rows = floats(ops::embedding(&weight, ints(vec![776, 0, 12])));
        for (row, found) in [776, 0, 12].into_iter().zip(rows.chunks_exact(cols)) {
            assert_eq!(found, &expected[row * cols..][..cols], "{format} row {row}");
        }
    }
}

/// Projections, rotation, cache and attention of one layer, on some rows of a prompt.
struct Layer {
    rope: RopeSpec,
    attention: AttentionSpec,
    qkv: Vec<f32>,
    table: Vec<f32>,
    capacity: usize,
}

impl Layer {
    /// Runs `rows` of the prompt in slot 1 and returns their outputs and the caches.
    fn run(&self, rows: std::ops::Range<usize>, caches: (Tensor<4>, Tensor<4>)) -> (Vec<f32>, (Tensor<4>, Tensor<4>)) {
        let d = self.rope.head_dim;
        let width = (self.rope.heads + 2 * self.rope.kv_heads) * d;
        let m = rows.len();
        let positions = ints(rows.clone().map(|row| row as i32).collect());
        let slots = ints(vec![1; m]);
        let norm = tensor(&vec![1.0; d], [d]);
        let (q, k, v) = ops::rope_append(
            tensor(&self.qkv[rows.start * width..rows.end * width], [m, width]),
            norm.clone(),
            norm,
            tensor(&self.table, [self.capacity, d]),
            positions.clone(),
            slots.clone(),
            caches.0,
            caches.1,
            self.rope,
        );
        let out = ops::attention(q, k.clone(), v.clone(), positions, slots, self.attention);
        (floats(out), (k, v))
    }

    fn caches(&self) -> (Tensor<4>, Tensor<4>) {
        let shape = [2, self.rope.kv_heads, self.capacity, self.rope.head_dim];
        let zeros = vec![0.0; shape.iter().product()];
        (tensor(&zeros, shape), tensor(&zeros, shape))
    }
}

#[test]
fn a_prompt_at_once_in_chunks_or_token_by_token_gives_the_same() {
    let mut noise = Noise(2);
    for (heads, kv_heads, d, window) in [(32, 8, 64, None), (9, 3, 64, Some(100)), (6, 2, 20, None)] {
        let (tokens, capacity) = (310, 320);
        let layer = Layer {
            rope: RopeSpec {
                heads,
                kv_heads,
                head_dim: d,
                pairing: RopePairing::Half,
                qk_norm_eps_bits: Some(1e-6f32.to_bits()),
                kv: KvSource::Projected,
            },
            attention: AttentionSpec {
                heads,
                kv_heads,
                head_dim: d,
                scale: (d as f32).powf(-0.5),
                window,
                consecutive: true,
                narrow: false,
            },
            qkv: noise.floats(tokens * (heads + 2 * kv_heads) * d),
            table: noise.floats(capacity * d),
            capacity,
        };
        let (at_once, (keys, values)) = layer.run(0..tokens, layer.caches());
        let (keys, values) = (floats(keys), floats(values));
        for chunk in [1, 64, 100] {
            let mut caches = layer.caches();
            let mut found = Vec::new();
            for start in (0..tokens).step_by(chunk) {
                let (out, after) = layer.run(start..tokens.min(start + chunk), caches);
                found.extend(out);
                caches = after;
            }
            let what = format!("{heads} heads of {d}, window {window:?}, chunks of {chunk}");
            close(&what, &found, &at_once, 1e-5);
            assert_eq!(floats(caches.0), keys, "{what}");
            assert_eq!(floats(caches.1), values, "{what}");
        }
    }
}
