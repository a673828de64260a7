//! Launches of the products, and whole or picked rows of a stored matrix.
#![allow(unsafe_code)]

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::matvec::{self, Choice, MatvecPlan};
use super::matvec_mma;
use super::runs::{CHUNK, chunks_per_block, code_exponent};
use super::unpack::{Planes, blocks, groups_per_block, native_half, planes, unpack1, unpack8};
use super::{contiguous, dims, empty, gemm, grid, line, plane_size, stacked_grid};
use crate::formats::Format;
use crate::ops::{Activation, FusedLinearOps, FusionSpec, LinearOps, MATVEC_ROWS, MatrixSpec};

/// Planes of a matrix-vector cube, or a few less where they do not divide it.
const PLANES: u32 = 8;
/// Most planes that share a row of a product in bytes.
const MOST_SPLITS: u32 = 4;
/// Cubes that fill a large device.
const FULL: u32 = 256;
/// Most sums of a unit in a product in bytes.
const MOST_SUMS: u32 = 32;

impl LinearOps for CubeBackend {
    fn linear_into(x: CubeTensor, words: CubeTensor, spec: MatrixSpec, out: CubeTensor, offset: usize) -> CubeTensor {
        let (norm, residual) = (x.clone(), x.clone());
        Self::linear_fused_into(x, words, spec, norm, residual, out, offset, FusionSpec::default())
    }

    fn dequantize(words: CubeTensor, spec: MatrixSpec, dtype: FloatDType) -> CubeTensor {
        let dtype = DType::from(dtype);
        let MatrixSpec { format, rows, cols } = spec;
        // A float matrix that already has the type is viewed, not copied.
        if words.dtype == DType::U32 && dtype == float_dtype(format) {
            let shape = burn::tensor::Shape::from(vec![rows, cols]);
            return CubeTensor::new_contiguous(words.client.clone(), words.device.clone(), shape, words.handle, dtype);
        }
        let out = empty(&words, [rows, cols], dtype);
        if cols % 8 == 0 {
            let groups = rows * cols / 8;
            dequantize_groups::launch(
                &out.client,
                grid(groups.div_ceil(256)),
                line(256),
                words.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                planes(format, blocks(format, rows * cols)),
                groups as u32,
                format,
                groups_per_block(format),
                dtype_to_elem_type(dtype),
            );
        } else {
            dequantize_elements::launch(
                &out.client,
                grid((rows * cols).div_ceil(256)),
                line(256),
                words.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                (rows * cols) as u32,
                format,
                dtype_to_elem_type(dtype),
            );
        }
        out
    }

    fn embedding(words: CubeTensor, tokens: CubeTensor, spec: MatrixSpec) -> CubeTensor {
        let MatrixSpec { format, rows, cols } = spec;
        let tokens = contiguous(tokens);
        let [n] = dims(&tokens);
        let out = empty(&words, [n, cols], DType::F32);
        gather::launch(
            &out.client,
            CubeCount::Static(n as u32, 1, 1),
            line(128),
            words.into_buffer_arg(),
            tokens.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            planes(format, blocks(format, rows * cols)),
            cols as u32,
            cols % 8 == 0,
            format,
            groups_per_block(format),
        );
        out
    }
}

impl FusedLinearOps for CubeBackend {
    fn linear_fused_into(
        x: CubeTensor,
        words: CubeTensor,
        spec: MatrixSpec,
        norm_weight: CubeTensor,
        residual: CubeTensor,
        out: CubeTensor,
        offset: usize,
        fusion: FusionSpec,
    ) -> CubeTensor {
        let (x, norm_weight, residual) = (contiguous(x), contiguous(norm_weight), contiguous(residual));
        let m = dims::<2>(&x)[0];
        if matvec_mma::takes(&x, spec, m, fusion) {
            matvec_mma::launch(x, words, spec, &out, offset, norm_weight, residual, fusion);
        } else if x.dtype != DType::F32 || m > MATVEC_ROWS {
            gemm::launch(x, words, spec, gemm::Output { out: &out, offset }, residual, fusion);
        } else {
            launch_matvec(x, words, spec, &out, offset, norm_weight, residual, fusion);
        }
        out
    }

    fn linear_pair_into(
        x: CubeTensor,
        words: CubeTensor,
        spec: MatrixSpec,
        second_words: CubeTensor,
        second_spec: MatrixSpec,
        norm_weight: CubeTensor,
        out: CubeTensor,
        offset: usize,
        fusion: FusionSpec,
    ) -> CubeTensor {
        let (x, norm_weight) = (contiguous(x), contiguous(norm_weight));
        let [m, stride] = dims(&out);
        let plan = matvec_plan(&x, spec, m, fusion, Choice::All, 1);
        let second = matvec_plan(&x, second_spec, m, fusion, Choice::All, 1);
        let apart = |spec| matvec_mma::takes(&x, spec, m, fusion);
        if apart(spec)
            || apart(second_spec)
            || plan.planes != second.planes
            || plan.shared_bytes() + second.shared_bytes() > shared_memory(&x)
        {
            let (nothing, norm, at) = (x.clone(), norm_weight.clone(), offset + spec.rows);
            let out = Self::linear_fused_into(x.clone(), words, spec, norm, nothing.clone(), out, offset, fusion);
            return Self::linear_fused_into(x, second_words, second_spec, norm_weight, nothing, out, at, fusion);
        }
        let cubes = spec.rows.div_ceil(plan.cube_outputs() as usize);
        let all_cubes = cubes + second_spec.rows.div_ceil(second.cube_outputs() as usize);
        let planes_of = |spec: MatrixSpec| planes(spec.format, blocks(spec.format, spec.rows * spec.cols));
        // SAFETY: as in [`launch_matvec`], for each of the weights.
        unsafe {
            matvec::matvec_pair::launch_unchecked(
                &out.client,
                grid(all_cubes),
                CubeDim::new_2d(plan.plane, plan.planes),
                4,
                x.clone().into_buffer_arg(),
                words.clone().into_buffer_arg(),
                words.clone().into_buffer_arg(),
                second_words.clone().into_buffer_arg(),
                second_words.into_buffer_arg(),
                norm_weight.into_buffer_arg(),
                x.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                words.into_buffer_arg(),
                planes_of(spec),
                planes_of(second_spec),
                code_exponent(spec.format),
                code_exponent(second_spec.format),
                fusion.norm_eps.unwrap_or(0.0),
                spec.rows as u32,
                second_spec.rows as u32,
                stride as u32,
                offset as u32,
                cubes as u32,
                plan,
                second,
            );
        }
        out
    }
}

fn float_dtype(format: Format) -> DType {
    match format {
        Format::F32 => DType::F32,
        Format::F16 => DType::F16,
        Format::BF16 => DType::BF16,
        _ => DType::U32,
    }
}

/// How many planes share a row, and how many rows a plane takes, so that some loads of every unit are
/// in flight at once and the matrix spreads over the whole device. `columns` choices are computed at once.
fn matvec_plan(
    x: &CubeTensor,
    spec: MatrixSpec,
    m: usize,
    fusion: FusionSpec,
    choice: Choice,
    columns: usize,
) -> MatvecPlan {
    let MatrixSpec { format, rows, cols } = spec;
    let plane = plane_size(x);
    let packed = !format.is_float();
    let chunks = if packed { cols as u32 / CHUNK } else { (cols * format.block_bytes() / 16) as u32 };
    let plan = MatvecPlan {
        format,
        m: m as u32,
        chunks,
        split: 1,
        rows: 2,
        planes: PLANES,
        plane,
        native_half: native_half(x),
        norm: fusion.norm_eps.is_some(),
        activation: fusion.activation,
        residual: fusion.residual,
        choice,
        int8: fusion.int8 && packed,
        held: 1,
    };
    let loads = rows as u32 * plan.all_chunks();
    let shared = shared_memory(x);
    let of_floats = || MatvecPlan { int8: false, ..plan }.of_floats(loads);
    if plan.int8 {
        // Floats need no shared memory for x: a small one may not hold a step of eight columns.
        let plan = plan.of_bytes(loads * columns as u32, held_memory(shared));
        if plan.shared_bytes() <= shared { plan } else { of_floats() }
    } else {
        of_floats()
    }
}

impl MatvecPlan {
    /// For products in floats, of `loads` chunks or vectors.
    fn of_floats(self, loads: u32) -> Self {
        let packed = !self.format.is_float();
        // A chunk of a packed format is several loads, and many instructions.
        let per_unit = if packed { 1 } else { 2 };
        let split = (self.all_chunks() / (self.plane * per_unit)).clamp(1, PLANES);
        // Rows that share loads of x, where enough planes are left to fill the device.
        let rows = match loads {
            400_000.. if packed => 4,
            700_000.. => 4,
            _ if self.m >= 4 => 4,
            _ => 2,
        };
        Self { split, rows, ..self }.with_whole_groups()
    }

    /// For products in bytes of `loads` chunks, with x in so many bytes of shared memory.
    fn of_bytes(self, loads: u32, shared: u32) -> Self {
        let m = self.m;
        let per_block = chunks_per_block(self.format);
        // Steps that whole blocks are made of.
        let whole = |plan: &Self| per_block / gcd(per_block, plan.step_chunks());
        let fits = |plan: &Self| Self::held_bytes(m, plan.step_chunks()) * whole(plan) <= shared;
        // Of planes that share a row, the more the better, unless many units of a last step have nothing to do.
        let idle = |plan: &Self| plan.steps() * plan.step_chunks() * 100 / plan.all_chunks();
        let splits =
            || (1..=MOST_SPLITS).map(|split| Self { split, ..self }).filter(|plan| plan.split == 1 || fits(plan));
        let least = splits().map(|plan| idle(&plan)).min().unwrap_or_default();
        let plan = splits().rfind(|plan| idle(plan) <= least + 10).unwrap_or(self);
        let step = Self::held_bytes(m, plan.step_chunks());
        let held = if step * plan.steps() <= shared {
            plan.steps()
        } else {
            (shared / step / whole(&plan)).max(1) * whole(&plan)
        };
        // What is done once for all rows of a plane counts for more, the more planes there are.
        let rows = match loads {
            800_000.. => 8,
            180_000.. => 4,
            150_000.. => 2,
            _ => 1,
        };
        let least = if plan.gated() { 2 } else { 1 };
        // Sums over several experts have few rows: processors must not go without.
        let cubes = |rows| loads / plan.all_chunks() / (PLANES / plan.split * rows);
        let fewer = [4, 2, 1].into_iter().find(|&fewer| fewer < rows && cubes(fewer) >= FULL).unwrap_or(1);
        let rows = if cubes(rows) < FULL / 2 { fewer } else { rows };
        Self { held, rows: rows.min(MOST_SUMS / m).max(least), ..plan }.with_whole_groups()
    }

    /// As many planes as whole groups that share a row are made of.
    fn with_whole_groups(self) -> Self {
        Self { planes: PLANES / self.split * self.split, ..self }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Bytes of shared memory that a cube may have.
fn shared_memory(tensor: &CubeTensor) -> u32 {
    tensor.client.properties().hardware.max_shared_memory_size as u32
}

/// Those that x may take of them beside a second product, and beside what planes leave for each other.
fn held_memory(shared: u32) -> u32 {
    (shared / 2).saturating_sub(4096).min(32_768)
}

/// The experts of a product, as [`matvec::matvec`] takes them.
pub(super) struct Chosen {
    pub(super) choice: Choice,
    pub(super) ids: CubeTensor,
    /// Stands in as anything where nothing is summed.
    pub(super) weights: CubeTensor,
    pub(super) experts: usize,
    pub(super) share: usize,
    /// Weight and epsilon of a norm of x.
    pub(super) norm: Option<(CubeTensor, f32)>,
    /// Added to the result, where there is one for each token.
    pub(super) residual: Option<CubeTensor>,
    /// What follows the product, and whether x is rounded to bytes.
    pub(super) activation: Activation,
    pub(super) int8: bool,
}

/// A product with chosen experts, one column a choice or token of `out`.
pub(super) fn launch_chosen(
    x: CubeTensor,
    words: CubeTensor,
    spec: MatrixSpec,
    out: &CubeTensor,
    offset: usize,
    chosen: Chosen,
) {
    let MatrixSpec { format, rows, cols } = spec;
    let [columns, stride] = dims(out);
    let all = planes(format, blocks(format, rows * cols));
    let rows = rows / chosen.experts;
    let of_expert = MatrixSpec { rows, ..spec };
    let fusion = FusionSpec {
        norm_eps: chosen.norm.as_ref().map(|(_, eps)| *eps),
        activation: chosen.activation,
        residual: chosen.residual.is_some(),
        int8: chosen.int8,
        ..FusionSpec::default()
    };
    let plan = matvec_plan(&x, of_expert, 1, fusion, chosen.choice, columns);
    let outputs = if plan.gated() { rows / 2 } else { rows };
    let (norm_weight, eps) = chosen.norm.unwrap_or_else(|| (x.clone(), 0.0));
    let residual = chosen.residual.unwrap_or_else(|| x.clone());
    // SAFETY: as in [`launch_matvec`]; ids lie below the number of experts, which the gate sees to.
    unsafe {
        matvec::matvec::launch_unchecked(
            &out.client,
            stacked_grid(outputs.div_ceil(plan.cube_outputs() as usize), columns),
            CubeDim::new_2d(plan.plane, plan.planes),
            4,
            x.into_buffer_arg(),
            words.clone().into_buffer_arg(),
            words.into_buffer_arg(),
            norm_weight.into_buffer_arg(),
            residual.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            chosen.ids.into_buffer_arg(),
            chosen.weights.into_buffer_arg(),
            all,
            code_exponent(format),
            eps,
            outputs as u32,
            stride as u32,
            offset as u32,
            chosen.share as u32,
            plan,
        );
    }
}

#[allow(clippy::too_many_arguments)]
fn launch_matvec(
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
    let plane = plane_size(&x);
    let (stride, offset) = (stride as u32, offset as u32);
    if spec.whole_vectors() {
        let plan = matvec_plan(&x, spec, m, fusion, Choice::All, 1);
        let outputs = if plan.gated() { rows / 2 } else { rows };
        let stand_in = words.clone();
        // SAFETY: rows and chunks past the last are masked or clamped in the kernel, and the buffers
        // hold what the shapes say: x `[m, cols]`, the planes of `spec`, `[cols]`, `[m, stride]` twice.
        unsafe {
            matvec::matvec::launch_unchecked(
                &out.client,
                grid(outputs.div_ceil(plan.cube_outputs() as usize)),
                CubeDim::new_2d(plane, plan.planes),
                4,
                x.into_buffer_arg(),
                words.clone().into_buffer_arg(),
                words.into_buffer_arg(),
                norm_weight.into_buffer_arg(),
                residual.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                stand_in.clone().into_buffer_arg(),
                stand_in.into_buffer_arg(),
                planes(format, blocks(format, rows * cols)),
                code_exponent(format),
                fusion.norm_eps.unwrap_or(0.0),
                outputs as u32,
                stride,
                offset,
                1,
                plan,
            );
        }
    } else {
        matvec::matvec_ragged::launch(
            &out.client,
            grid(rows.div_ceil(4)),
            CubeDim::new_2d(plane, 4),
            x.into_buffer_arg(),
            words.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows as u32,
            cols as u32,
            stride,
            offset,
            m as u32,
            format,
        );
    }
}

/// The whole matrix, eight elements a unit.
#[cube(launch)]
fn dequantize_groups<F: Float>(
    w: &[u32],
    out: &mut [F],
    planes: Planes,
    groups: u32,
    #[comptime] format: Format,
    #[comptime] groups_per_block: u32,
    #[define(F)] _dtype: ElemType,
) {
    let unit = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS_X;
    if unit < groups {
        let mut values = Array::<f32>::new(8usize);
        unpack8(w, &planes, unit / groups_per_block, unit % groups_per_block, &mut values, format);
        #[unroll]
        for j in 0..8u32 {
            out[(unit * 8 + j) as usize] = F::cast_from(values[j as usize]);
        }
    }
}

/// The whole matrix, an element a unit.
#[cube(launch)]
fn dequantize_elements<F: Float>(
    w: &[u32],
    out: &mut [F],
    elements: u32,
    #[comptime] format: Format,
    #[define(F)] _dtype: ElemType,
) {
    let unit = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_X + UNIT_POS_X;
    if unit < elements {
        out[unit as usize] = F::cast_from(unpack1(w, unit, format));
    }
}

/// Row `tokens[cube]` of the matrix.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn gather(
    w: &[u32],
    tokens: &[i32],
    out: &mut [f32],
    planes: Planes,
    cols: u32,
    #[comptime] grouped: bool,
    #[comptime] format: Format,
    #[comptime] groups_per_block: u32,
) {
    let n = CUBE_POS_X;
    let row = u32::cast_from(tokens[n as usize]);
    let mut k = UNIT_POS_X;
    if comptime!(grouped) {
        let groups = cols / 8;
        let mut values = Array::<f32>::new(8usize);
        while k < groups {
            let index = row * groups + k;
            unpack8(w, &planes, index / groups_per_block, index % groups_per_block, &mut values, format);
            #[unroll]
            for j in 0..8u32 {
                out[(n * cols + k * 8 + j) as usize] = values[j as usize];
            }
            k += CUBE_DIM_X;
        }
    } else {
        while k < cols {
            out[(n * cols + k) as usize] = unpack1(w, row * cols + k, format);
            k += CUBE_DIM_X;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product of `m` columns of `chunks` chunks each, before it is laid out.
    fn product(format: Format, chunks: u32, m: u32, plane: u32) -> MatvecPlan {
        MatvecPlan {
            format,
            m,
            chunks,
            split: 1,
            rows: 2,
            planes: PLANES,
            plane,
            native_half: true,
            norm: true,
            activation: Activation::SwiGlu,
            residual: false,
            choice: Choice::All,
            int8: true,
            held: 1,
        }
    }

    #[test]
    fn what_a_cube_holds_of_x_is_whole_blocks_and_fits() {
        for format in Format::ALL.into_iter().filter(|format| !format.is_float()) {
            let per_block = chunks_per_block(format);
            for plane in [4, 8, 16, 32, 64] {
                for (blocks, m) in (1..=8).flat_map(|m| [(1, m), (3, m), (12, m), (100, m)]) {
                    for shared in [16_384, 32_768, 49_152, 232_448] {
                        let budget = held_memory(shared);
                        let plan = product(format, blocks * per_block, m, plane).of_bytes(1 << 20, budget);
                        let chunks = plan.held * plan.step_chunks();
                        let what = format!("{plan:?} in {shared} bytes");
                        assert!(plan.held >= plan.steps() || chunks.is_multiple_of(per_block), "{what}");
                        assert!(plan.rows * m <= MOST_SUMS && plan.rows >= 2, "{what}");
                        assert!(plan.planes >= plan.split && plan.planes.is_multiple_of(plan.split), "{what}");
                        // One plane of 32 units a row fits with eight columns in what every device has.
                        assert!(plane > 32 || shared < 32_768 || 2 * plan.shared_bytes() <= shared, "{what}");
                    }
                }
            }
        }
    }
}
