//! Matrix-vector products with stored weights, one to eight columns.

use cubecl::prelude::*;

use super::unpack::{Planes, f16_to_f32, unpack1, unpack8};
use crate::formats::Format;

/// `out[c, offset + row] = Σ w[row, k] x[c, k]` for float weights, 16 bytes a load.
///
/// `split` planes share a row so that every matrix fills the device with loads in flight; a cube of
/// `planes` planes holds `planes / split` rows. `kv` counts a row's 16-byte vectors.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn matvec_float<N: Size>(
    x: &[Vector<f32, N>],
    w: &[Vector<u32, N>],
    out: &mut [f32],
    rows: u32,
    stride: u32,
    offset: u32,
    #[comptime] kv: u32,
    #[comptime] m: u32,
    #[comptime] split: u32,
    #[comptime] planes: u32,
    #[comptime] plane: u32,
    #[comptime] format: Format,
) {
    let mut parts = Shared::<[f32]>::new_slice(comptime!((planes * m) as usize));
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let wanted = cube * comptime!(planes / split) + UNIT_POS_Y / split;
    // Units past the last row compute it again, so that every unit reaches the barrier.
    let row = select(wanted < rows, wanted, rows - 1);
    let part = UNIT_POS_Y % split;
    let mut sums = Array::<f32>::new(comptime!(m as usize));
    #[unroll]
    for c in 0..m {
        sums[c as usize] = 0.0f32;
    }
    let per_vector = comptime!(if matches!(format, Format::F32) { 1u32 } else { 2u32 });
    let span = comptime!(kv.div_ceil(split));
    let whole = comptime!(kv % split == 0 && (kv / split) % plane == 0);
    let steps = comptime!(span.div_ceil(plane));
    #[unroll(comptime!(steps <= 16))]
    for step in 0..steps {
        let k = part * span + step * plane + UNIT_POS_X;
        let inside = if comptime!(whole) { true.runtime() } else { step * plane + UNIT_POS_X < span && k < kv };
        if inside {
            let packed = w[(row * kv + k) as usize];
            #[unroll]
            for c in 0..m {
                let base = (c * kv + k) * per_vector;
                let mut sum = sums[c as usize];
                if comptime!(matches!(format, Format::F32)) {
                    let v = x[base as usize];
                    #[unroll]
                    for j in 0..4usize {
                        sum += f32::reinterpret(packed.extract(j)) * v.extract(j);
                    }
                } else {
                    let low = x[base as usize];
                    let high = x[(base + 1) as usize];
                    #[unroll]
                    for j in 0..4usize {
                        let word = packed.extract(j);
                        let (a, b) = if comptime!(matches!(format, Format::BF16)) {
                            (f32::reinterpret(word << 16), f32::reinterpret(word & 0xffff_0000))
                        } else {
                            (f16_to_f32(word & 0xffff), f16_to_f32(word >> 16))
                        };
                        let (p, q) = if comptime!(j < 2) {
                            (low.extract(comptime!(2 * j)), low.extract(comptime!(2 * j + 1)))
                        } else {
                            (high.extract(comptime!(2 * j - 4)), high.extract(comptime!(2 * j - 3)))
                        };
                        sum += a * p;
                        sum += b * q;
                    }
                }
                sums[c as usize] = sum;
            }
        }
    }
    #[unroll]
    for c in 0..m {
        let total = plane_sum(sums[c as usize]);
        if UNIT_POS_X == 0 {
            parts[(UNIT_POS_Y * m + c) as usize] = total;
        }
    }
    sync_cube();
    if UNIT_POS_X == 0 && part == 0 && wanted < rows {
        #[unroll]
        for c in 0..m {
            let mut total = 0.0f32;
            #[unroll]
            for j in 0..split {
                total += parts[((UNIT_POS_Y + j) * m + c) as usize];
            }
            out[(c * stride + offset + row) as usize] = total;
        }
    }
}

/// The same for block formats, a plane a row, eight elements a step.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn matvec_packed(
    x: &[f32],
    w: &[u32],
    out: &mut [f32],
    planes: Planes,
    rows: u32,
    stride: u32,
    offset: u32,
    #[comptime] cols: u32,
    #[comptime] m: u32,
    #[comptime] format: Format,
    #[comptime] groups_per_block: u32,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let row = cube * CUBE_DIM_Y + UNIT_POS_Y;
    if row < rows {
        let groups = comptime!(cols / 8);
        let blocks = comptime!(cols / 8 / groups_per_block);
        let mut sums = Array::<f32>::new(comptime!(m as usize));
        let mut values = Array::<f32>::new(8usize);
        #[unroll]
        for c in 0..m {
            sums[c as usize] = 0.0f32;
        }
        let mut group = UNIT_POS_X;
        while group < groups {
            let block = row * blocks + group / groups_per_block;
            unpack8(w, &planes, block, group % groups_per_block, &mut values, format);
            #[unroll]
            for c in 0..m {
                let base = c * cols + group * 8;
                let mut sum = sums[c as usize];
                #[unroll]
                for j in 0..8u32 {
                    sum += values[j as usize] * x[(base + j) as usize];
                }
                sums[c as usize] = sum;
            }
            group += CUBE_DIM_X;
        }
        #[unroll]
        for c in 0..m {
            let total = plane_sum(sums[c as usize]);
            if UNIT_POS_X == 0 {
                out[(c * stride + offset + row) as usize] = total;
            }
        }
    }
}

/// The same for float rows that vectors do not divide, an element a step.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn matvec_ragged(
    x: &[f32],
    w: &[u32],
    out: &mut [f32],
    rows: u32,
    cols: u32,
    stride: u32,
    offset: u32,
    #[comptime] m: u32,
    #[comptime] format: Format,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let row = cube * CUBE_DIM_Y + UNIT_POS_Y;
    if row < rows {
        #[unroll]
        for c in 0..m {
            let mut sum = 0.0f32;
            let mut k = UNIT_POS_X;
            while k < cols {
                sum += unpack1(w, row * cols + k, format) * x[(c * cols + k) as usize];
                k += CUBE_DIM_X;
            }
            let total = plane_sum(sum);
            if UNIT_POS_X == 0 {
                out[(c * stride + offset + row) as usize] = total;
            }
        }
    }
}
