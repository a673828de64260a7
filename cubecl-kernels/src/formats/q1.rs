//! One bit per weight: plus or minus the block's scale.

use super::half_at;

/// `{ d: f16, bits: [u8; 16] }`; a set bit is `+d`, bit `j % 8` of byte `j / 8` is element `j`.
pub(super) fn q1_0(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = half_at(block, 0);
    for (j, out) in out.iter_mut().enumerate() {
        *out = if block[2 + j / 8] >> (j % 8) & 1 == 1 { d } else { -d };
    }
}
