//! Products of tiles on tensor cores through CubeCL's cooperative matrices, which every runtime that has
//! such cores knows. Their elements lie as the device pleases.

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

use super::plan::{FRAGMENT, GemmPlan, Multiplier};

/// Fragments of zeros.
#[cube]
pub(super) fn zero_fragments(#[comptime] plan: GemmPlan) -> Sequence<Matrix<f32>> {
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(if plan.multiplier == Multiplier::Fragments {
        plan.plane_m() / FRAGMENT * (plan.plane_n() / FRAGMENT)
    } else {
        0
    }) {
        sums.push(Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            16usize,
            16usize,
            16usize,
            MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    sums
}

/// Adds the product of the tiles that begin at `x_at` and `w_at`.
#[cube]
pub(super) fn multiply_fragments<E: Float, N: Size>(
    x_tile: &Shared<[Vector<E, N>]>,
    w_tile: &Shared<[Vector<E, N>]>,
    x_at: u32,
    w_at: u32,
    sums: &Sequence<Matrix<f32>>,
    #[comptime] plan: GemmPlan,
) {
    let plane = UNIT_POS_Y;
    let (m0, n0) =
        (plane / plan.planes_n * comptime!(plan.plane_m()), plane % plan.planes_n * comptime!(plan.plane_n()));
    let stride = comptime!(plan.row() * plan.vector);
    let columns = comptime!(plan.plane_n() / FRAGMENT);
    #[unroll]
    for k in 0..comptime!(plan.depth / FRAGMENT) {
        let step = comptime!(k * FRAGMENT / plan.vector);
        let mut w = Sequence::<Matrix<Vector<E, N>>>::new();
        #[unroll]
        for n in 0..columns {
            let from = (w_at + (n0 + comptime!(n * FRAGMENT)) * comptime!(plan.row()) + step) as usize;
            w.push(Matrix::<Vector<E, N>>::from_slice(
                MatrixIdent::B,
                16usize,
                16usize,
                16usize,
                MatrixLayout::ColMajor,
                &w_tile[from..],
                stride,
            ));
        }
        #[unroll]
        for i in 0..comptime!(plan.plane_m() / FRAGMENT) {
            let from = (x_at + (m0 + comptime!(i * FRAGMENT)) * comptime!(plan.row()) + step) as usize;
            let x = Matrix::<Vector<E, N>>::from_slice(
                MatrixIdent::A,
                16usize,
                16usize,
                16usize,
                MatrixLayout::RowMajor,
                &x_tile[from..],
                stride,
            );
            #[unroll]
            for n in 0..columns {
                let sum = sums.index(comptime!((i * columns + n) as usize));
                cmma::execute(&x, w.index(comptime!(n as usize)), sum, sum);
            }
        }
    }
}
