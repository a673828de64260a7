//! float32 products of many rows with stored weights, unpacked tile by tile into shared memory.

use cubecl::prelude::*;

use super::unpack::{Planes, unpack1, unpack8};
use crate::formats::Format;

/// Rows and columns of an output tile.
pub(super) const TILE: u32 = 64;
/// Depth of a step.
const DEPTH: u32 = 32;
/// Units of a cube; each computes 4 x 4 outputs.
pub(super) const UNITS: u32 = 256;

/// `out[i, offset + row] = Σ w[row, k] x[i, k]`.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn gemm(
    x: &[f32],
    w: &[u32],
    out: &mut [f32],
    planes: Planes,
    m: u32,
    rows: u32,
    stride: u32,
    offset: u32,
    #[comptime] cols: u32,
    #[comptime] format: Format,
    #[comptime] groups_per_block: u32,
) {
    let mut x_tile = Shared::<[f32]>::new_slice(comptime!((TILE * (DEPTH + 1)) as usize));
    let mut w_tile = Shared::<[f32]>::new_slice(comptime!((TILE * (DEPTH + 1)) as usize));
    let mut values = Array::<f32>::new(8usize);
    let mut sums = Array::<f32>::new(16usize);
    #[unroll]
    for i in 0..16usize {
        sums[i] = 0.0f32;
    }
    let unit = UNIT_POS_X;
    let row0 = CUBE_POS_X * TILE;
    let m0 = CUBE_POS_Y * TILE;
    let tile_row = unit / 4;
    let tile_group = unit % 4;
    let (ty, tx) = (unit / 16, unit % 16);
    for step in 0..comptime!(cols.div_ceil(DEPTH)) {
        let k0 = step * DEPTH + tile_group * 8;
        let row = row0 + tile_row;
        let at = tile_row * comptime!(DEPTH + 1) + tile_group * 8;
        if comptime!(cols % 8 == 0) {
            if row < rows && k0 < cols {
                let group = k0 / 8;
                let block = row * comptime!(cols / 8 / groups_per_block) + group / groups_per_block;
                unpack8(w, &planes, block, group % groups_per_block, &mut values, format);
            } else {
                #[unroll]
                for j in 0..8usize {
                    values[j] = 0.0f32;
                }
            }
        } else {
            #[unroll]
            for j in 0..8u32 {
                let inside = row < rows && k0 + j < cols;
                values[j as usize] = 0.0f32;
                if inside {
                    values[j as usize] = unpack1(w, row * cols + k0 + j, format);
                }
            }
        }
        let xi = m0 + tile_row;
        #[unroll]
        for j in 0..8u32 {
            w_tile[(at + j) as usize] = values[j as usize];
            let mut v = 0.0f32;
            if xi < m && k0 + j < cols {
                v = x[(xi * cols + k0 + j) as usize];
            }
            x_tile[(at + j) as usize] = v;
        }
        sync_cube();
        for k in 0..DEPTH {
            let mut a = Array::<f32>::new(4usize);
            let mut b = Array::<f32>::new(4usize);
            #[unroll]
            for i in 0..4u32 {
                a[i as usize] = x_tile[((ty * 4 + i) * comptime!(DEPTH + 1) + k) as usize];
                b[i as usize] = w_tile[((tx + 16 * i) * comptime!(DEPTH + 1) + k) as usize];
            }
            #[unroll]
            for i in 0..4usize {
                #[unroll]
                for j in 0..4usize {
                    sums[comptime!(i * 4 + j)] += a[i] * b[j];
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..4u32 {
        #[unroll]
        for j in 0..4u32 {
            let xi = m0 + ty * 4 + i;
            let row = row0 + tx + 16 * j;
            if xi < m && row < rows {
                out[(xi * stride + offset + row) as usize] = sums[comptime!((i * 4 + j) as usize)];
            }
        }
    }
}
