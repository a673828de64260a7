//! The OCP microscaling format: E2M1 codes that share an E8M0 exponent.

/// The E2M1 values, doubled so that they are integers (ggml's `kvalues_mxfp4`).
const VALUES: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// `{ e: u8, qs: [u8; 16] }`
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let d = half_e8m0(block[0]);
    for (j, &q) in block[1..].iter().enumerate() {
        out[j] = d * VALUES[usize::from(q & 0xf)];
        out[j + 16] = d * VALUES[usize::from(q >> 4)];
    }
}

/// `2^(e - 127) / 2`, which makes up for the doubled values; the two smallest are subnormal.
fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}
