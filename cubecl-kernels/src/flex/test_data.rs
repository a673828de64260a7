//! Random operands for the tests of this module.

use crate::formats::Format;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About normal: the sum of twelve uniform numbers, less six.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    pub(crate) fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

/// Stored bytes of `cols` elements (a whole number of blocks): random codes, finite scales that
/// keep the elements near 1.
pub(crate) fn random_blocks(random: &mut Random, format: Format, cols: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if format.is_float() {
        for _ in 0..cols {
            let value = random.normal();
            match format {
                Format::F16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
                Format::BF16 => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
                _ => bytes.extend(value.to_le_bytes()),
            }
        }
        return bytes;
    }
    // Offsets of the half-precision fields, and the size that suits the codes.
    let (fields, size): (&[usize], f32) = match format {
        Format::Q4_0 | Format::Q5_0 => (&[0], 0.1),
        Format::Q4_1 | Format::Q5_1 => (&[0, 2], 0.1),
        Format::Q8_0 | Format::IQ4_NL => (&[0], 0.01),
        Format::Q4_K | Format::Q5_K => (&[0, 2], 0.002),
        Format::Q2_K => (&[80, 82], 0.03),
        Format::Q3_K => (&[108], 0.01),
        Format::Q6_K => (&[208], 0.0005),
        Format::IQ4_XS => (&[0], 0.0005),
        Format::Q1_0 => (&[0], 1.0),
        Format::TQ1_0 => (&[52], 1.0),
        Format::TQ2_0 => (&[64], 1.0),
        _ => (&[], 1.0),
    };
    for _ in 0..cols / format.block_len() {
        let start = bytes.len();
        bytes.extend((0..format.block_bytes()).map(|_| random.next() as u8));
        for at in fields {
            let scale = half::f16::from_f32((0.5 + random.uniform()) * size);
            bytes[start + at..start + at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if format == Format::MXFP4 {
            bytes[start] = 122 + (random.next() % 8) as u8;
        }
    }
    bytes
}
