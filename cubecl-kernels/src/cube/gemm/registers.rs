//! Products of tiles on tensor cores through the instructions themselves, whose elements lie in known
//! registers: CUDA alone. Shared memory is read four 8 x 8 matrices at a time, where the generic loads
//! behind cooperative matrices take four times the instructions.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::plan::{FRAGMENT, GemmPlan, Multiplier};

/// Elements of a register: two of a tile, or two sums.
pub(in crate::cube) type Pair = Const<2>;
/// Weight rows that one instruction multiplies.
pub(in crate::cube) const NARROW: u32 = 8;

/// Sums of zero, 16 x 8 each, two pairs a unit.
#[cube]
pub(super) fn zero_sums(#[comptime] plan: GemmPlan) -> Sequence<Array<Vector<f32, Pair>>> {
    let mut sums = Sequence::<Array<Vector<f32, Pair>>>::new();
    #[unroll]
    for _ in 0..comptime!(if plan.multiplier == Multiplier::Registers {
        plan.plane_m() / FRAGMENT * (plan.plane_n() / NARROW)
    } else {
        0
    }) {
        let mut sum = Array::<Vector<f32, Pair>>::new(2usize);
        sum[0] = Vector::new(0.0f32);
        sum[1] = Vector::new(0.0f32);
        sums.push(sum);
    }
    sums
}

/// Adds the product of the tiles that begin at `x_at` and `w_at`.
#[cube]
pub(super) fn multiply_registers<E: Float, N: Size>(
    x_tile: &Shared<[Vector<E, N>]>,
    w_tile: &Shared<[Vector<E, N>]>,
    x_at: u32,
    w_at: u32,
    sums: &mut Sequence<Array<Vector<f32, Pair>>>,
    #[comptime] plan: GemmPlan,
) {
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let lane = UNIT_POS_X;
    let m0 = UNIT_POS_Y / plan.planes_n * comptime!(plan.plane_m());
    let n0 = UNIT_POS_Y % plan.planes_n * comptime!(plan.plane_n());
    // Lanes name the rows of four matrices: of x first the lower rows, of the weights first the later
    // columns.
    let x_lane = x_at + (m0 + lane % 16) * comptime!(plan.row()) + lane / 16;
    let w_lane = w_at + (n0 + lane / 16 * 8 + lane % 8) * comptime!(plan.row()) + lane / 8 % 2;
    let columns = comptime!(plan.plane_n() / NARROW);
    #[unroll]
    for k in 0..comptime!(plan.depth / FRAGMENT) {
        let step = comptime!(k * FRAGMENT / plan.vector);
        let mut w = Sequence::<Array<Vector<E, Pair>>>::new();
        #[unroll]
        for n in 0..comptime!(columns / 2) {
            let from = (w_lane + comptime!(n * FRAGMENT * plan.row() + step)) as usize;
            let four =
                definition.load_matrix::<Vector<E, N>, Pair>(&w_tile[from..from + 1], MatrixIdent::B, 4usize, false);
            #[unroll]
            for half in 0..2usize {
                let mut two = Array::<Vector<E, Pair>>::new(2usize);
                two[0] = four[comptime!(half * 2)];
                two[1] = four[comptime!(half * 2 + 1)];
                w.push(two);
            }
        }
        #[unroll]
        for i in 0..comptime!(plan.plane_m() / FRAGMENT) {
            let from = (x_lane + comptime!(i * FRAGMENT * plan.row() + step)) as usize;
            let x =
                definition.load_matrix::<Vector<E, N>, Pair>(&x_tile[from..from + 1], MatrixIdent::A, 4usize, false);
            #[unroll]
            for n in 0..columns {
                let sum = sums.index_mut(comptime!((i * columns + n) as usize));
                definition.execute_inplace(&x, w.index(comptime!(n as usize)), sum);
            }
        }
    }
}
