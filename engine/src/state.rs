//! What a model remembers between tokens, addressed by slot.
//!
//! The state lives outside the model. Every layer keeps its own kind; today all keep keys and
//! values, recurrent layers will keep theirs beside them.

use atelico_kernels::ops::{self, RopeSpec};
use burn::tensor::{DType, Device, Int, Tensor};

use crate::load::Placement;

/// One model's memory: an entry per layer.
#[derive(Debug)]
pub struct DecodeState {
    /// The layers' memories, in the order of the layers.
    pub layers: Vec<LayerState>,
}

/// What one layer remembers.
#[derive(Debug)]
pub enum LayerState {
    /// Keys and values of every position.
    Kv(KvCache),
}

impl DecodeState {
    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| match layer {
                LayerState::Kv(cache) => cache.bytes(),
            })
            .sum()
    }
}

/// Keys and values of an attention layer, `[slots, kv_heads, capacity, head_dim]` each; allocated
/// once and written in place.
#[derive(Debug)]
pub struct KvCache {
    k: Tensor<4>,
    v: Tensor<4>,
    /// Stands in while a cache is moved through an operation, so that its handle stays unique.
    placeholder: Tensor<4>,
}

impl KvCache {
    /// An empty cache for `placement`'s slots and context.
    pub fn new(kv_heads: usize, head_dim: usize, placement: &Placement) -> Self {
        let shape = [placement.state_slots(), kv_heads, placement.context, head_dim];
        let zeros = |shape: [usize; 4]| zeros(shape, &placement.device, placement.cache_dtype);
        Self { k: zeros(shape), v: zeros(shape), placeholder: zeros([1, 1, 1, 1]) }
    }

    fn bytes(&self) -> usize {
        2 * self.k.dims().iter().product::<usize>() * self.k.dtype().size()
    }

    /// Norms and rotates a merged projection and writes its keys and values; see
    /// [`ops::rope_append`]. Returns the queries, `[m, heads head_dim]`.
    #[allow(clippy::too_many_arguments)]
    pub fn append(
        &mut self,
        qkv: Tensor<2>,
        q_norm: Tensor<1>,
        k_norm: Tensor<1>,
        table: Tensor<2>,
        positions: Tensor<1, Int>,
        slots: Tensor<1, Int>,
        spec: RopeSpec,
    ) -> Tensor<2> {
        let k = std::mem::replace(&mut self.k, self.placeholder.clone());
        let v = std::mem::replace(&mut self.v, self.placeholder.clone());
        let (q, k, v) = ops::rope_append(qkv, q_norm, k_norm, table, positions, slots, k, v, spec);
        self.k = k;
        self.v = v;
        q
    }

    /// The keys, `[slots, kv_heads, capacity, head_dim]`.
    pub fn keys(&self) -> Tensor<4> {
        self.k.clone()
    }

    /// The values, `[slots, kv_heads, capacity, head_dim]`.
    pub fn values(&self) -> Tensor<4> {
        self.v.clone()
    }
}

fn zeros(shape: [usize; 4], device: &Device, dtype: DType) -> Tensor<4> {
    // One axis, then a view: more axes may be allocated with padded rows.
    Tensor::<1>::zeros([shape.iter().product::<usize>()], (device, dtype)).reshape(shape)
}
