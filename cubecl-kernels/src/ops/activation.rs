//! Gated activations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait ActivationOps: Backend {
    /// `silu(x[:, ..n]) * x[:, n..]`.
    fn silu_mul(gate_up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `max(x, 0)²`.
    fn relu_squared(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The inner part of SwiGLU: `silu(gate) * up`, gate and up lying side by side.
///
/// # Shapes
/// gate_up `[m, 2 n]` float32; returns `[m, n]`.
pub fn silu_mul(gate_up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::silu_mul(gate_up.into_dispatch()))
}

/// Squared ReLU (So et al., 2021): `max(x, 0)²`, element by element, in float32.
pub fn relu_squared(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::relu_squared(x.into_dispatch()))
}

impl ActivationOps for Flex {
    fn silu_mul(gate_up: FlexTensor) -> FlexTensor {
        let [m, width] = tensor::dims(&gate_up);
        let gate_up = tensor::contiguous(gate_up);
        let mut out = vec![0.0; m * width / 2];
        flex::activation::silu_mul(tensor::f32s(&gate_up), width / 2, &mut out);
        tensor::from_f32s(out, [m, width / 2])
    }

    fn relu_squared(x: FlexTensor) -> FlexTensor {
        let mut x = tensor::contiguous(x);
        flex::activation::relu_squared_in_place(tensor::f32s_mut(&mut x));
        x
    }
}
