//! Token by token, on any device: a part of a head's state in the registers of each cube while the tokens
//! pass.
//!
//! Four units share an element of the head, each a quarter of its state. What a few tokens need is
//! staged in shared memory; the loads of the next few are in flight meanwhile. A decode step is the
//! same kernel over runs of one token.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Inputs, softplus};
use crate::cube::dependent::{begin_next, wait_for_launches};
use crate::cube::{dims, line};
use crate::ops::MambaSpec;

/// Elements of a head that a cube holds.
const ROWS: u32 = 16;
/// Units that share an element's state.
const SHARE: u32 = 4;
/// Units of a cube.
const UNITS: u32 = ROWS * SHARE;
/// Elements of B that a cube stages.
const STAGED: usize = 1024;
/// Most tokens of a stage.
const TOKENS: usize = 8;

/// The tokens of each slot one after the other.
pub(super) fn launch(inputs: Inputs, state: &CubeTensor, y: &CubeTensor, spec: MambaSpec) {
    let Inputs { xbc, dt, heads, positions, slots } = inputs;
    let ([m, _], [_, dt_width]) = (dims(&xbc), dims(&dt));
    let (runs, tokens) = if spec.consecutive { (1, m) } else { (m, 1) };
    let tile = (STAGED / spec.state_size).clamp(1, TOKENS).min(tokens.next_power_of_two());
    // Vectors of B begin behind those of x.
    let vector = if spec.state_size % 4 == 0 && spec.inner_size() % 4 == 0 { 4 } else { 1 };
    mamba_scan::launch(
        &y.client,
        CubeCount::Static((spec.heads * spec.head_dim.div_ceil(ROWS as usize)) as u32, runs as u32, 1),
        line(UNITS),
        vector,
        xbc.clone().into_buffer_arg(),
        xbc.into_buffer_arg(),
        dt.into_buffer_arg(),
        heads.into_buffer_arg(),
        positions.into_buffer_arg(),
        slots.into_buffer_arg(),
        state.clone().into_buffer_arg(),
        y.clone().into_buffer_arg(),
        tokens as u32,
        dt_width as u32,
        spec.dt_offset as u32,
        spec.heads as u32,
        spec.head_dim as u32,
        spec.groups as u32,
        spec.state_size as u32,
        tile as u32,
        vector as u32,
    );
}

/// `x` holds the same buffer as `bc`, element by element.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn mamba_scan<N: Size>(
    x: &[f32],
    bc: &[Vector<f32, N>],
    dt: &[f32],
    parameters: &[f32],
    positions: &[i32],
    slots: &[i32],
    state: &mut [Vector<f32, N>],
    y: &mut [f32],
    tokens: u32,
    dt_width: u32,
    dt_offset: u32,
    #[comptime] heads: u32,
    #[comptime] head_dim: u32,
    #[comptime] groups: u32,
    #[comptime] state_size: u32,
    #[comptime] tile: u32,
    #[comptime] n: u32,
) {
    let conv_dim = comptime!(heads * head_dim + 2 * groups * state_size);
    // Vectors of a state, of a unit's share of it, and of a stage's B or C.
    let vectors = comptime!(state_size / n);
    let per_unit = comptime!(vectors.div_ceil(SHARE));
    let staged = comptime!(tile * vectors);
    let mut b_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(staged as usize));
    let mut c_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(staged as usize));
    let mut x_tile = Shared::<[f32]>::new_slice(comptime!((tile * ROWS) as usize));
    let mut step_tile = Shared::<[f32]>::new_slice(comptime!(tile as usize));
    let mut decay_tile = Shared::<[f32]>::new_slice(comptime!(tile as usize));
    let mut parts = Shared::<[f32]>::new_slice(comptime!((tile * UNITS) as usize));

    begin_next();
    let unit = UNIT_POS_X;
    let parts_of_head = comptime!(head_dim.div_ceil(ROWS));
    let head = CUBE_POS_X / parts_of_head;
    let row0 = CUBE_POS_X % parts_of_head * ROWS;
    let row = row0 + unit / SHARE;
    let quarter = unit % SHARE;
    let first = CUBE_POS_Y * tokens;
    let a = parameters[head as usize];
    let d = parameters[(heads + head) as usize];
    let dt_bias = parameters[(2 * heads + head) as usize];
    let b_at = comptime!(heads * head_dim / n) + head * groups / heads * vectors;
    let c_at = b_at + comptime!(groups * vectors);

    // The old state; zeros where the sequence begins.
    let slot = u32::cast_from(slots[first as usize]);
    let state_at = ((slot * heads + head) * head_dim + row) * vectors;
    let known = row < head_dim && positions[first as usize] != 0;
    let mut h = Array::<f32>::new(comptime!((per_unit * n) as usize));
    #[unroll]
    for k in 0..per_unit {
        let v = quarter + k * SHARE;
        #[unroll]
        for j in 0..n {
            h[(k * n + j) as usize] = 0.0f32;
        }
        if known && v < vectors {
            let value = state[(state_at + v) as usize];
            #[unroll]
            for j in 0..n {
                h[(k * n + j) as usize] = value.extract(comptime!(j as usize));
            }
        }
    }

    wait_for_launches();
    // The stage's loads, in registers until the stage before is done.
    let bc_loads = comptime!(staged.div_ceil(UNITS));
    let x_loads = comptime!((tile * ROWS).div_ceil(UNITS));
    let mut b_next = Array::<Vector<f32, N>>::new(comptime!(bc_loads as usize));
    let mut c_next = Array::<Vector<f32, N>>::new(comptime!(bc_loads as usize));
    let mut x_next = Array::<f32>::new(comptime!(x_loads as usize));
    let mut dt_next = 0.0f32;
    let last = first + tokens - 1;

    let mut start = 0u32;
    // One turn more than there are stages: the first only loads.
    let stages = tokens.div_ceil(tile) + 1;
    for stage in 0..stages {
        if stage > 0 {
            #[unroll]
            for k in 0..bc_loads {
                let i = unit + k * UNITS;
                if i < staged {
                    b_tile[i as usize] = b_next[k as usize];
                    c_tile[i as usize] = c_next[k as usize];
                }
            }
            #[unroll]
            for k in 0..x_loads {
                let i = unit + k * UNITS;
                if i < comptime!(tile * ROWS) {
                    x_tile[i as usize] = x_next[k as usize];
                }
            }
            if unit < tile {
                let step = softplus(dt_next + dt_bias);
                step_tile[unit as usize] = step;
                decay_tile[unit as usize] = f32::exp(a * step);
            }
        }
        sync_cube();
        if stage + 1 < stages {
            // Tokens past the end are those of the last again; nothing is done with them.
            #[unroll]
            for k in 0..bc_loads {
                let i = min(unit + k * UNITS, comptime!(staged - 1));
                let token = min(first + stage * tile + i / vectors, last);
                let at = token * comptime!(conv_dim / n) + i % vectors;
                b_next[k as usize] = bc[(at + b_at) as usize];
                c_next[k as usize] = bc[(at + c_at) as usize];
            }
            #[unroll]
            for k in 0..x_loads {
                let i = unit + k * UNITS;
                let token = min(first + stage * tile + i / ROWS, last);
                let column = min(row0 + i % ROWS, comptime!(head_dim - 1));
                x_next[k as usize] = x[(token * conv_dim + head * head_dim + column) as usize];
            }
            let token = min(first + stage * tile + unit, last);
            dt_next = dt[(token * dt_width + dt_offset + head) as usize];
        }
        if stage > 0 {
            let count = min(tokens - start, tile.runtime());
            for token in 0..count {
                let decay = decay_tile[token as usize];
                let input = step_tile[token as usize] * x_tile[(token * ROWS + unit / SHARE) as usize];
                let mut sum = 0.0f32;
                #[unroll]
                for k in 0..per_unit {
                    let v = quarter + k * SHARE;
                    if comptime!(vectors % SHARE == 0) || v < vectors {
                        let b = b_tile[(token * vectors + v) as usize];
                        let c = c_tile[(token * vectors + v) as usize];
                        #[unroll]
                        for j in 0..n {
                            let next = h[(k * n + j) as usize] * decay + input * b.extract(comptime!(j as usize));
                            h[(k * n + j) as usize] = next;
                            sum += next * c.extract(comptime!(j as usize));
                        }
                    }
                }
                parts[(token * UNITS + unit) as usize] = sum;
            }
            sync_cube();
            #[unroll]
            for k in 0..x_loads {
                let i = unit + k * UNITS;
                let token = i / ROWS;
                let column = row0 + i % ROWS;
                if token < count && column < head_dim {
                    let mut sum = d * x_tile[i as usize];
                    #[unroll]
                    for j in 0..SHARE {
                        sum += parts[(i * SHARE + j) as usize];
                    }
                    let at = (first + start + token) * comptime!(heads * head_dim) + head * head_dim + column;
                    y[at as usize] = sum;
                }
            }
            sync_cube();
            start += tile;
        }
    }

    if row < head_dim {
        #[unroll]
        for k in 0..per_unit {
            let v = quarter + k * SHARE;
            if v < vectors {
                let mut value = Vector::<f32, N>::empty();
                #[unroll]
                for j in 0..n {
                    value.insert(comptime!(j as usize), h[(k * n + j) as usize]);
                }
                state[(state_at + v) as usize] = value;
            }
        }
    }
}
