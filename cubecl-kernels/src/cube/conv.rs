//! Causal convolution over time, a unit a channel.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dependent::{begin_next, wait_for_launches};
use super::{contiguous, dims, empty, line};
use crate::ops::{ConvOps, ConvSpec, MAX_TAPS};

const UNITS: u32 = 64;
/// Rows of a chunk that a unit computes; no fewer than a window, so that only the first units read
/// the state.
const ROWS: usize = 16;
const _: () = assert!(ROWS >= MAX_TAPS - 1);

impl ConvOps for CubeBackend {
    fn causal_conv(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        window: CubeTensor,
        spec: ConvSpec,
        has_bias: bool,
    ) -> (CubeTensor, CubeTensor) {
        let x = contiguous(x);
        let [m, width] = dims(&x);
        let out = empty(&x, [m, spec.channels], DType::F32);
        let rows = if spec.consecutive { ROWS } else { 1 };
        causal_conv::launch(
            &out.client,
            CubeCount::Static((spec.channels as u32).div_ceil(UNITS), m.div_ceil(rows) as u32, 1),
            line(UNITS),
            x.into_buffer_arg(),
            contiguous(weight).into_buffer_arg(),
            contiguous(bias).into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            window.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            m as u32,
            width as u32,
            spec.offset as u32,
            spec.channels as u32,
            spec.taps as u32,
            rows as u32,
            spec.consecutive,
            has_bias,
        );
        (out, window)
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn causal_conv(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    positions: &[i32],
    slots: &[i32],
    window: &mut [f32],
    out: &mut [f32],
    m: u32,
    width: u32,
    offset: u32,
    channels: u32,
    #[comptime] taps: u32,
    #[comptime] rows: u32,
    #[comptime] consecutive: bool,
    #[comptime] has_bias: bool,
) {
    begin_next();
    wait_for_launches();
    let before = comptime!(taps - 1);
    let channel = CUBE_POS_X * UNITS + UNIT_POS_X;
    let first = CUBE_POS_Y * rows;
    if channel < channels {
        let mut weights = Array::<f32>::new(comptime!(taps as usize));
        // The inputs that the present row's taps weigh, oldest first.
        let mut inputs = Array::<f32>::new(comptime!(taps as usize));
        #[unroll]
        for tap in 0..taps {
            weights[tap as usize] = weight[(tap * channels + channel) as usize];
        }
        let state = u32::cast_from(slots[first as usize]) * channels * before + channel;
        let anew = positions[first as usize] == 0;
        let holds_state = if comptime!(consecutive) { first == 0 } else { true.runtime() };
        #[unroll]
        for tap in 0..before {
            let mut value = 0.0f32;
            if holds_state {
                if !anew {
                    value = window[(state + tap * channels) as usize];
                }
            } else {
                value = x[((first + tap - before) * width + offset + channel) as usize];
            }
            inputs[comptime!(tap + 1) as usize] = value;
        }
        let start = if comptime!(has_bias) { bias[channel as usize] } else { 0.0f32.runtime() };
        let end = select(first + rows < m, first + rows, m);
        for row in first..end {
            #[unroll]
            for tap in 0..before {
                inputs[tap as usize] = inputs[comptime!(tap + 1) as usize];
            }
            inputs[before as usize] = x[(row * width + offset + channel) as usize];
            let mut sum = start;
            #[unroll]
            for tap in 0..taps {
                sum += weights[tap as usize] * inputs[tap as usize];
            }
            out[(row * channels + channel) as usize] = sum / (1.0f32 + f32::exp(-sum));
        }
        if holds_state {
            // Inputs of the run so far: `count`, the last `before` of which stay.
            let count = if comptime!(consecutive) { m } else { 1u32.runtime() };
            // In ascending order an entry is read before it is written over.
            #[unroll]
            for tap in 0..before {
                let mut value = 0.0f32;
                if count + tap >= before {
                    value = x[((first + count + tap - before) * width + offset + channel) as usize];
                } else if !anew {
                    value = window[(state + (count + tap) * channels) as usize];
                }
                window[(state + tap * channels) as usize] = value;
            }
        }
    }
}
