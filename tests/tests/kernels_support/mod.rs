//! Operands and comparisons that the tests of kernels share.
#![allow(dead_code)]

use atelico_kernels::formats::Format;
use atelico_tests::devices;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// A small generator of repeatable noise (xorshift64*).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn float(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// Random blocks whose values are finite and of ordinary size: scales are redrawn.
    pub(crate) fn blocks(&mut self, format: Format, elements: usize) -> Vec<u8> {
        let mut values = vec![0.0; format.block_len()];
        (0..elements / format.block_len())
            .flat_map(|_| {
                loop {
                    let data = (0..format.block_bytes()).map(|_| self.word() as u8).collect::<Vec<_>>();
                    format.dequantize(&data, &mut values);
                    if values.iter().all(|v| v.is_finite() && v.abs() < 64.0) {
                        break data;
                    }
                }
            })
            .collect()
    }
}

pub(crate) fn each_device(test: impl Fn(&Device, &str)) {
    for spec in devices() {
        let opened = spec.open().unwrap();
        test(&opened.device, &opened.name);
    }
}

pub(crate) fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::F32)).reshape(shape)
}

pub(crate) fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::I32))
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

#[track_caller]
pub(crate) fn close(what: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().map(|v| v.abs()).fold(1.0f32, f32::max);
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= bound * size, "{what}: element {i} is {a}, expected {b}");
    }
}
