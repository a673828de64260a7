//! Weights in the type of the tiles: a unit loads sixteen bytes of them, and the same elements of x, and hands them
//! over two by two.

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

use super::{LANES, Plan, finish, rows_of, zero_sums};
use crate::cube::dependent::{begin_next, wait_for_launches};
use crate::cube::gemm::Pair;

/// Elements of a vector of weights.
pub(super) const VECTOR: u32 = 8;
/// Steps whose weights are in flight.
pub(super) const AHEAD: u32 = 8;

/// Elements `2 i` and `2 i + 1` of a vector.
#[cube]
fn pair_of<E: Float, N: Size>(vector: Vector<E, N>, #[comptime] i: u32) -> Vector<E, Pair> {
    let mut pair = Vector::<E, Pair>::empty();
    pair.insert(0usize, vector.extract(comptime!((2 * i) as usize)));
    pair.insert(1usize, vector.extract(comptime!((2 * i + 1) as usize)));
    pair
}

/// Sixteen rows of weights in some steps: of row `lane / 4` and of the one eight further, vector `lane % 4`.
#[derive(CubeType)]
struct Rows<E: Float, N: Size> {
    upper: Array<Vector<E, N>>,
    lower: Array<Vector<E, N>>,
}

#[cube]
impl<E: Float, N: Size> Rows<E, N> {
    fn new() -> Rows<E, N> {
        Rows::<E, N> {
            upper: Array::<Vector<E, N>>::new(comptime!(AHEAD as usize)),
            lower: Array::<Vector<E, N>>::new(comptime!(AHEAD as usize)),
        }
    }

    /// Asks for turn `turn`; steps past the last are the last again.
    fn load(&mut self, w: &[Vector<E, N>], upper: u32, lower: u32, turn: u32, #[comptime] plan: Plan) {
        #[unroll]
        for j in 0..AHEAD {
            let step = (turn * AHEAD + j) * plan.split + UNIT_POS_Y % plan.split;
            let vector = min(step, comptime!(plan.steps() - 1)) * LANES + UNIT_POS_X % LANES;
            self.upper[j as usize] = w[(upper + vector) as usize];
            self.lower[j as usize] = w[(lower + vector) as usize];
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn product<E: Float, X: Float, O: Float, N: Size, V: Size, F: Size>(
    x: &[Vector<X, V>],
    w: &[Vector<E, N>],
    norm_weight: &[Vector<f32, F>],
    residual: &[f32],
    out: &mut [O],
    eps: f32,
    outputs: u32,
    stride: u32,
    offset: u32,
    #[comptime] plan: Plan,
    #[define(E)] _tile: ElemType,
    #[define(X)] _read: ElemType,
    #[define(O)] _written: ElemType,
) {
    begin_next();
    let (m, split) = comptime!((plan.m, plan.split));
    let lane = UNIT_POS_X;
    let row_vectors = comptime!(plan.cols / VECTOR);
    let (upper, lower) = rows_of(outputs, plan);
    let (upper, lower) = (upper * row_vectors, lower * row_vectors);
    let mut rows = Rows::<E, N>::new();
    rows.load(w, upper, lower, 0u32, plan);
    wait_for_launches();

    // Columns past the last are the last again, and not written.
    let column = min(lane / LANES, comptime!(m - 1)) * comptime!(row_vectors * plan.x_loads(VECTOR));
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let mut sums = zero_sums();
    let mut squares = 0.0f32;
    for turn in 0..comptime!(plan.turns(AHEAD)) {
        if turn > 0 {
            rows.load(w, upper, lower, turn, plan);
        }
        #[unroll]
        for j in 0..AHEAD {
            let step = (turn * AHEAD + j) * split + UNIT_POS_Y % split;
            if step < comptime!(plan.steps()) {
                let vector = step * LANES + lane % LANES;
                let mut own = Vector::<E, N>::empty();
                #[unroll]
                for i in 0..comptime!(plan.x_loads(VECTOR)) {
                    let at = vector * comptime!(plan.x_loads(VECTOR)) + i;
                    let mut part = x[(column + at) as usize];
                    if comptime!(plan.norm) {
                        let weight = norm_weight[at as usize];
                        #[unroll]
                        for e in 0..plan.x_vector {
                            let at = comptime!(e as usize);
                            let element = f32::cast_from(part.extract(at));
                            squares += element * element;
                            part.insert(at, X::cast_from(element * weight.extract(at)));
                        }
                    }
                    #[unroll]
                    for e in 0..plan.x_vector {
                        let element = E::cast_from(part.extract(comptime!(e as usize)));
                        own.insert(comptime!((i * plan.x_vector + e) as usize), element);
                    }
                }
                #[unroll]
                for half in 0..2u32 {
                    let mut a = Array::<Vector<E, Pair>>::new(4usize);
                    let mut b = Array::<Vector<E, Pair>>::new(2usize);
                    #[unroll]
                    for i in 0..2u32 {
                        let pair = comptime!(2 * half + i);
                        a[comptime!((2 * i) as usize)] = pair_of(rows.upper[j as usize], pair);
                        a[comptime!((2 * i + 1) as usize)] = pair_of(rows.lower[j as usize], pair);
                        b[i as usize] = pair_of(own, pair);
                    }
                    definition.execute_inplace(&a, &b, &mut sums);
                }
            }
        }
    }
    finish(&sums, squares, residual, out, eps, outputs, stride, offset, plan);
}
