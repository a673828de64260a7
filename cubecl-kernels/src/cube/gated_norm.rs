//! RMS norm with a gate: a plane a group where a few vectors a unit make it up, else a cube.
#![allow(unsafe_code)]

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dependent::{begin_next, wait_for_launches};
use super::norm::cube_sum;
use super::{contiguous, dims, empty, grid, line, plane_size};
use crate::ops::{GateOrder, GatedNormOps, GatedNormSpec};

/// Elements of a vector.
const VECTOR: usize = 4;
/// Most vectors of a unit of a plane that has a group.
const MOST: usize = 2;
/// Groups from which on several share a cube: fewer are spread over the device.
const MANY: usize = 1024;

impl GatedNormOps for CubeBackend {
    fn gated_rms_norm(
        x: CubeTensor,
        gate: CubeTensor,
        weight: CubeTensor,
        eps: f32,
        spec: GatedNormSpec,
    ) -> CubeTensor {
        let (x, gate) = (contiguous(x), contiguous(gate));
        let ([m, width], [_, gate_width], [weights]) = (dims(&x), dims(&gate), dims(&weight));
        let n = spec.group_size;
        let out = empty(&x, [m, width], DType::F32);
        let (plane, offset, all) = (plane_size(&x) as usize, spec.gate_offset, m * width / n);
        let planes = if all < MANY { 1 } else { 8 };
        let few = n.is_multiple_of(VECTOR * plane) && n <= MOST * VECTOR * plane;
        if few && [width, gate_width, offset].iter().all(|n| n.is_multiple_of(VECTOR)) {
            // SAFETY: planes past the last group do nothing, and the buffers hold what the shapes say: `[m, width]`
            // twice, `[m, gate_width]` and `[n]` or `[width]`.
            unsafe {
                norm_groups::launch_unchecked(
                    &out.client,
                    grid(all.div_ceil(planes)),
                    CubeDim::new_2d(plane as u32, planes as u32),
                    VECTOR,
                    x.into_buffer_arg(),
                    gate.into_buffer_arg(),
                    weight.into_buffer_arg(),
                    out.clone().into_buffer_arg(),
                    all as u32,
                    (width / n) as u32,
                    (gate_width / VECTOR) as u32,
                    (offset / VECTOR) as u32,
                    eps,
                    n as u32,
                    weights == n,
                    spec.order,
                    plane as u32,
                );
            }
            return out;
        }
        let units = if n <= 128 { 128 } else { 256 };
        gated_rms_norm::launch(
            &out.client,
            CubeCount::Static((width / n) as u32, m as u32, 1),
            line(units),
            x.into_buffer_arg(),
            gate.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width as u32,
            gate_width as u32,
            spec.gate_offset as u32,
            eps,
            n as u32,
            weights == n,
            spec.order,
            units,
        );
        out
    }
}

#[cube]
fn silu(x: f32) -> f32 {
    x / (1.0f32 + f32::exp(-x))
}

/// `silu` of each element.
#[cube]
fn silus<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let mut out = Vector::<f32, N>::empty();
    #[unroll]
    for e in 0..comptime!(VECTOR) {
        out.insert(e, silu(x.extract(e)));
    }
    out
}

/// A group a plane; `gate_width` and `gate_offset` count vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn norm_groups<N: Size>(
    x: &[Vector<f32, N>],
    gate: &[Vector<f32, N>],
    weight: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    all: u32,
    groups: u32,
    gate_width: u32,
    gate_offset: u32,
    eps: f32,
    #[comptime] n: u32,
    #[comptime] shared_weight: bool,
    #[comptime] order: GateOrder,
    #[comptime] plane: u32,
) {
    begin_next();
    wait_for_launches();
    let vectors = comptime!(n / VECTOR as u32);
    let own = comptime!(n / VECTOR as u32 / plane);
    let index = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * CUBE_DIM_Y + UNIT_POS_Y;
    if index < all {
        let (row, group) = (index / groups, index % groups);
        let mut values = Array::<Vector<f32, N>>::new(comptime!(own as usize));
        let mut gates = Array::<Vector<f32, N>>::new(comptime!(own as usize));
        let mut squares = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for j in 0..own {
            let i = j * plane + UNIT_POS_X;
            gates[j as usize] = silus(gate[(row * gate_width + gate_offset + group * vectors + i) as usize]);
            let mut value = x[(index * vectors + i) as usize];
            if comptime!(matches!(order, GateOrder::GateFirst)) {
                value *= gates[j as usize];
            }
            values[j as usize] = value;
            squares += value * value;
        }
        let mut sum = 0.0f32;
        #[unroll]
        for e in 0..comptime!(VECTOR) {
            sum += squares.extract(e);
        }
        let scale = 1.0f32 / f32::sqrt(plane_sum(sum) / comptime!(n as f32) + eps);
        #[unroll]
        for j in 0..own {
            let i = j * plane + UNIT_POS_X;
            let w = if comptime!(shared_weight) { weight[i as usize] } else { weight[(group * vectors + i) as usize] };
            let mut value = values[j as usize] * Vector::new(scale) * w;
            if comptime!(matches!(order, GateOrder::NormFirst)) {
                value *= gates[j as usize];
            }
            out[(index * vectors + i) as usize] = value;
        }
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn gated_rms_norm(
    x: &[f32],
    gate: &[f32],
    weight: &[f32],
    out: &mut [f32],
    width: u32,
    gate_width: u32,
    gate_offset: u32,
    eps: f32,
    #[comptime] n: u32,
    #[comptime] shared_weight: bool,
    #[comptime] order: GateOrder,
    #[comptime] units: u32,
) {
    begin_next();
    wait_for_launches();
    let (group, row) = (CUBE_POS_X, CUBE_POS_Y);
    let first = group * n;
    let gate_first = comptime!(matches!(order, GateOrder::GateFirst));
    let per_unit = comptime!(n.div_ceil(units));
    let mut values = Array::<f32>::new(comptime!(per_unit as usize));
    let mut squares = 0.0f32;
    #[unroll]
    for o in 0..per_unit {
        let i = UNIT_POS_X + o * units;
        let mut value = 0.0f32;
        if i < n {
            value = x[(row * width + first + i) as usize];
            if comptime!(gate_first) {
                value *= silu(gate[(row * gate_width + gate_offset + first + i) as usize]);
            }
        }
        values[o as usize] = value;
        squares += value * value;
    }
    let scale = 1.0f32 / f32::sqrt(cube_sum(squares, units) / f32::cast_from(n) + eps);
    #[unroll]
    for o in 0..per_unit {
        let i = UNIT_POS_X + o * units;
        if i < n {
            let w = if comptime!(shared_weight) { weight[i as usize] } else { weight[(first + i) as usize] };
            let mut value = values[o as usize] * scale * w;
            if comptime!(!gate_first) {
                value *= silu(gate[(row * gate_width + gate_offset + first + i) as usize]);
            }
            out[(row * width + first + i) as usize] = value;
        }
    }
}
