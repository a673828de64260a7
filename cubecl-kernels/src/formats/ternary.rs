//! Weights of -1, 0 and 1 times the block's scale.

use super::half_at;

const POWERS_OF_3: [u8; 5] = [1, 3, 9, 27, 81];

/// `{ qs: [u8; 48], qh: [u8; 4], d: f16 }`: five base-3 digits per byte of `qs`, four per byte of
/// `qh`. A byte is a fraction of 256, so its next digit is the integer part of three times it.
pub(super) fn tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = half_at(block, 52);
    let mut out = out.iter_mut();
    // (bytes, digits): 32 x 5 + 16 x 5 + 4 x 4 = 256 elements
    for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        for power in &POWERS_OF_3[..digits] {
            for (byte, out) in bytes.iter().zip(&mut out) {
                let fraction = u16::from(byte.wrapping_mul(*power));
                *out = (f32::from((fraction * 3) >> 8) - 1.0) * d;
            }
        }
    }
}

/// `{ qs: [u8; 64], d: f16 }`: 32 bytes hold 128 elements, 32 in each bit pair.
pub(super) fn tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = half_at(block, 64);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (bytes, shift) = (&block[32 * (group / 4)..][..32], 2 * (group % 4));
        for (out, &q) in out.iter_mut().zip(bytes) {
            *out = (f32::from(q >> shift & 3) - 1.0) * d;
        }
    }
}
