//! What a model remembers between tokens, addressed by slot.
//!
//! The state lives outside the model. Every layer keeps its own kind: keys and values, or the
//! windows and matrices of a recurrent layer. A row at position 0 begins its slot anew, whatever
//! the slot held before.

use atelico_kernels::ops::{self, AttentionSpec, RopeSpec};
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
#[allow(clippy::large_enum_variant, reason = "there is one of these a layer")]
pub enum LayerState {
    /// Keys and values of every position.
    Kv(KvCache),
    /// The convolution window and recurrent matrix of a DeltaNet or Mamba2 layer.
    Recurrent(RecurrentState),
    /// Nothing: a layer that is feed-forward only.
    Stateless,
}

impl LayerState {
    /// The cache of an attention layer.
    ///
    /// # Panics
    /// In a layer of another kind: a model made the state that it reads.
    pub fn kv(&mut self) -> &mut KvCache {
        match self {
            Self::Kv(cache) => cache,
            Self::Recurrent(_) | Self::Stateless => unreachable!("an attention layer was given another layer's state"),
        }
    }

    /// The state of a recurrent layer.
    ///
    /// # Panics
    /// In a layer of another kind: a model made the state that it reads.
    pub fn recurrent(&mut self) -> &mut RecurrentState {
        match self {
            Self::Recurrent(state) => state,
            Self::Kv(_) | Self::Stateless => unreachable!("a recurrent layer was given another layer's state"),
        }
    }
}

impl DecodeState {
    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| match layer {
                LayerState::Kv(cache) => cache.bytes(),
                LayerState::Recurrent(state) => state.bytes(),
                LayerState::Stateless => 0,
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

    /// Norms and rotates a merged projection, writes its keys and values and attends; see
    /// [`ops::rope_attention`]. Returns `[m, heads head_dim]`.
    #[allow(clippy::too_many_arguments)]
    pub fn attend(
        &mut self,
        qkv: Tensor<2>,
        q_norm: Tensor<1>,
        k_norm: Tensor<1>,
        table: Tensor<2>,
        positions: Tensor<1, Int>,
        slots: Tensor<1, Int>,
        rope: RopeSpec,
        attention: AttentionSpec,
    ) -> Tensor<2> {
        let k = std::mem::replace(&mut self.k, self.placeholder.clone());
        let v = std::mem::replace(&mut self.v, self.placeholder.clone());
        let (out, k, v) = ops::rope_attention(qkv, q_norm, k_norm, table, positions, slots, k, v, rope, attention);
        self.k = k;
        self.v = v;
        out
    }
}

/// What a recurrent layer carries from token to token; allocated once and written in place.
#[derive(Debug)]
pub struct RecurrentState {
    /// Last inputs of the causal convolution, `[slots, channels, kernel - 1]` float32.
    conv: Tensor<3>,
    /// `[slots, heads, a, b]` float32, the layer's matrix for each head.
    matrix: Tensor<4>,
    conv_placeholder: Tensor<3>,
    matrix_placeholder: Tensor<4>,
}

impl RecurrentState {
    /// A state for `placement`'s slots: windows of `conv` (`[channels, kernel - 1]`) and matrices of
    /// `matrix` (`[heads, a, b]`).
    pub fn new(conv: [usize; 2], matrix: [usize; 3], placement: &Placement) -> Self {
        let slots = placement.state_slots();
        let device = &placement.device;
        let conv = zeros([slots, conv[0], conv[1]], device, DType::F32);
        let matrix = zeros([slots, matrix[0], matrix[1], matrix[2]], device, DType::F32);
        Self {
            conv,
            matrix,
            conv_placeholder: zeros([1, 1, 1], device, DType::F32),
            matrix_placeholder: zeros([1, 1, 1, 1], device, DType::F32),
        }
    }

    fn bytes(&self) -> usize {
        size_of::<f32>() * (self.conv.dims().iter().product::<usize>() + self.matrix.dims().iter().product::<usize>())
    }

    /// Moves the window through an operation that writes it in place and returns it beside its result.
    pub fn update_conv<R>(&mut self, operation: impl FnOnce(Tensor<3>) -> (R, Tensor<3>)) -> R {
        let (result, conv) = operation(std::mem::replace(&mut self.conv, self.conv_placeholder.clone()));
        self.conv = conv;
        result
    }

    /// Moves the matrices through an operation that writes them in place and returns them beside its
    /// result.
    pub fn update_matrix<R>(&mut self, operation: impl FnOnce(Tensor<4>) -> (R, Tensor<4>)) -> R {
        let (result, matrix) = operation(std::mem::replace(&mut self.matrix, self.matrix_placeholder.clone()));
        self.matrix = matrix;
        result
    }
}

fn zeros<const D: usize>(shape: [usize; D], device: &Device, dtype: DType) -> Tensor<D> {
    // One axis, then a view: more axes may be allocated with padded rows.
    Tensor::<1>::zeros([shape.iter().product::<usize>()], (device, dtype)).reshape(shape)
}
