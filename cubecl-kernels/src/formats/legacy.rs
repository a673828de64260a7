//! The one-level formats of 32 elements: a half-precision scale, for `_1` a minimum too, and the
//! codes. Element `j` of the first half is a low nibble, element `j + 16` the high nibble of the
//! same byte.

use super::half_at;

/// `{ d: f16, qs: [u8; 16] }`
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (j, &q) in block[2..].iter().enumerate() {
        out[j] = d * (f32::from(q & 0xf) - 8.0);
        out[j + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

/// `{ d: f16, m: f16, qs: [u8; 16] }`
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, &q) in block[4..].iter().enumerate() {
        out[j] = d * f32::from(q & 0xf) + m;
        out[j + 16] = d * f32::from(q >> 4) + m;
    }
}

/// `{ d: f16, qh: [u8; 4], qs: [u8; 16] }`; bit `j` of `qh` is the fifth bit of element `j`.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let qh = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (j, &q) in block[6..].iter().enumerate() {
        let (low, high) = five_bits(q, qh, j);
        out[j] = d * (low - 16.0);
        out[j + 16] = d * (high - 16.0);
    }
}

/// `{ d: f16, m: f16, qh: [u8; 4], qs: [u8; 16] }`
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let qh = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (j, &q) in block[8..].iter().enumerate() {
        let (low, high) = five_bits(q, qh, j);
        out[j] = d * low + m;
        out[j + 16] = d * high + m;
    }
}

/// Elements `j` and `j + 16` of a five-bit block.
fn five_bits(q: u8, qh: u32, j: usize) -> (f32, f32) {
    let low = u32::from(q & 0xf) | (qh >> j & 1) << 4;
    let high = u32::from(q >> 4) | (qh >> (j + 16) & 1) << 4;
    (low as f32, high as f32)
}

/// `{ d: f16, qs: [i8; 32] }`
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q as i8) * d;
    }
}
