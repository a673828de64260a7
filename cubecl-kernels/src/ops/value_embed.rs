//! Value embeddings: what a token itself adds to the values of an attention layer.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait ValueEmbedOps: Backend {
    fn add_value_embeds(
        qkv: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        embeds: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Adds gated embeddings to the values at the end of a merged projection:
/// `v[h] += 2 sigmoid(gate[h] · x[..channels]) * embed[h]` for every key-value head `h`.
///
/// # Shapes
/// qkv `[m, width]`, x `[m, hidden]` (the input of the projection), gate `[kv_heads, channels]`,
/// embeds `[m, kv_heads head_dim]`, all float32; returns `[m, width]`.
pub fn add_value_embeds(qkv: Tensor<2>, x: Tensor<2>, gate: Tensor<2>, embeds: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::add_value_embeds(
        qkv.into_dispatch(),
        x.into_dispatch(),
        gate.into_dispatch(),
        embeds.into_dispatch(),
    ))
}

impl ValueEmbedOps for Flex {
    fn add_value_embeds(qkv: FlexTensor, x: FlexTensor, gate: FlexTensor, embeds: FlexTensor) -> FlexTensor {
        let [m, width] = tensor::dims(&qkv);
        let [kv_heads, _] = tensor::dims(&gate);
        let (x, gate, embeds) = (tensor::contiguous(x), tensor::contiguous(gate), tensor::contiguous(embeds));
        let mut qkv = tensor::contiguous(qkv);
        if m > 0 && kv_heads > 0 {
            let (x, gate, embeds) = (tensor::f32s(&x), tensor::f32s(&gate), tensor::f32s(&embeds));
            flex::value_embed::add_value_embeds(tensor::f32s_mut(&mut qkv), width, x, gate, kv_heads, embeds);
        }
        qkv
    }
}
