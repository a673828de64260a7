//! Value embeddings, a unit an element.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty, grid, line};
use crate::ops::ValueEmbedOps;

const UNITS: u32 = 256;

impl ValueEmbedOps for CubeBackend {
    fn add_value_embeds(qkv: CubeTensor, x: CubeTensor, gate: CubeTensor, embeds: CubeTensor) -> CubeTensor {
        let (qkv, x, gate, embeds) = (contiguous(qkv), contiguous(x), contiguous(gate), contiguous(embeds));
        let [m, width] = dims(&qkv);
        let ([_, hidden], [kv_heads, channels], [_, values]) = (dims(&x), dims(&gate), dims(&embeds));
        let out = empty(&qkv, [m, width], DType::F32);
        add_value_embeds::launch(
            &out.client,
            grid((m * width).div_ceil(UNITS as usize)),
            line(UNITS),
            qkv.into_buffer_arg(),
            x.into_buffer_arg(),
            gate.into_buffer_arg(),
            embeds.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            (m * width) as u32,
            width as u32,
            values as u32,
            hidden as u32,
            (values / kv_heads) as u32,
            channels as u32,
        );
        out
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn add_value_embeds(
    qkv: &[f32],
    x: &[f32],
    gate: &[f32],
    embeds: &[f32],
    out: &mut [f32],
    total: u32,
    width: u32,
    values: u32,
    hidden: u32,
    #[comptime] head_dim: u32,
    #[comptime] channels: u32,
) {
    let i = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if i < total {
        let (row, column) = (i / width, i % width);
        let mut value = qkv[i as usize];
        if column >= width - values {
            let at = column - (width - values);
            // Every unit of a head sums the same few products: shorter than sharing them.
            let mut dot = 0.0f32;
            for c in 0..channels {
                dot += gate[(at / head_dim * channels + c) as usize] * x[(row * hidden + c) as usize];
            }
            value += 2.0f32 / (1.0f32 + f32::exp(-dot)) * embeds[(row * values + at) as usize];
        }
        out[i as usize] = value;
    }
}
