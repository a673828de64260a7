//! RMS norm, a cube a row.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty, line};
use crate::ops::NormOps;

const UNITS: u32 = 256;

impl NormOps for CubeBackend {
    fn rms_norm(x: CubeTensor, weight: CubeTensor, eps: f32, dtype: FloatDType) -> CubeTensor {
        let x = contiguous(x);
        let [m, hidden] = dims(&x);
        let out = empty(&x, [m, hidden], DType::from(dtype));
        let vector = if hidden.is_multiple_of(4) { 4 } else { 1 };
        rms_norm::launch(
            &out.client,
            CubeCount::Static(m as u32, 1, 1),
            line(UNITS),
            vector,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            eps,
            (hidden / vector) as u32,
            vector as u32,
            dtype_to_elem_type(out.dtype),
        );
        out
    }

    fn add_rms_norm(x: CubeTensor, residual: CubeTensor, weight: CubeTensor, eps: f32) -> (CubeTensor, CubeTensor) {
        let (x, residual) = (contiguous(x), contiguous(residual));
        let [m, hidden] = dims(&x);
        let sum = empty(&x, [m, hidden], DType::F32);
        let out = empty(&x, [m, hidden], DType::F32);
        add_rms_norm::launch(
            &out.client,
            CubeCount::Static(m as u32, 1, 1),
            line(UNITS),
            x.into_buffer_arg(),
            residual.into_buffer_arg(),
            weight.into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            hidden as u32,
            eps,
        );
        (sum, out)
    }

    fn rms_norm_add(x: CubeTensor, residual: CubeTensor, weight: CubeTensor, eps: f32, scale: f32) -> CubeTensor {
        let (x, residual) = (contiguous(x), contiguous(residual));
        let [m, hidden] = dims(&x);
        let out = empty(&x, [m, hidden], DType::F32);
        rms_norm_add::launch(
            &out.client,
            CubeCount::Static(m as u32, 1, 1),
            line(UNITS),
            x.into_buffer_arg(),
            residual.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            hidden as u32,
            eps,
            scale,
        );
        out
    }
}

/// The cube's sum of `value`, for every unit.
#[cube]
pub(super) fn cube_sum(value: f32, #[comptime] units: u32) -> f32 {
    let mut parts = Shared::<[f32]>::new_slice(comptime!(units as usize));
    let total = plane_sum(value);
    if UNIT_POS_PLANE == 0 {
        parts[(UNIT_POS_X / PLANE_DIM) as usize] = total;
    }
    sync_cube();
    let mut sum = 0.0f32;
    for i in 0..units / PLANE_DIM {
        sum += parts[i as usize];
    }
    sum
}

/// The cube's largest `value`, for every unit.
#[cube]
pub(super) fn cube_max(value: f32, #[comptime] units: u32) -> f32 {
    let mut parts = Shared::<[f32]>::new_slice(comptime!(units as usize));
    let own = plane_max(value);
    if UNIT_POS_PLANE == 0 {
        parts[(UNIT_POS_X / PLANE_DIM) as usize] = own;
    }
    sync_cube();
    let mut largest = parts[0];
    for i in 1..units / PLANE_DIM {
        largest = max(largest, parts[i as usize]);
    }
    largest
}

/// `vectors` is the row's length in vectors; a unit keeps its own in registers.
#[cube(launch)]
fn rms_norm<O: Float, N: Size>(
    x: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    out: &mut [Vector<O, N>],
    eps: f32,
    #[comptime] vectors: u32,
    #[comptime] vector: u32,
    #[define(O)] _dtype: ElemType,
) {
    let base = CUBE_POS_X * vectors;
    let own = comptime!(vectors.div_ceil(UNITS));
    let mut held = Array::<Vector<f32, N>>::new(comptime!(own as usize));
    let mut squares = 0.0f32;
    #[unroll]
    for j in 0..own {
        let i = UNIT_POS_X + j * UNITS;
        let mut v = Vector::<f32, N>::new(0.0f32);
        if i < vectors {
            v = x[(base + i) as usize];
        }
        #[unroll]
        for e in 0..vector {
            let element = v.extract(comptime!(e as usize));
            squares += element * element;
        }
        held[j as usize] = v;
    }
    let elements = comptime!((vectors * vector) as f32);
    let scale = 1.0f32 / f32::sqrt(cube_sum(squares, UNITS) / elements + eps);
    #[unroll]
    for j in 0..own {
        let i = UNIT_POS_X + j * UNITS;
        if i < vectors {
            let normed = held[j as usize] * Vector::new(scale) * weight[i as usize];
            out[(base + i) as usize] = Vector::cast_from(normed);
        }
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn add_rms_norm(x: &[f32], residual: &[f32], weight: &[f32], sum: &mut [f32], out: &mut [f32], hidden: u32, eps: f32) {
    let base = CUBE_POS_X * hidden;
    let mut squares = 0.0f32;
    let mut i = UNIT_POS_X;
    while i < hidden {
        let v = x[(base + i) as usize] + residual[(base + i) as usize];
        sum[(base + i) as usize] = v;
        squares += v * v;
        i += UNITS;
    }
    let scale = 1.0f32 / f32::sqrt(cube_sum(squares, UNITS) / f32::cast_from(hidden) + eps);
    // Each unit reads back only what it wrote itself.
    let mut i = UNIT_POS_X;
    while i < hidden {
        out[(base + i) as usize] = sum[(base + i) as usize] * scale * weight[i as usize];
        i += UNITS;
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn rms_norm_add(x: &[f32], residual: &[f32], weight: &[f32], out: &mut [f32], hidden: u32, eps: f32, factor: f32) {
    let base = CUBE_POS_X * hidden;
    let mut squares = 0.0f32;
    let mut i = UNIT_POS_X;
    while i < hidden {
        let v = x[(base + i) as usize];
        squares += v * v;
        i += UNITS;
    }
    let scale = 1.0f32 / f32::sqrt(cube_sum(squares, UNITS) / f32::cast_from(hidden) + eps);
    let mut i = UNIT_POS_X;
    while i < hidden {
        let normed = x[(base + i) as usize] * scale * weight[i as usize];
        out[(base + i) as usize] = (residual[(base + i) as usize] + normed) * factor;
        i += UNITS;
    }
}
