//! Products of many rows with stored weights, for prompts and large batches.
//!
//! Tiles of x and of the weights go through shared memory, the weights unpacked on the way, and are
//! multiplied on tensor cores where the device has them for the type, else by fused multiply-adds.
//! Gate and residual ride along. Nothing is tuned at run time: [`plan`] chooses the tiles.
#![allow(unsafe_code)]

mod copies;
mod fragments;
mod kernel;
mod plan;
mod registers;
mod stage;
mod units;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
pub(super) use copies::{copies_end_a_group, wait_for_copies};
use cubecl::prelude::*;
pub(super) use plan::FRAGMENT;
use plan::GemmPlan;
pub(crate) use plan::multiplies_registers;
pub(super) use plan::{expert_tile, expert_tiles};
pub(super) use registers::{NARROW, Pair};

use super::runs::code_exponent;
use super::unpack::{blocks, planes};
use super::{dims, empty, grid, line};
use crate::ops::{Activation, FusionSpec, MatrixSpec};

/// A product's output, and the columns that it fills.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    /// `[m, stride]`, float32 or the type of x.
    pub(super) out: &'a CubeTensor,
    pub(super) offset: usize,
}

/// `out[:, offset ..] = x wᵀ` as `fusion` says, but for the norm; x `[m, cols]` in the type that is
/// multiplied, `residual` of the shape of `out`.
pub(super) fn launch(
    x: CubeTensor,
    words: CubeTensor,
    spec: MatrixSpec,
    to: Output<'_>,
    residual: CubeTensor,
    fusion: FusionSpec,
) {
    let MatrixSpec { rows, .. } = spec;
    let [m, stride] = dims(to.out);
    let plan = GemmPlan::new(&x, spec, m, fusion, 0);
    let outputs = if plan.gated() { rows / 2 } else { rows };
    if plan.splits == 1 {
        let none = words.clone();
        launch_tiles(
            x,
            words,
            spec,
            none,
            residual,
            to.out,
            [m, outputs, stride, to.offset, 1],
            plan.grid(m, outputs),
            plan,
        );
        return;
    }
    let parts = empty(&x, [plan.splits as usize * m, rows], DType::F32);
    let none = words.clone();
    launch_tiles(x, words, spec, none, residual.clone(), &parts, [m, rows, rows, 0, 1], plan.grid(m, rows), plan);
    let vector = if [rows, outputs, stride, to.offset].iter().all(|n| n.is_multiple_of(4)) { 4 } else { 1 };
    // SAFETY: units past the last output do nothing, and the buffers hold what the shapes say.
    unsafe {
        kernel::add_parts::launch_unchecked(
            &parts.client.clone(),
            grid((m * outputs / vector).div_ceil(256)),
            line(256),
            vector,
            parts.into_buffer_arg(),
            residual.into_buffer_arg(),
            to.out.clone().into_buffer_arg(),
            m as u32,
            (rows / vector) as u32,
            (outputs / vector) as u32,
            (stride / vector) as u32,
            (to.offset / vector) as u32,
            vector as u32,
            plan,
            dtype_to_elem_type(to.out.dtype),
        );
    }
}

/// The experts of a product: the lists of choices and of tiles by expert, and how many choices read a row
/// of x.
pub(super) struct Grouped {
    pub(super) groups: CubeTensor,
    pub(super) experts: usize,
    pub(super) share: usize,
    pub(super) activation: Activation,
}

/// `out[c, offset ..] = W[expert of c] x[c / share]` for every choice c.
pub(super) fn launch_grouped(x: CubeTensor, words: CubeTensor, spec: MatrixSpec, to: Output<'_>, grouped: Grouped) {
    let Grouped { groups, experts, share, activation } = grouped;
    let [choices, stride] = dims(to.out);
    let rows = spec.rows / experts;
    let tile = expert_tile(choices, experts);
    let fusion = FusionSpec { activation, ..FusionSpec::default() };
    let plan = GemmPlan::new(&x, MatrixSpec { rows, ..spec }, tile, fusion, experts);
    let outputs = if plan.gated() { rows / 2 } else { rows };
    let residual = words.clone();
    launch_tiles(
        x,
        words,
        spec,
        groups,
        residual,
        to.out,
        [choices, outputs, stride, to.offset, share],
        plan.grid(choices, outputs),
        plan,
    );
}

#[allow(clippy::too_many_arguments)]
fn launch_tiles(
    x: CubeTensor,
    words: CubeTensor,
    spec: MatrixSpec,
    groups: CubeTensor,
    residual: CubeTensor,
    out: &CubeTensor,
    [m, outputs, stride, offset, share]: [usize; 5],
    count: CubeCount,
    plan: GemmPlan,
) {
    let MatrixSpec { format, rows, cols } = spec;
    let dtype = dtype_to_elem_type(x.dtype);
    // SAFETY: rows of x and of the weights past the last are read as the last, columns past the last are
    // not read, and outputs past the last not written; the buffers hold what the shapes say: x `[m, cols]`
    // (or a row for `share` choices), the planes of `spec`, `[experts + 1 + m + tiles]`, `[m, stride]` twice.
    unsafe {
        kernel::gemm::launch_unchecked(
            &out.client,
            count,
            CubeDim::new_2d(plan.plane, plan.planes()),
            plan.vector as usize,
            4,
            x.into_buffer_arg(),
            words.clone().into_buffer_arg(),
            words.clone().into_buffer_arg(),
            words.into_buffer_arg(),
            groups.into_buffer_arg(),
            residual.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            planes(format, blocks(format, rows * cols)),
            code_exponent(format),
            m as u32,
            outputs as u32,
            stride as u32,
            offset as u32,
            share as u32,
            plan,
            dtype,
            dtype_to_elem_type(out.dtype),
        );
    }
}
