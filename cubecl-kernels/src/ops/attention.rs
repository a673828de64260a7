//! Causal attention over the key-value cache.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

/// One attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually `head_dim^-0.5`.
    pub scale: f32,
    /// Positions a row sees, its own included; `None` sees all before it.
    pub window: Option<usize>,
    /// All rows belong to one slot and lie at consecutive positions (prefill), which lets
    /// neighbouring rows share the keys and values they read.
    pub consecutive: bool,
    /// Many queries may be multiplied in bfloat16 with keys and values that are no float32: the CPU does where it
    /// multiplies tiles. A GPU goes by the caches' type alone.
    pub narrow: bool,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait AttentionOps: Backend {
    fn attention(
        q: FloatTensor<Self>,
        k_cache: FloatTensor<Self>,
        v_cache: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self>;
}

/// Softmax attention of each row over its slot's cache, from the window's start to the row's own
/// position, read from `positions` on the device. Its cost follows that length, not the capacity.
///
/// # Shapes
/// q `[m, heads head_dim]` float32, caches `[slots, kv_heads, capacity, head_dim]` or, in eight bits,
/// `[slots, kv_heads, capacity, q8_width(head_dim)]`, positions and slots `[m]` int32; returns `[m, heads head_dim]` float32.
pub fn attention(
    q: Tensor<2>,
    k_cache: Tensor<4>,
    v_cache: Tensor<4>,
    positions: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    spec: AttentionSpec,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::attention(
        q.into_dispatch(),
        k_cache.into_dispatch(),
        v_cache.into_dispatch(),
        positions.into_dispatch(),
        slots.into_dispatch(),
        spec,
    ))
}

impl AttentionOps for Flex {
    fn attention(
        q: FlexTensor,
        k_cache: FlexTensor,
        v_cache: FlexTensor,
        positions: FlexTensor,
        slots: FlexTensor,
        spec: AttentionSpec,
    ) -> FlexTensor {
        let shape = tensor::dims::<2>(&q);
        let q = tensor::contiguous(q);
        let mut out = vec![0.0; shape[0] * shape[1]];
        flex::attention::attention(
            tensor::f32s(&q),
            tensor::cache(&k_cache, spec.head_dim),
            tensor::cache(&v_cache, spec.head_dim),
            tensor::i32s(&positions),
            tensor::i32s(&slots),
            &spec,
            &mut out,
        );
        tensor::from_f32s(out, shape)
    }
}
