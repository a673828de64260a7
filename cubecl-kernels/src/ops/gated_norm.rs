//! RMS norm over groups of channels, with a gate: the output norm of Mamba2 and DeltaNet layers.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

/// Which comes first, the norm or the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateOrder {
    /// `rmsnorm(x * silu(gate)) * weight`, as Mamba2 does.
    GateFirst,
    /// `rmsnorm(x) * weight * silu(gate)`, as Gated DeltaNet does.
    NormFirst,
}

/// Shape and order of a gated norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatedNormSpec {
    /// Neighbouring elements that are normed together.
    pub group_size: usize,
    /// First column of the gate in its tensor.
    pub gate_offset: usize,
    /// What comes first.
    pub order: GateOrder,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait GatedNormOps: Backend {
    fn gated_rms_norm(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
        spec: GatedNormSpec,
    ) -> FloatTensor<Self>;
}

/// Root-mean-square norm over each group of `group_size` columns, times the weight and the SiLU of
/// the gate in the order that `spec` says.
///
/// # Shapes
/// x `[m, groups group_size]`; gate `[m, any]`, of which the columns from `gate_offset` on count, so
/// that a merged projection serves as it is; weight `[group_size]` (shared by the groups) or
/// `[groups group_size]`. All float32; returns the shape of x.
///
/// References: `MambaRMSNormGated` and `Qwen3NextRMSNormGated` of transformers.
pub fn gated_rms_norm(x: Tensor<2>, gate: Tensor<2>, weight: Tensor<1>, eps: f32, spec: GatedNormSpec) -> Tensor<2> {
    let ([_, width], [_, gate_width], [weights]) = (x.dims(), gate.dims(), weight.dims());
    debug_assert!(width % spec.group_size == 0 && spec.gate_offset + width <= gate_width);
    debug_assert!(weights == spec.group_size || weights == width);
    Tensor::from_dispatch(Dispatch::gated_rms_norm(
        x.into_dispatch(),
        gate.into_dispatch(),
        weight.into_dispatch(),
        eps,
        spec,
    ))
}

impl GatedNormOps for Flex {
    fn gated_rms_norm(
        x: FlexTensor,
        gate: FlexTensor,
        weight: FlexTensor,
        eps: f32,
        spec: GatedNormSpec,
    ) -> FlexTensor {
        let ([_, width], [_, gate_width]) = (tensor::dims(&x), tensor::dims(&gate));
        let (mut x, gate, weight) = (tensor::contiguous(x), tensor::contiguous(gate), tensor::contiguous(weight));
        flex::gated_norm::gated_rms_norm_in_place(
            tensor::f32s_mut(&mut x),
            width,
            tensor::f32s(&gate),
            gate_width,
            tensor::f32s(&weight),
            eps,
            &spec,
        );
        x
    }
}
