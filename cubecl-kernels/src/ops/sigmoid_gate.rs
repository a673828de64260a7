//! Outputs scaled by the sigmoid of a gate.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

/// What one column of a gate scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateScope {
    /// One element.
    Element,
    /// The whole row.
    Row,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait SigmoidGateOps: Backend {
    fn sigmoid_gate(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        offset: usize,
        scope: GateScope,
    ) -> FloatTensor<Self>;
}

/// `x * sigmoid(gate)`: the output gate of an attention layer, or that of a shared expert.
///
/// # Shapes
/// x `[m, width]`; gate `[m, any]`, of which the `width` columns (or one, as `scope` says) from
/// `offset` on count. Both float32; returns `[m, width]`.
pub fn sigmoid_gate(x: Tensor<2>, gate: Tensor<2>, offset: usize, scope: GateScope) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::sigmoid_gate(x.into_dispatch(), gate.into_dispatch(), offset, scope))
}

impl SigmoidGateOps for Flex {
    fn sigmoid_gate(x: FlexTensor, gate: FlexTensor, offset: usize, scope: GateScope) -> FlexTensor {
        let ([_, width], [_, gate_width]) = (tensor::dims(&x), tensor::dims(&gate));
        let (mut x, gate) = (tensor::contiguous(x), tensor::contiguous(gate));
        let out = tensor::f32s_mut(&mut x);
        flex::activation::sigmoid_gate_in_place(out, width, tensor::f32s(&gate), gate_width, offset, scope);
        x
    }
}
