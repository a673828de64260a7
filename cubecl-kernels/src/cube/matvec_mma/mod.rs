//! Products of a few columns, up to eight, on tensor cores, with weights in 16-bit floats or packed: CUDA alone.
//!
//! As in [`matvec`](super::matvec) every weight is read once, straight into registers, and what rides along is the
//! same; but a plane multiplies sixteen rows with all columns by an instruction, where units would compute longer
//! than they read. Elements of a row may be multiplied in any order if x follows it.
#![allow(unsafe_code)]

mod floats;
mod packed;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, FloatDType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::DeviceProperties;
use cubecl::prelude::*;

use super::activation::relu2;
use super::gemm::{NARROW, Pair, multiplies_registers};
use super::runs::{CHUNK, code_exponent};
use super::unpack::{blocks, planes};
use super::{dims, grid};
use crate::formats::Format;
use crate::ops::{Activation, FusionSpec, MatrixSpec};

/// Planes of a cube.
const PLANES: u32 = 8;
/// Units of a plane.
const PLANE: u32 = 32;
/// Rows that a plane multiplies.
const ROWS: u32 = 16;
/// Units that share a row.
const LANES: u32 = 4;
/// Fewest columns for which it pays.
const FEWEST: usize = 3;
/// The same of packed weights, which meet fewer columns rounded to bytes sooner than they are unpacked.
const FEWEST_OF_PACKED: usize = 5;

/// How a product is laid out over planes, and what rides along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    format: Format,
    m: u32,
    /// Elements of a row.
    cols: u32,
    /// Planes that share rows.
    split: u32,
    /// Elements of a vector of x.
    x_vector: u32,
    norm: bool,
    activation: Activation,
    residual: bool,
}

impl Plan {
    fn gated(self) -> bool {
        self.activation == Activation::SwiGlu
    }

    /// Outputs of a plane per column; of gated ones a plane has both rows.
    fn outputs(self) -> u32 {
        if self.gated() { ROWS / 2 } else { ROWS }
    }

    /// Outputs of a cube per column.
    fn cube_outputs(self) -> u32 {
        PLANES / self.split * self.outputs()
    }

    /// Steps that a row is made of.
    fn steps(self) -> u32 {
        self.cols / step_columns(self.format)
    }

    /// Times that a plane loads weights of so many steps.
    fn turns(self, ahead: u32) -> u32 {
        self.steps().div_ceil(self.split * ahead)
    }

    /// Vectors of x that hold so many elements.
    fn x_loads(self, elements: u32) -> u32 {
        elements / self.x_vector
    }
}

/// Columns of a step: a vector a unit, or a chunk.
fn step_columns(format: Format) -> u32 {
    LANES * if format.is_float() { floats::VECTOR } else { CHUNK }
}

/// Whether a device multiplies a few columns by this weight here, rounded to `narrow`, which is a weight's own type
/// where it is not packed.
pub(crate) fn multiplies(properties: &DeviceProperties, spec: MatrixSpec, narrow: FloatDType) -> bool {
    let stored = match spec.format {
        Format::F32 => return false,
        Format::BF16 => DType::BF16,
        Format::F16 => DType::F16,
        _ => narrow.into(),
    };
    DType::from(narrow) == stored
        && spec.cols.is_multiple_of(step_columns(spec.format) as usize)
        && multiplies_registers(properties, stored)
}

/// Whether it pays for `m` columns.
pub(crate) fn pays(spec: MatrixSpec, m: usize) -> bool {
    let fewest = if spec.format.is_float() { FEWEST } else { FEWEST_OF_PACKED };
    (fewest..=NARROW as usize).contains(&m)
}

/// Whether this is how `m` columns of x are multiplied.
pub(super) fn takes(x: &CubeTensor, spec: MatrixSpec, m: usize, fusion: FusionSpec) -> bool {
    pays(spec, m)
        && (x.dtype == DType::F32 || x.dtype == DType::from(fusion.narrow) && fusion.norm_eps.is_none())
        && multiplies(x.client.properties(), spec, fusion.narrow)
}

/// `out[:, offset ..] = x wᵀ` as `fusion` says, where [`takes`] allows it.
#[allow(clippy::too_many_arguments)]
pub(super) fn launch(
    x: CubeTensor,
    words: CubeTensor,
    spec: MatrixSpec,
    out: &CubeTensor,
    offset: usize,
    norm_weight: CubeTensor,
    residual: CubeTensor,
    fusion: FusionSpec,
) {
    let MatrixSpec { format, rows, cols } = spec;
    let [m, stride] = dims(out);
    let x_vector = if x.dtype == DType::F32 { 4 } else { floats::VECTOR };
    let plan = Plan {
        format,
        m: m as u32,
        cols: cols as u32,
        split: 1,
        x_vector,
        norm: fusion.norm_eps.is_some(),
        activation: fusion.activation,
        residual: fusion.residual,
    };
    let ahead = if format.is_float() { floats::AHEAD / 2 } else { packed::AHEAD };
    let split = (plan.steps() / ahead).clamp(1, PLANES);
    let plan = Plan { split: 1 << split.ilog2(), ..plan };
    let outputs = if plan.gated() { rows / 2 } else { rows };
    let count = grid(outputs.div_ceil(plan.cube_outputs() as usize));
    let dim = CubeDim::new_2d(PLANE, PLANES);
    let eps = fusion.norm_eps.unwrap_or(0.0);
    let [tile, read, written] = [fusion.narrow.into(), x.dtype, out.dtype].map(dtype_to_elem_type);
    let (outputs, stride, offset) = (outputs as u32, stride as u32, offset as u32);
    // SAFETY: rows past the last are read as the last and not written, and the buffers hold what the shapes say:
    // x `[m, cols]`, the planes of `spec`, `[cols]`, `[m, stride]` twice.
    unsafe {
        if format.is_float() {
            floats::product::launch_unchecked(
                &out.client,
                count,
                dim,
                floats::VECTOR as usize,
                x_vector as usize,
                4,
                x.into_buffer_arg(),
                words.into_buffer_arg(),
                norm_weight.into_buffer_arg(),
                residual.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                eps,
                outputs,
                stride,
                offset,
                plan,
                tile,
                read,
                written,
            );
        } else {
            packed::product::launch_unchecked(
                &out.client,
                count,
                dim,
                x_vector as usize,
                4,
                x.into_buffer_arg(),
                words.clone().into_buffer_arg(),
                words.into_buffer_arg(),
                norm_weight.into_buffer_arg(),
                residual.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                planes(format, blocks(format, rows * cols)),
                code_exponent(format),
                eps,
                outputs,
                stride,
                offset,
                plan,
                tile,
                read,
                written,
            );
        }
    }
}

/// The cube's number.
#[cube]
fn cube_index() -> u32 {
    CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X
}

/// The two rows of weights that a unit has: row `lane / 4` of the plane's, and the one eight further or, gated, the one
/// that it gates.
#[cube]
fn rows_of(outputs: u32, #[comptime] plan: Plan) -> (u32, u32) {
    let first = cube_index() * comptime!(plan.cube_outputs()) + UNIT_POS_Y / plan.split * comptime!(plan.outputs());
    let upper = min(first + UNIT_POS_X / LANES, outputs - 1);
    let lower =
        if comptime!(plan.gated()) { outputs + upper } else { min(first + UNIT_POS_X / LANES + 8, outputs - 1) };
    (upper, lower)
}

/// Sums of a plane's rows, 16 x 8, two pairs a unit.
#[cube]
fn zero_sums() -> Array<Vector<f32, Pair>> {
    let mut sums = Array::<Vector<f32, Pair>>::new(2usize);
    sums[0] = Vector::new(0.0f32);
    sums[1] = Vector::new(0.0f32);
    sums
}

/// Adds up what planes have summed, does what rides along, and writes. `squares` are those of the unit's part of column
/// `lane / 4`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn finish<O: Float>(
    sums: &Array<Vector<f32, Pair>>,
    squares: f32,
    residual: &[f32],
    out: &mut [O],
    eps: f32,
    outputs: u32,
    stride: u32,
    offset: u32,
    #[comptime] plan: Plan,
) {
    let (m, split) = comptime!((plan.m, plan.split));
    let (cube, lane) = (cube_index(), UNIT_POS_X);
    let unit = UNIT_POS_Y * PLANE + UNIT_POS_X;
    // What planes leave: `[rows, columns]` each, and the squares of the columns.
    let mut parts = Shared::<[f32]>::new_slice(comptime!((PLANES * ROWS * NARROW) as usize));
    let mut powers = Shared::<[f32]>::new_slice(comptime!((PLANES * NARROW) as usize));
    let at = (UNIT_POS_Y * ROWS + lane / LANES) * NARROW + lane % LANES * 2;
    #[unroll]
    for half in 0..2u32 {
        #[unroll]
        for j in 0..2u32 {
            parts[(at + half * comptime!(8 * NARROW) + j) as usize] =
                sums[half as usize].extract(comptime!(j as usize));
        }
    }
    if comptime!(plan.norm) {
        let squares = squares + plane_shuffle_xor(squares, 1u32);
        let squares = squares + plane_shuffle_xor(squares, 2u32);
        if lane % LANES == 0 {
            powers[(UNIT_POS_Y * NARROW + lane / LANES) as usize] = squares;
        }
    }
    sync_cube();

    let per_column = comptime!(plan.cube_outputs());
    #[unroll]
    for pass in 0..comptime!((plan.cube_outputs() * m).div_ceil(PLANES * PLANE)) {
        let i = unit + comptime!(pass * PLANES * PLANE);
        let c = i / per_column;
        let o = i % per_column;
        let output = cube * per_column + o;
        if i < comptime!(per_column * m) && output < outputs {
            let plane = o / comptime!(plan.outputs()) * split;
            let row = o % comptime!(plan.outputs());
            let mut total = 0.0f32;
            let mut second = 0.0f32;
            let mut power = 0.0f32;
            #[unroll]
            for j in 0..split {
                let part = ((plane + j) * ROWS + row) * NARROW + c;
                total += parts[part as usize];
                if comptime!(plan.gated()) {
                    second += parts[(part + comptime!(8 * NARROW)) as usize];
                }
                if comptime!(plan.norm) {
                    power += powers[((plane + j) * NARROW + c) as usize];
                }
            }
            if comptime!(plan.norm) {
                let cols = comptime!(plan.cols as f32);
                let scale = 1.0f32 / f32::sqrt(power / cols + eps);
                total *= scale;
                second *= scale;
            }
            if comptime!(plan.gated()) {
                total = total / (1.0f32 + f32::exp(-total)) * second;
            }
            if comptime!(plan.activation == Activation::Relu2) {
                total = relu2(total);
            }
            let to = (c * stride + offset + output) as usize;
            if comptime!(plan.residual) {
                total += residual[to];
            }
            out[to] = O::cast_from(total);
        }
    }
}
