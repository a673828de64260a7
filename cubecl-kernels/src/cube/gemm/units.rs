//! Products of tiles by fused multiply-adds: sixteen outputs a unit.

use cubecl::prelude::*;

use super::plan::{GemmPlan, OWN};

/// Adds the unit's part of the product of the tiles that begin at `x_at` and `w_at`: rows
/// `4 (unit / 16) ..` of x with weight rows `unit % 16 + 16 j`.
#[cube]
pub(super) fn multiply_own<E: Float, N: Size>(
    x_tile: &Shared<[Vector<E, N>]>,
    w_tile: &Shared<[Vector<E, N>]>,
    x_at: u32,
    w_at: u32,
    unit: u32,
    sums: &mut Array<f32>,
    #[comptime] plan: GemmPlan,
) {
    let across = comptime!(plan.tile_n / OWN);
    let (y, x) = (unit / across * OWN, unit % across);
    for k in 0..comptime!(plan.depth / plan.vector) {
        let mut a = Array::<Vector<E, N>>::new(comptime!(OWN as usize));
        let mut b = Array::<Vector<E, N>>::new(comptime!(OWN as usize));
        #[unroll]
        for i in 0..OWN {
            a[i as usize] = x_tile[(x_at + (y + i) * comptime!(plan.row()) + k) as usize];
            b[i as usize] = w_tile[(w_at + (x + across * i) * comptime!(plan.row()) + k) as usize];
        }
        #[unroll]
        for v in 0..plan.vector {
            #[unroll]
            for i in 0..OWN {
                #[unroll]
                for j in 0..OWN {
                    let (a, b) =
                        (a[i as usize].extract(comptime!(v as usize)), b[j as usize].extract(comptime!(v as usize)));
                    sums[comptime!((i * OWN + j) as usize)] += f32::cast_from(a) * f32::cast_from(b);
                }
            }
        }
    }
}
