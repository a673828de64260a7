//! What the kernel tests share: repeatable noise, tensors from and to slices, comparison.

use atelico_kernels::formats::Format;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::devices;

/// A small generator of repeatable noise (xorshift64*).
#[derive(Debug)]
pub struct Noise(pub u64);

impl Noise {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in -1..1.
    pub fn float(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `n` numbers in -1..1.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// Random blocks whose values are finite and of ordinary size: scales are redrawn.
    pub fn blocks(&mut self, format: Format, elements: usize) -> Vec<u8> {
        let block = format.block_len();
        let bytes = format.block_bytes();
        let mut values = vec![0.0; block];
        (0..elements / block)
            .flat_map(|_| {
                loop {
                    let mut data = (0..bytes).map(|_| self.word() as u8).collect::<Vec<_>>();
                    format.dequantize(&data, &mut values);
                    if values.iter().all(|v| v.is_finite() && v.abs() < 64.0) {
                        break std::mem::take(&mut data);
                    }
                }
            })
            .collect()
    }
}

/// Runs `test` with every device and its name.
pub fn each_device(test: impl Fn(&Device, &str)) {
    for spec in devices() {
        let opened = spec.open().unwrap();
        test(&opened.device, &opened.name);
    }
}

/// `values` on the device.
pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::F32)).reshape(shape)
}

/// `values` on the device.
pub fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::I32))
}

/// The elements, read back.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

/// Asserts that no element is off by more than `bound` times the largest expected (at least 1).
#[track_caller]
pub fn close(what: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().map(|v| v.abs()).fold(1.0f32, f32::max);
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= bound * size, "{what}: element {i} is {a}, expected {b}");
    }
}
