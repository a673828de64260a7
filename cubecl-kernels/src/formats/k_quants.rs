//! The k-quants: super-blocks of 256 elements with quantized scales (and minima) of their
//! sub-blocks of 16 or 32.

use super::half_at;

/// `{ scales: [u8; 16], qs: [u8; 64], d: f16, dmin: f16 }`; a scale's low nibble is the sub-block's
/// scale, its high nibble the minimum.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, qs) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let dl = d * f32::from(scales[sub] & 0xf);
        let ml = dmin * f32::from(scales[sub] >> 4);
        let (at, shift) = two_bit_position(sub);
        for (out, &q) in out.iter_mut().zip(&qs[at..at + 16]) {
            *out = dl * f32::from(q >> shift & 3) - ml;
        }
    }
}

/// `{ hmask: [u8; 32], qs: [u8; 64], scales: [u8; 12], d: f16 }`; a cleared bit of `hmask`
/// subtracts 4.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (hmask, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = scales[sub % 8] >> (4 * (sub / 8)) & 0xf;
        let high = scales[8 + sub % 4] >> (2 * (sub / 4)) & 3;
        let dl = d * (f32::from(low | high << 4) - 32.0);
        let (at, shift) = two_bit_position(sub);
        let hmask = &hmask[at % 32..][..16];
        for ((out, &q), &mask) in out.iter_mut().zip(&qs[at..at + 16]).zip(hmask) {
            let offset = if mask >> (sub / 2) & 1 == 1 { 0.0 } else { 4.0 };
            *out = dl * (f32::from(q >> shift & 3) - offset);
        }
    }
}

/// First byte and shift of the 16 two-bit codes of sub-block `sub`: 32 bytes hold 128 elements,
/// 32 in each bit pair.
fn two_bit_position(sub: usize) -> (usize, usize) {
    let (half, pair) = (sub / 8, sub / 2 % 4);
    (32 * half + 16 * (sub % 2), 2 * pair)
}

/// `{ d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128] }`
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, qs) = (&block[4..16], &block[16..]);
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(scales, sub);
        let (dl, ml) = (d * f32::from(scale), dmin * f32::from(min));
        let qs = &qs[32 * (sub / 2)..][..32];
        for (out, &q) in out.iter_mut().zip(qs) {
            *out = dl * f32::from(q >> (4 * (sub % 2)) & 0xf) - ml;
        }
    }
}

/// `{ d: f16, dmin: f16, scales: [u8; 12], qh: [u8; 32], qs: [u8; 128] }`; bit `sub` of `qh` is the
/// fifth bit.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, qh, qs) = (&block[4..16], &block[16..48], &block[48..]);
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(scales, sub);
        let (dl, ml) = (d * f32::from(scale), dmin * f32::from(min));
        let qs = &qs[32 * (sub / 2)..][..32];
        for ((out, &q), &high) in out.iter_mut().zip(qs).zip(qh) {
            let code = q >> (4 * (sub % 2)) & 0xf | (high >> sub & 1) << 4;
            *out = dl * f32::from(code) - ml;
        }
    }
}

/// Six-bit scale and minimum of sub-block `sub` (ggml's `get_scale_min_k4`).
fn scale_min(scales: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        (scales[sub] & 63, scales[sub + 4] & 63)
    } else {
        let both = scales[sub + 4];
        (both & 0xf | scales[sub - 4] >> 6 << 4, both >> 4 | scales[sub] >> 6 << 4)
    }
}

/// `{ ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16 }`; each half of 128 elements takes 64
/// bytes of `ql` and 32 of `qh`.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (ql, qh, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (half, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (ql, qh, scales) = (&ql[64 * half..], &qh[32 * half..], &scales[8 * half..]);
        for (quarter, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (l, out) in out.iter_mut().enumerate() {
                let low = ql[32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 0xf;
                let high = qh[l] >> (2 * quarter) & 3;
                let scale = f32::from(scales[2 * quarter + l / 16] as i8);
                *out = d * scale * (f32::from(low | high << 4) - 32.0);
            }
        }
    }
}
