//! The kernel, and the sum of what the parts of a split depth leave.

use cubecl::cmma::{self, Matrix, MatrixLayout};
use cubecl::prelude::*;

use super::copies::{copies_end_a_group, copy_vector, wait_for_copies};
use super::fragments::{multiply_fragments, zero_fragments};
use super::plan::{FRAGMENT, GemmPlan, Multiplier, OWN, PIECE};
use super::registers::{NARROW, Pair, multiply_registers, zero_sums};
use super::stage::{fetch_floats, fetch_weights, keep, row_and_part};
use super::units::multiply_own;
use crate::cube::activation::{activate, relu2};
use crate::cube::unpack::Planes;
use crate::ops::{Activation, Gate};

/// Where the outputs of a cube go.
#[derive(CubeType)]
struct Place {
    /// First row of x, or first place in the list of an expert's choices, and their end.
    first: u32,
    end: u32,
    /// First output.
    output: u32,
    outputs: u32,
    /// What the output's rows begin at, from one to the next.
    offset: u32,
    stride: u32,
}

/// The row of the output of place `at`.
#[cube]
fn row_of(groups: &[i32], at: u32, #[comptime] plan: GemmPlan) -> u32 {
    if comptime!(plan.experts > 0) { u32::cast_from(groups[(plan.experts + 1 + at) as usize]) } else { at }
}

/// The weight row of row `row` of the tile. Where gate and value are multiplied together, a plane's
/// rows are those of some gates, then those of their values.
#[cube]
fn weight_row(place: &Place, row: u32, #[comptime] plan: GemmPlan) -> u32 {
    let mut output = place.output + row;
    let mut second = 0u32;
    if comptime!(plan.pairs()) {
        let width = comptime!(plan.plane_n());
        let within = row % width;
        output = place.output + row / width * comptime!(width / 2) + within % comptime!(width / 2);
        second = within / comptime!(width / 2) * place.outputs;
    }
    select(output < place.outputs, output, place.outputs - 1) + second
}

/// `out[i, offset + row] = Σ w[row, k] x[i, k]`, activated or added to `residual` as the plan says.
///
/// `outputs` counts the rows of `w`, or where gate and value are multiplied together their pairs.
/// With experts, `groups` lists the choices by expert, `share` choices in a row read one row of x, and
/// a choice is a row of the output. Parts of the depth are written one behind the other.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn gemm<E: Float, O: Float, N: Size, W: Size>(
    x: &[Vector<E, N>],
    floats: &[Vector<E, N>],
    vectors: &[Vector<u32, W>],
    words: &[u32],
    groups: &[i32],
    residual: &[f32],
    out: &mut [O],
    planes: Planes,
    exponent: u32,
    m: u32,
    outputs: u32,
    stride: u32,
    offset: u32,
    share: u32,
    #[comptime] plan: GemmPlan,
    #[define(E)] _tile: ElemType,
    #[define(O)] _written: ElemType,
) {
    let mut place = Place {
        first: CUBE_POS_X * plan.tile_m,
        end: m,
        output: CUBE_POS_Y * comptime!(plan.tile_outputs()),
        outputs,
        offset,
        stride,
    };
    let mut base = 0u32;
    if comptime!(plan.experts > 0) {
        // Tiles of an expert follow each other, the last of them may be empty.
        let expert = u32::cast_from(groups[(comptime!(plan.experts + 1) + m + CUBE_POS_X) as usize]);
        let start = u32::cast_from(groups[expert as usize]);
        let tile = CUBE_POS_X - (start / plan.expert_tile + expert);
        place.first = start + tile * plan.expert_tile;
        place.end = min(u32::cast_from(groups[(expert + 1) as usize]), place.first + plan.expert_tile);
        base = expert * outputs * comptime!(if plan.gated() { 2u32 } else { 1u32 });
    }
    if comptime!(plan.splits > 1) {
        place.offset = CUBE_POS_Z * m * stride;
    }
    if place.first < place.end {
        tile(x, floats, vectors, words, groups, residual, out, &planes, exponent, &place, base, share, plan);
    }
}

/// One tile of the output.
#[cube]
#[allow(clippy::too_many_arguments)]
fn tile<E: Float, O: Float, N: Size, W: Size>(
    x: &[Vector<E, N>],
    floats: &[Vector<E, N>],
    vectors: &[Vector<u32, W>],
    words: &[u32],
    groups: &[i32],
    residual: &[f32],
    out: &mut [O],
    planes: &Planes,
    exponent: u32,
    to: &Place,
    base: u32,
    share: u32,
    #[comptime] plan: GemmPlan,
) {
    let buffers = comptime!(plan.stages);
    let (x_size, w_size) = comptime!((plan.tile_m * plan.row(), plan.tile_n * plan.row()));
    let (x_piece, w_piece) = comptime!((plan.x_piece(), plan.w_piece()));
    let (x_pieces, w_pieces) = comptime!((plan.pieces(plan.tile_m, x_piece), plan.pieces(plan.tile_n, w_piece)));
    let mut x_tile = Shared::<[Vector<E, N>]>::new_slice(comptime!((buffers * x_size) as usize));
    let mut w_tile = Shared::<[Vector<E, N>]>::new_slice(comptime!((buffers * w_size) as usize));
    let mut x_held = Array::<Vector<E, N>>::new(comptime!((x_pieces * x_piece) as usize));
    let mut w_held = Array::<Vector<E, N>>::new(comptime!((w_pieces * w_piece) as usize));
    let unit = UNIT_POS_Y * plan.plane + UNIT_POS_X;

    // The rows that this unit's pieces belong to; those past the last are the last.
    let mut x_bases = Array::<u32>::new(comptime!(x_pieces as usize));
    let mut w_rows = Array::<u32>::new(comptime!(w_pieces as usize));
    #[unroll]
    for p in 0..x_pieces {
        let at = to.first + row_and_part(p, unit, plan.tile_m, x_piece, plan).0;
        let row = row_of(groups, select(at < to.end, at, to.end - 1), plan);
        let row = if comptime!(plan.experts > 0) { row / share } else { row };
        x_bases[p as usize] = row * comptime!(plan.cols / plan.vector);
    }
    #[unroll]
    for p in 0..w_pieces {
        w_rows[p as usize] = base + weight_row(to, row_and_part(p, unit, plan.tile_n, w_piece, plan).0, plan);
    }
    let first = if comptime!(plan.splits > 1) { CUBE_POS_Z * comptime!(plan.split_steps()) } else { 0u32.runtime() };
    let left = comptime!(plan.steps()) - first;
    let last = first + select(left < comptime!(plan.split_steps()), left, comptime!(plan.split_steps()));

    let mut sums = Sums::new(plan);
    let rows = Rows { x: x_bases, w: w_rows };
    if comptime!(plan.asynchronous) {
        let ahead = comptime!(plan.stages - 1);
        #[unroll]
        for stage in 0..ahead {
            if first + stage < last {
                copy(x, floats, &rows, first + stage, unit, &mut x_tile, &mut w_tile, stage, plan);
            }
            copies_end_a_group();
        }
        if comptime!(!plan.same_type) {
            fetch_w(floats, vectors, words, planes, exponent, &rows, first, unit, &mut w_held, plan);
            keep(&w_held, &mut w_tile, 0u32, unit, plan.tile_n, plan);
        }
        for step in first..last {
            // All groups but those of the steps after this one have arrived, in every unit.
            wait_for_copies(comptime!(ahead - 1));
            sync_cube();
            // What was multiplied in the step before makes room.
            let stage = (step - first) % buffers;
            if step + ahead < last {
                copy(x, floats, &rows, step + ahead, unit, &mut x_tile, &mut w_tile, (stage + ahead) % buffers, plan);
            }
            copies_end_a_group();
            let next = select(step + 1 < last, step + 1, step);
            if comptime!(!plan.same_type) {
                fetch_w(floats, vectors, words, planes, exponent, &rows, next, unit, &mut w_held, plan);
            }
            sums.add(&x_tile, &w_tile, stage * x_size, stage * w_size, unit, plan);
            if comptime!(!plan.same_type) {
                keep(&w_held, &mut w_tile, (stage + 1) % buffers * w_size, unit, plan.tile_n, plan);
            }
        }
    } else if comptime!(plan.stages > 1) {
        fetch(x, floats, vectors, words, planes, exponent, &rows, first, unit, &mut x_held, &mut w_held, plan);
        keep(&x_held, &mut x_tile, 0u32, unit, plan.tile_m, plan);
        keep(&w_held, &mut w_tile, 0u32, unit, plan.tile_n, plan);
        sync_cube();
        for step in first..last {
            // The next step's pieces are on their way while this step's are multiplied. No branches: the
            // last step brings its own again.
            let next = select(step + 1 < last, step + 1, step);
            fetch(x, floats, vectors, words, planes, exponent, &rows, next, unit, &mut x_held, &mut w_held, plan);
            let turn = (step - first) % 2;
            sums.add(&x_tile, &w_tile, turn * x_size, turn * w_size, unit, plan);
            keep(&x_held, &mut x_tile, (1 - turn) * x_size, unit, plan.tile_m, plan);
            keep(&w_held, &mut w_tile, (1 - turn) * w_size, unit, plan.tile_n, plan);
            sync_cube();
        }
    } else {
        for step in first..last {
            fetch(x, floats, vectors, words, planes, exponent, &rows, step, unit, &mut x_held, &mut w_held, plan);
            keep(&x_held, &mut x_tile, 0u32, unit, plan.tile_m, plan);
            keep(&w_held, &mut w_tile, 0u32, unit, plan.tile_n, plan);
            sync_cube();
            sums.add(&x_tile, &w_tile, 0u32, 0u32, unit, plan);
            sync_cube();
        }
    }

    if comptime!(plan.multiplier == Multiplier::Fragments) {
        write_fragments(groups, residual, out, to, &sums.fragments, plan);
    } else if comptime!(plan.multiplier == Multiplier::Registers) {
        write_registers(groups, residual, out, to, &sums.registers, plan);
    } else {
        write_own(groups, residual, out, to, unit, &sums.own, plan);
    }
}

/// Where the rows of a unit's pieces begin: those of x in vectors, those of the weights as they count.
#[derive(CubeType)]
struct Rows {
    x: Array<u32>,
    w: Array<u32>,
}

/// Brings a unit's pieces of a step.
#[cube]
#[allow(clippy::too_many_arguments)]
fn fetch<E: Float, N: Size, W: Size>(
    x: &[Vector<E, N>],
    floats: &[Vector<E, N>],
    vectors: &[Vector<u32, W>],
    words: &[u32],
    planes: &Planes,
    exponent: u32,
    rows: &Rows,
    step: u32,
    unit: u32,
    x_held: &mut Array<Vector<E, N>>,
    w_held: &mut Array<Vector<E, N>>,
    #[comptime] plan: GemmPlan,
) {
    #[unroll]
    for p in 0..comptime!(plan.pieces(plan.tile_m, plan.piece())) {
        let k = step * plan.depth + row_and_part(p, unit, plan.tile_m, comptime!(plan.piece()), plan).1 * PIECE;
        fetch_floats(x, rows.x[p as usize], k, x_held, comptime!(p * plan.piece()), plan);
    }
    fetch_w(floats, vectors, words, planes, exponent, rows, step, unit, w_held, plan);
}

/// Brings a unit's pieces of the weights.
#[cube]
#[allow(clippy::too_many_arguments)]
fn fetch_w<E: Float, N: Size, W: Size>(
    floats: &[Vector<E, N>],
    vectors: &[Vector<u32, W>],
    words: &[u32],
    planes: &Planes,
    exponent: u32,
    rows: &Rows,
    step: u32,
    unit: u32,
    held: &mut Array<Vector<E, N>>,
    #[comptime] plan: GemmPlan,
) {
    #[unroll]
    for p in 0..comptime!(plan.pieces(plan.tile_n, plan.piece())) {
        let k = step * plan.depth + row_and_part(p, unit, plan.tile_n, comptime!(plan.piece()), plan).1 * PIECE;
        let (row, at) = (rows.w[p as usize], comptime!(p * plan.piece()));
        fetch_weights(floats, vectors, words, planes, exponent, row, k, held, at, plan);
    }
}

/// Sends a unit's vectors of x, and of weights of the same type, to the tiles of `stage`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn copy<E: Float, N: Size>(
    x: &[Vector<E, N>],
    floats: &[Vector<E, N>],
    rows: &Rows,
    step: u32,
    unit: u32,
    x_tile: &mut Shared<[Vector<E, N>]>,
    w_tile: &mut Shared<[Vector<E, N>]>,
    stage: u32,
    #[comptime] plan: GemmPlan,
) {
    let begin = step * comptime!(plan.depth / plan.vector);
    #[unroll]
    for p in 0..comptime!(plan.pieces(plan.tile_m, 1)) {
        let (row, part) = row_and_part(p, unit, plan.tile_m, 1u32, plan);
        let to = (stage * plan.tile_m + row) * plan.row() + part;
        copy_vector(x, rows.x[p as usize] + begin + part, x_tile, to, plan);
    }
    if comptime!(plan.same_type) {
        #[unroll]
        for p in 0..comptime!(plan.pieces(plan.tile_n, 1)) {
            let (row, part) = row_and_part(p, unit, plan.tile_n, 1u32, plan);
            let from = rows.w[p as usize] * comptime!(plan.cols / plan.vector) + begin + part;
            copy_vector(floats, from, w_tile, (stage * plan.tile_n + row) * plan.row() + part, plan);
        }
    }
}

/// The sums of a unit, as what multiplies holds them.
#[derive(CubeType)]
struct Sums {
    own: Array<f32>,
    fragments: Sequence<Matrix<f32>>,
    registers: Sequence<Array<Vector<f32, Pair>>>,
}

#[cube]
impl Sums {
    fn new(#[comptime] plan: GemmPlan) -> Sums {
        let mut own = Array::<f32>::new(comptime!((OWN * OWN) as usize));
        #[unroll]
        for i in 0..comptime!(OWN * OWN) {
            own[i as usize] = 0.0f32;
        }
        Sums { own, fragments: zero_fragments(plan), registers: zero_sums(plan) }
    }

    /// Adds the product of the tiles that begin at `x_at` and `w_at`.
    #[allow(clippy::too_many_arguments)]
    fn add<E: Float, N: Size>(
        &mut self,
        x_tile: &Shared<[Vector<E, N>]>,
        w_tile: &Shared<[Vector<E, N>]>,
        x_at: u32,
        w_at: u32,
        unit: u32,
        #[comptime] plan: GemmPlan,
    ) {
        if comptime!(plan.multiplier == Multiplier::Fragments) {
            multiply_fragments(x_tile, w_tile, x_at, w_at, &self.fragments, plan);
        } else if comptime!(plan.multiplier == Multiplier::Registers) {
            multiply_registers(x_tile, w_tile, x_at, w_at, &mut self.registers, plan);
        } else {
            multiply_own(x_tile, w_tile, x_at, w_at, unit, &mut self.own, plan);
        }
    }
}

/// Writes what a unit summed itself.
#[cube]
fn write_own<O: Float>(
    groups: &[i32],
    residual: &[f32],
    out: &mut [O],
    place: &Place,
    unit: u32,
    sums: &Array<f32>,
    #[comptime] plan: GemmPlan,
) {
    let across = comptime!(plan.tile_n / OWN);
    let kept = comptime!(if plan.pairs() { OWN / 2 } else { OWN });
    #[unroll]
    for i in 0..OWN {
        #[unroll]
        for j in 0..kept {
            let mut value = sums[comptime!((i * OWN + j) as usize)];
            if comptime!(plan.pairs()) {
                value = activate(value, Gate::Silu) * sums[comptime!((i * OWN + kept + j) as usize)];
            }
            let (row, column) = (unit / across * OWN + i, unit % across + across * j);
            write(groups, residual, out, place, row, column, value, plan);
        }
    }
}

/// Writes what a plane's instructions summed: a unit has two neighbours of row `lane / 4`, and two eight
/// rows below.
#[cube]
fn write_registers<O: Float>(
    groups: &[i32],
    residual: &[f32],
    out: &mut [O],
    place: &Place,
    sums: &Sequence<Array<Vector<f32, Pair>>>,
    #[comptime] plan: GemmPlan,
) {
    let columns = comptime!(plan.plane_n() / NARROW);
    let kept = comptime!(if plan.pairs() { plan.plane_n() / NARROW / 2 } else { plan.plane_n() / NARROW });
    let m0 = UNIT_POS_Y / plan.planes_n * comptime!(plan.plane_m()) + UNIT_POS_X / 4;
    let n0 = UNIT_POS_Y % plan.planes_n * comptime!(kept * NARROW) + UNIT_POS_X % 4 * 2;
    #[unroll]
    for i in 0..comptime!(plan.plane_m() / FRAGMENT) {
        #[unroll]
        for n in 0..kept {
            #[unroll]
            for half in 0..2u32 {
                let mut pair = sums.index(comptime!((i * columns + n) as usize))[half as usize];
                if comptime!(plan.pairs()) {
                    let second = sums.index(comptime!((i * columns + kept + n) as usize))[half as usize];
                    let mut gated = Vector::<f32, Pair>::empty();
                    #[unroll]
                    for j in 0..2usize {
                        gated.insert(j, activate(pair.extract(j), Gate::Silu) * second.extract(j));
                    }
                    pair = gated;
                }
                let row = m0 + comptime!(i * FRAGMENT + half * 8);
                #[unroll]
                for j in 0..2u32 {
                    let column = n0 + comptime!(n * NARROW + j);
                    write(groups, residual, out, place, row, column, pair.extract(comptime!(j as usize)), plan);
                }
            }
        }
    }
}

/// Writes a plane's fragments, which only memory shows element by element.
#[cube]
fn write_fragments<O: Float>(
    groups: &[i32],
    residual: &[f32],
    out: &mut [O],
    place: &Place,
    fragments: &Sequence<Matrix<f32>>,
    #[comptime] plan: GemmPlan,
) {
    let mut patches = Shared::<[f32]>::new_slice(comptime!((plan.planes() * FRAGMENT * FRAGMENT) as usize));
    let patch = UNIT_POS_Y * comptime!(FRAGMENT * FRAGMENT);
    let columns = comptime!(plan.plane_n() / FRAGMENT);
    let kept = comptime!(if plan.pairs() { plan.plane_n() / FRAGMENT / 2 } else { plan.plane_n() / FRAGMENT });
    let own = comptime!(FRAGMENT * FRAGMENT / plan.plane);
    let m0 = UNIT_POS_Y / plan.planes_n * comptime!(plan.plane_m());
    let n0 = UNIT_POS_Y % plan.planes_n * comptime!(kept * FRAGMENT);
    let mut values = Array::<f32>::new(comptime!(own as usize));
    #[unroll]
    for i in 0..comptime!(plan.plane_m() / FRAGMENT) {
        #[unroll]
        for n in 0..kept {
            let from = comptime!((i * columns + n) as usize);
            cmma::store(&mut patches[patch as usize..], fragments.index(from), FRAGMENT, MatrixLayout::RowMajor);
            sync_plane();
            #[unroll]
            for j in 0..own {
                values[j as usize] = patches[(patch + j * plan.plane + UNIT_POS_X) as usize];
            }
            sync_plane();
            if comptime!(plan.pairs()) {
                let from = comptime!((i * columns + kept + n) as usize);
                cmma::store(&mut patches[patch as usize..], fragments.index(from), FRAGMENT, MatrixLayout::RowMajor);
                sync_plane();
                #[unroll]
                for j in 0..own {
                    let second = patches[(patch + j * plan.plane + UNIT_POS_X) as usize];
                    values[j as usize] = activate(values[j as usize], Gate::Silu) * second;
                }
                sync_plane();
            }
            #[unroll]
            for j in 0..own {
                let index = j * plan.plane + UNIT_POS_X;
                let row = m0 + comptime!(i * FRAGMENT) + index / FRAGMENT;
                let column = n0 + comptime!(n * FRAGMENT) + index % FRAGMENT;
                write(groups, residual, out, place, row, column, values[j as usize], plan);
            }
        }
    }
}

/// Writes the output of row `row` of the tile, `column` outputs after the cube's first.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write<O: Float>(
    groups: &[i32],
    residual: &[f32],
    out: &mut [O],
    place: &Place,
    row: u32,
    column: u32,
    value: f32,
    #[comptime] plan: GemmPlan,
) {
    let at = place.first + row;
    let output = place.output + column;
    if at < place.end && output < place.outputs {
        let to = (row_of(groups, at, plan) * place.stride + place.offset + output) as usize;
        let mut value = value;
        if comptime!(plan.activation == Activation::Relu2 && plan.splits == 1) {
            value = relu2(value);
        }
        if comptime!(plan.residual && plan.splits == 1) {
            value += residual[to];
        }
        out[to] = O::cast_from(value);
    }
}

/// Adds the parts of a depth, `[splits, m, rows]`, and does what rides along. All lengths count vectors, of
/// `vector` elements.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn add_parts<O: Float, N: Size>(
    parts: &[Vector<f32, N>],
    residual: &[Vector<f32, N>],
    out: &mut [Vector<O, N>],
    m: u32,
    rows: u32,
    outputs: u32,
    stride: u32,
    offset: u32,
    #[comptime] vector: u32,
    #[comptime] plan: GemmPlan,
    #[define(O)] _written: ElemType,
) {
    let index = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS_X;
    if index < m * outputs {
        let (row, output) = (index / outputs, index % outputs);
        let mut value = Vector::<f32, N>::new(0.0f32);
        let mut second = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for part in 0..plan.splits {
            let at = (part * m + row) * rows + output;
            value += parts[at as usize];
            if comptime!(plan.gated()) {
                second += parts[(at + outputs) as usize];
            }
        }
        if comptime!(plan.gated()) {
            #[unroll]
            for j in 0..vector {
                let at = comptime!(j as usize);
                value.insert(at, activate(value.extract(at), Gate::Silu) * second.extract(at));
            }
        }
        if comptime!(plan.activation == Activation::Relu2) {
            #[unroll]
            for j in 0..vector {
                let at = comptime!(j as usize);
                value.insert(at, relu2(value.extract(at)));
            }
        }
        let to = (row * stride + offset + output) as usize;
        if comptime!(plan.residual) {
            value += residual[to];
        }
        out[to] = Vector::cast_from(value);
    }
}
