//! Four-bit codes into a table of 16 uneven steps.

use super::half_at;

/// ggml's `kvalues_iq4nl`.
const VALUES: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// `{ d: f16, qs: [u8; 16] }`
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    codes(half_at(block, 0), &block[2..], out);
}

/// `{ d: f16, scales_h: u16, scales_l: [u8; 4], qs: [u8; 128] }`: eight sub-blocks of 32 with
/// six-bit scales.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = half_at(block, 0);
    let scales_h = u16::from_le_bytes([block[2], block[3]]);
    let (scales_l, qs) = (&block[4..8], &block[8..]);
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = u16::from(scales_l[sub / 2] >> (4 * (sub % 2)) & 0xf);
        let high = scales_h >> (2 * sub) & 3;
        codes(d * (f32::from(low | high << 4) - 32.0), &qs[16 * sub..][..16], out);
    }
}

fn codes(d: f32, qs: &[u8], out: &mut [f32; 32]) {
    for (j, &q) in qs.iter().enumerate() {
        out[j] = d * VALUES[usize::from(q & 0xf)];
        out[j + 16] = d * VALUES[usize::from(q >> 4)];
    }
}
