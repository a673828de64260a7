//! Plain floats: a "block" is one element.

pub(super) fn f32(bytes: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*bytes);
}

pub(super) fn f16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = half::f16::from_le_bytes(*bytes).to_f32();
}

pub(super) fn bf16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = half::bf16::from_le_bytes(*bytes).to_f32();
}
