//! What a model remembers between tokens, addressed by slot.
//!
//! The state lives outside the model. Every layer keeps its own kind: keys and values, or the
//! windows and matrices of a recurrent layer. A row at position 0 begins its slot anew, whatever
//! the slot held before.

use atelico_kernels::ops::{self, AttentionSpec, RopeSpec};
use burn::tensor::{DType, Device, Int, Tensor};

use crate::arithmetic::CacheType;
use crate::load::Placement;
use crate::{Error, Result};

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
    /// Whether later positions of a slot can be given up and earlier ones kept: keys and values can, a
    /// recurrent state has all of them mixed.
    pub fn truncates(&self) -> bool {
        !self.layers.iter().any(|layer| matches!(layer, LayerState::Recurrent(_)))
    }

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

/// Keys and values of an attention layer, `[slots, kv_heads, capacity, head_dim]` each, or as
/// [`ops::q8_width`] says in eight bits; allocated once and written in place.
#[derive(Debug)]
pub struct KvCache {
    k: Tensor<4>,
    v: Tensor<4>,
    /// Stands in while a cache is moved through an operation, so that its handle stays unique.
    placeholder: Tensor<4>,
    /// What [`ops::rope_attention`] counts in, once the number of query heads is known.
    arrivals: Option<Tensor<1, Int>>,
}

impl KvCache {
    /// An empty cache for `placement`'s slots and context.
    ///
    /// # Errors
    /// [`Error::Parameter`] when the heads don't divide into the blocks of an eight-bit cache, or the
    /// cache would hold more than a GPU's kernels can address.
    pub fn new(kv_heads: usize, head_dim: usize, placement: &Placement) -> Result<Self> {
        let Placement { device, cache, context, .. } = placement;
        let width = match cache {
            CacheType::Q8 => ops::q8_width(head_dim).ok_or_else(|| {
                let problem =
                    format!("is {cache}, which needs heads of a multiple of 32 elements; these have {head_dim}");
                Error::Parameter { name: "kv_cache", problem }
            })?,
            CacheType::F32 | CacheType::F16 | CacheType::BF16 => head_dim,
        };
        let slots = placement.state_slots();
        let elements = [slots, kv_heads, *context, width].into_iter().try_fold(1usize, usize::checked_mul);
        if !ops::is_cpu(device) && elements.is_none_or(|elements| u32::try_from(elements).is_err()) {
            let problem = format!(
                "of {context} tokens in {slots} slots makes caches of {kv_heads} heads of {width} elements; \
                 a GPU's kernels address {} elements",
                u32::MAX
            );
            return Err(Error::Parameter { name: "context", problem });
        }
        let zeros = |shape: [usize; 4]| zeros(shape, device, cache.dtype());
        let shape = [slots, kv_heads, *context, width];
        Ok(Self { k: zeros(shape), v: zeros(shape), placeholder: zeros([1, 1, 1, 1]), arrivals: None })
    }

    fn bytes(&self) -> usize {
        2 * self.k.dims().iter().product::<usize>() * self.k.dtype().size()
    }

    /// Norms and rotates a merged projection, writes its keys and values and attends; see
    /// [`ops::rope_attention`], also for the `gate`. Returns `[m, heads head_dim]`.
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
        gate: Option<usize>,
    ) -> Tensor<2> {
        // Batches are filled up to a power of two.
        let most_rows = self.k.dims()[0].next_power_of_two();
        let counters = || ops::int_zeros([most_rows * attention.heads], &qkv.device());
        let arrivals = self.arrivals.get_or_insert_with(counters).clone();
        let k = std::mem::replace(&mut self.k, self.placeholder.clone());
        let v = std::mem::replace(&mut self.v, self.placeholder.clone());
        let (out, k, v) =
            ops::rope_attention(qkv, q_norm, k_norm, table, positions, slots, k, v, arrivals, rope, attention, gate);
        self.k = k;
        self.v = v;
        out
    }
}

/// What a recurrent layer carries from token to token; allocated once and written in place.
#[derive(Debug)]
pub struct RecurrentState {
    /// Last inputs of the causal convolution, `[slots, kernel - 1, channels]` float32.
    conv: Tensor<3>,
    /// `[slots, heads, a, b]` float32, the layer's matrix for each head.
    matrix: Tensor<4>,
    conv_placeholder: Tensor<3>,
    matrix_placeholder: Tensor<4>,
}

impl RecurrentState {
    /// A state for `placement`'s slots: windows of `conv` (`[kernel - 1, channels]`) and matrices of
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
