//! Activations of feed-forward layers.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

/// The nonlinearity of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Gate {
    /// `x σ(x)`.
    Silu,
    /// The tanh form of GELU.
    GeluTanh,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait ActivationOps: Backend {
    /// `gate(x[:, ..n]) * x[:, n..]`.
    fn gated(gate_up: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self>;

    /// `gate(x) * table[:, offset..offset + n]`.
    fn gated_table(x: FloatTensor<Self>, table: FloatTensor<Self>, offset: usize, gate: Gate) -> FloatTensor<Self>;

    /// `max(x, 0)²`.
    fn relu2(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The inner part of SwiGLU: `silu(gate) * up`, gate and up lying side by side.
///
/// # Shapes
/// gate_up `[m, 2 n]` float32; returns `[m, n]`.
pub fn silu_mul(gate_up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::gated(gate_up.into_dispatch(), Gate::Silu))
}

/// The inner part of GeGLU: `gelu(gate) * up` with the tanh form of GELU, gate and up lying side by
/// side.
///
/// # Shapes
/// gate_up `[m, 2 n]` float32; returns `[m, n]`.
pub fn gelu_mul(gate_up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::gated(gate_up.into_dispatch(), Gate::GeluTanh))
}

/// `gelu(x) * table[:, offset..offset + n]` with the tanh form of GELU.
///
/// # Shapes
/// x `[m, n]`, table `[m, width]`, both float32; returns `[m, n]`.
pub fn gelu_mul_table(x: Tensor<2>, table: Tensor<2>, offset: usize) -> Tensor<2> {
    let product = Dispatch::gated_table(x.into_dispatch(), table.into_dispatch(), offset, Gate::GeluTanh);
    Tensor::from_dispatch(product)
}

/// `max(x, 0)²` (So et al., 2021).
///
/// # Shapes
/// x `[m, n]` float32; returns `[m, n]`.
pub fn relu2(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::relu2(x.into_dispatch()))
}

impl ActivationOps for Flex {
    fn gated(gate_up: FlexTensor, gate: Gate) -> FlexTensor {
        let [m, width] = tensor::dims(&gate_up);
        let gate_up = tensor::contiguous(gate_up);
        let (n, values) = (width / 2, tensor::f32s(&gate_up));
        let mut out = vec![0.0; m * n];
        flex::activation::gated(gate, (values, width, 0), (values, width, n), n, &mut out);
        tensor::from_f32s(out, [m, n])
    }

    fn gated_table(x: FlexTensor, table: FlexTensor, offset: usize, gate: Gate) -> FlexTensor {
        let ([m, n], [_, width]) = (tensor::dims(&x), tensor::dims(&table));
        let (x, table) = (tensor::contiguous(x), tensor::contiguous(table));
        let mut out = vec![0.0; m * n];
        let (x, table) = (tensor::f32s(&x), tensor::f32s(&table));
        flex::activation::gated(gate, (x, n, 0), (table, width, offset), n, &mut out);
        tensor::from_f32s(out, [m, n])
    }

    fn relu2(x: FlexTensor) -> FlexTensor {
        let mut x = tensor::contiguous(x);
        flex::activation::relu2(tensor::f32s_mut(&mut x));
        x
    }
}
