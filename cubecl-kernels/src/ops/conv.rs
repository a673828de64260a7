//! Causal convolution over time, each channel by itself.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

/// Most taps that a convolution may have.
pub const MAX_TAPS: usize = 8;

/// Shape of a causal convolution, and where its input lies in a wider projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvSpec {
    /// Channels, each with taps of its own.
    pub channels: usize,
    /// Taps of a channel, `2..=`[`MAX_TAPS`]; the last weighs the row itself.
    pub taps: usize,
    /// Column of the input where the channels begin.
    pub offset: usize,
    /// All rows are of one slot, at consecutive positions.
    pub consecutive: bool,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait ConvOps: Backend {
    #[allow(clippy::too_many_arguments)]
    fn causal_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        window: FloatTensor<Self>,
        spec: ConvSpec,
        has_bias: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// `silu(bias + Σ_j weight[j] ⊙ x[t - taps + 1 + j])`: the short convolution before a Mamba2 or
/// DeltaNet layer. Inputs before the first row come from the slot's window, or are zeros when the
/// row is at position 0; the window is written in place.
///
/// # Shapes
/// x `[m, width]` with the channels at columns `spec.offset..`, weight `[taps, channels]`, bias
/// `[channels]`, positions and slots `[m]` int32, window `[slots, taps - 1, channels]` (oldest input
/// first). Returns `[m, channels]` and the window. All but the indices are float32.
pub fn causal_conv(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    positions: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    window: Tensor<3>,
    spec: ConvSpec,
) -> (Tensor<2>, Tensor<3>) {
    debug_assert!((2..=MAX_TAPS).contains(&spec.taps));
    let has_bias = bias.is_some();
    // Any tensor stands in for a bias that is not read.
    let bias = bias.map_or_else(|| weight.clone().into_dispatch(), Tensor::into_dispatch);
    let (out, window) = Dispatch::causal_conv(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias,
        positions.into_dispatch(),
        slots.into_dispatch(),
        window.into_dispatch(),
        spec,
        has_bias,
    );
    (Tensor::from_dispatch(out), Tensor::from_dispatch(window))
}

impl ConvOps for Flex {
    fn causal_conv(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        positions: FlexTensor,
        slots: FlexTensor,
        mut window: FlexTensor,
        spec: ConvSpec,
        has_bias: bool,
    ) -> (FlexTensor, FlexTensor) {
        let [m, width] = tensor::dims(&x);
        let (x, weight, bias) = (tensor::contiguous(x), tensor::contiguous(weight), tensor::contiguous(bias));
        let mut out = vec![0.0; m * spec.channels];
        flex::conv::causal_conv(
            tensor::f32s(&x),
            width,
            tensor::f32s(&weight),
            has_bias.then(|| tensor::f32s(&bias)),
            tensor::i32s(&positions),
            tensor::i32s(&slots),
            tensor::f32s_mut(&mut window),
            &spec,
            &mut out,
        );
        (tensor::from_f32s(out, [m, spec.channels]), window)
    }
}
