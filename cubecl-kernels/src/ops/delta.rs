//! The gated delta rule: the recurrence of Gated DeltaNet layers (Yang et al., 2024).

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{FloatDType, Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use super::linear::Precision;
use crate::flex::{self, tensor};

/// Shape of a Gated DeltaNet layer, and where its gates lie in a wider projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeltaSpec {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values and of the state, a multiple of `key_heads`.
    pub value_heads: usize,
    /// Elements of a query or key head: a multiple of 4 up to 256.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Value head `h` has key head `h % key_heads` (GGUF) instead of
    /// `h / (value_heads / key_heads)` (Hugging Face).
    pub tiled: bool,
    /// Column of the gates where the inputs of the decay begin, one for each value head.
    pub a_offset: usize,
    /// Column of the gates where the inputs of the writing strength begin, one for each value head.
    pub b_offset: usize,
    /// All rows are of one slot, at consecutive positions.
    pub consecutive: bool,
}

impl DeltaSpec {
    /// Columns of the merged queries, keys and values.
    pub fn width(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }
}

/// Under the square root of the norm of queries and keys; fixed by the architecture.
pub(crate) const L2_EPS: f32 = 1e-6;

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait DeltaOps: Backend {
    #[allow(clippy::too_many_arguments)]
    fn delta_rule(
        qkv: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        a: FloatTensor<Self>,
        dt_bias: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        state: FloatTensor<Self>,
        spec: DeltaSpec,
        dtype: FloatDType,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// The gated delta rule over each row's slot. For every value head, with queries and keys of
/// length 1 (queries also times `key_dim^-0.5`):
///
/// ```text
/// decay = exp(a softplus(gates[a_offset + h] + dt_bias)), beta = sigmoid(gates[b_offset + h])
/// S = decay S;  S = S + k (beta (v - Sᵀ k))ᵀ;  out = Sᵀ q
/// ```
///
/// A row at position 0 begins with `S = 0`; the state is written in place. The rows run one after the other in
/// float32, so that the result does not depend on how a prompt is cut. On a GPU whose tensor cores multiply the
/// type that `precision` names for many rows, many neighbouring rows run in chunks instead, in that type with
/// float32 sums and state.
///
/// # Shapes
/// qkv `[m, 2 key_heads key_dim + value_heads value_dim]`, gates `[m, any]`, a (negative) and dt_bias
/// `[value_heads]`, positions and slots `[m]` int32, state `[slots, value_heads, key_dim, value_dim]`.
/// Returns `[m, value_heads value_dim]` and the state. All but the indices are float32.
///
/// Reference: `torch_recurrent_gated_delta_rule` of transformers; in chunks, Yang et al., 2024, section 3.3.
#[allow(clippy::too_many_arguments)]
pub fn delta_rule(
    qkv: Tensor<2>,
    gates: Tensor<2>,
    a: Tensor<1>,
    dt_bias: Tensor<1>,
    positions: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    state: Tensor<4>,
    spec: DeltaSpec,
    precision: Precision,
) -> (Tensor<2>, Tensor<4>) {
    debug_assert!(spec.key_dim.is_multiple_of(4) && spec.key_dim <= 256);
    debug_assert!(spec.value_heads.is_multiple_of(spec.key_heads));
    let (out, state) = Dispatch::delta_rule(
        qkv.into_dispatch(),
        gates.into_dispatch(),
        a.into_dispatch(),
        dt_bias.into_dispatch(),
        positions.into_dispatch(),
        slots.into_dispatch(),
        state.into_dispatch(),
        spec,
        precision.of_many_rows(),
    );
    (Tensor::from_dispatch(out), Tensor::from_dispatch(state))
}

impl DeltaOps for Flex {
    fn delta_rule(
        qkv: FlexTensor,
        gates: FlexTensor,
        a: FlexTensor,
        dt_bias: FlexTensor,
        positions: FlexTensor,
        slots: FlexTensor,
        mut state: FlexTensor,
        spec: DeltaSpec,
        _dtype: FloatDType,
    ) -> (FlexTensor, FlexTensor) {
        let [m, gate_width] = tensor::dims(&gates);
        let (qkv, gates) = (tensor::contiguous(qkv), tensor::contiguous(gates));
        let width = spec.value_heads * spec.value_dim;
        let mut out = vec![0.0; m * width];
        let inputs = flex::delta::Inputs {
            qkv: tensor::f32s(&qkv),
            gates: tensor::f32s(&gates),
            gate_width,
            a: tensor::f32s(&a),
            dt_bias: tensor::f32s(&dt_bias),
            positions: tensor::i32s(&positions),
            slots: tensor::i32s(&slots),
            spec: &spec,
        };
        flex::delta::delta_rule(&inputs, tensor::f32s_mut(&mut state), &mut out);
        (tensor::from_f32s(out, [m, width]), state)
    }
}
