//! Head norms, rotary embedding and the cache write, in one operation.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

/// Which elements of a head a rotary embedding turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePairing {
    /// `(i, i + d/2)`, as checkpoints of Hugging Face.
    Half,
    /// `(2i, 2i + 1)`, as GGUF files of the architecture `llama`.
    Interleaved,
    /// No rotation in this layer.
    None,
}

/// Where the keys and values of a layer come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum KvSource {
    /// Both from the projection, the values as they are.
    #[default]
    Projected,
    /// Both from the projection, the values normed without a weight (Gemma 4).
    NormedValues,
    /// The projection holds queries and keys; the values are the raw keys, normed without a weight.
    KeysAsValues,
    /// The projection holds queries alone; keys and values are those that another layer wrote.
    Shared,
}

impl KvSource {
    /// How often the projection holds `kv_heads` heads beside the queries.
    pub(crate) fn parts(self) -> usize {
        match self {
            Self::Projected | Self::NormedValues => 2,
            Self::KeysAsValues => 1,
            Self::Shared => 0,
        }
    }

    /// Whether values are normed.
    pub(crate) fn norms_values(self) -> bool {
        matches!(self, Self::NormedValues | Self::KeysAsValues)
    }
}

/// Shape of one attention layer's merged projection and how its heads are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RopeSpec {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Pairing of the rotation.
    pub pairing: RopePairing,
    /// Epsilon of the head norms as float bits; `None` leaves the heads unnormalized.
    pub qk_norm_eps_bits: Option<u32>,
    /// Source of the keys and values.
    pub kv: KvSource,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait RopeOps: Backend {
    #[allow(clippy::too_many_arguments)]
    fn rope_append(
        qkv: FloatTensor<Self>,
        q_norm: FloatTensor<Self>,
        k_norm: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        k_cache: FloatTensor<Self>,
        v_cache: FloatTensor<Self>,
        spec: RopeSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Splits a merged projection, norms and rotates the query and key heads, and writes keys and
/// values into the caches at their rows' slots and positions. The caches are written in place.
///
/// # Shapes
/// qkv `[m, at least (heads + 2 kv_heads) head_dim]` (or fewer, as [`KvSource`] says; what follows is
/// not read), norms `[head_dim]` (any tensor when off), table `[capacity, rotary]` (cosines of
/// `rotary / 2` frequencies, then sines; the elements of a head from `rotary` on stay as they are),
/// positions and slots `[m]` int32, caches as in [`attention`](super::attention()). Returns the queries
/// `[m, heads head_dim]` float32 and the two caches.
#[allow(clippy::too_many_arguments)]
pub fn rope_append(
    qkv: Tensor<2>,
    q_norm: Tensor<1>,
    k_norm: Tensor<1>,
    table: Tensor<2>,
    positions: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    k_cache: Tensor<4>,
    v_cache: Tensor<4>,
    spec: RopeSpec,
) -> (Tensor<2>, Tensor<4>, Tensor<4>) {
    let (q, k, v) = Dispatch::rope_append(
        qkv.into_dispatch(),
        q_norm.into_dispatch(),
        k_norm.into_dispatch(),
        table.into_dispatch(),
        positions.into_dispatch(),
        slots.into_dispatch(),
        k_cache.into_dispatch(),
        v_cache.into_dispatch(),
        spec,
    );
    (Tensor::from_dispatch(q), Tensor::from_dispatch(k), Tensor::from_dispatch(v))
}

impl RopeOps for Flex {
    fn rope_append(
        qkv: FlexTensor,
        q_norm: FlexTensor,
        k_norm: FlexTensor,
        table: FlexTensor,
        positions: FlexTensor,
        slots: FlexTensor,
        mut k_cache: FlexTensor,
        mut v_cache: FlexTensor,
        spec: RopeSpec,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [m, width] = tensor::dims(&qkv);
        let [_, rotary] = tensor::dims(&table);
        let qkv = tensor::contiguous(qkv);
        let mut q = vec![0.0; m * spec.heads * spec.head_dim];
        flex::rope::rope_append(
            tensor::f32s(&qkv),
            width,
            tensor::f32s(&q_norm),
            tensor::f32s(&k_norm),
            tensor::f32s(&table),
            rotary,
            tensor::i32s(&positions),
            tensor::i32s(&slots),
            tensor::cache_mut(&mut k_cache),
            tensor::cache_mut(&mut v_cache),
            &spec,
            &mut q,
        );
        (tensor::from_f32s(q, [m, spec.heads * spec.head_dim]), k_cache, v_cache)
    }
}
