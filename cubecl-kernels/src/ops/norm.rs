//! RMS normalization.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{FloatDType, Tensor};
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait NormOps: Backend {
    /// `x * rsqrt(mean(x²) + eps) * weight` over the last axis, in `dtype`: float32 on the CPU.
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32, dtype: FloatDType) -> FloatTensor<Self>;

    /// `sum = x + residual`, and its norm.
    fn add_rms_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `(residual + rms_norm(x)) * scale`.
    fn rms_norm_add(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
        scale: f32,
    ) -> FloatTensor<Self>;
}

/// Root-mean-square norm (Zhang and Sennrich, 2019): `x * rsqrt(mean(x²) + eps) * weight`.
///
/// # Shapes
/// x `[m, hidden]`, weight `[hidden]`, both float32; returns `[m, hidden]`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f32) -> Tensor<2> {
    rms_norm_as(x, weight, eps, FloatDType::F32)
}

/// [`rms_norm`] in the type that a product takes.
pub(crate) fn rms_norm_as(x: Tensor<2>, weight: Tensor<1>, eps: f32, dtype: FloatDType) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps, dtype))
}

/// `sum = x + residual` and `rms_norm(sum)`, in one pass.
///
/// # Shapes
/// x and residual `[m, hidden]`; returns `(sum, norm)`, each `[m, hidden]`.
pub fn add_rms_norm(x: Tensor<2>, residual: Tensor<2>, weight: Tensor<1>, eps: f32) -> (Tensor<2>, Tensor<2>) {
    let (sum, norm) = Dispatch::add_rms_norm(x.into_dispatch(), residual.into_dispatch(), weight.into_dispatch(), eps);
    (Tensor::from_dispatch(sum), Tensor::from_dispatch(norm))
}

/// `(residual + rms_norm(x)) * scale`, in one pass: a block's output normed before it is added.
///
/// # Shapes
/// x and residual `[m, hidden]`; returns `[m, hidden]`.
pub fn rms_norm_add(x: Tensor<2>, residual: Tensor<2>, weight: Tensor<1>, eps: f32, scale: f32) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::rms_norm_add(
        x.into_dispatch(),
        residual.into_dispatch(),
        weight.into_dispatch(),
        eps,
        scale,
    ))
}

impl NormOps for Flex {
    fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f32, dtype: FloatDType) -> FlexTensor {
        debug_assert_eq!(dtype, FloatDType::F32, "the CPU norms in float32");
        let mut x = tensor::contiguous(x);
        let weight = tensor::contiguous(weight);
        flex::norm::rms_norm_in_place(tensor::f32s_mut(&mut x), tensor::f32s(&weight), eps);
        x
    }

    fn add_rms_norm(x: FlexTensor, residual: FlexTensor, weight: FlexTensor, eps: f32) -> (FlexTensor, FlexTensor) {
        let shape = tensor::dims::<2>(&x);
        let mut sum = tensor::contiguous(residual);
        let (x, weight) = (tensor::contiguous(x), tensor::contiguous(weight));
        let mut norm = vec![0.0; shape[0] * shape[1]];
        flex::norm::add_rms_norm(tensor::f32s(&x), tensor::f32s_mut(&mut sum), tensor::f32s(&weight), eps, &mut norm);
        (sum, tensor::from_f32s(norm, shape))
    }
    fn rms_norm_add(x: FlexTensor, residual: FlexTensor, weight: FlexTensor, eps: f32, scale: f32) -> FlexTensor {
        let mut sum = tensor::contiguous(residual);
        let (mut x, weight) = (tensor::contiguous(x), tensor::contiguous(weight));
        let (normed, weight) = (tensor::f32s_mut(&mut x), tensor::f32s(&weight));
        flex::norm::rms_norm_add(normed, tensor::f32s_mut(&mut sum), weight, eps, scale);
        sum
    }
}
