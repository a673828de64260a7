//! Choosing the next token on the device.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use crate::flex::{self, tensor};

/// Values per slot in the parameter buffer, each 32 bits wide:
///
/// | index | value |
/// | --- | --- |
/// | 0 | temperature, float bits; above 0 |
/// | 1 | top-k; 0 is off |
/// | 2 | top-p, float bits; 1 is off |
/// | 3 | min-p, float bits; 0 is off |
/// | 4 | repetition penalty, float bits; 1 is off |
/// | 5 | presence penalty, float bits |
/// | 6 | frequency penalty, float bits |
/// | 7, 8 | seed, low and high half |
/// | 9 | number of logit biases |
/// | 10.. | 1,024 pairs of token id and bias (float bits) |
pub const SAMPLE_PARAMS: usize = 10 + 2 * 1024;

/// Bit of a token's count that says that the prompt holds it; the bits below count its
/// occurrences in the answer.
pub const IN_PROMPT: i32 = 1 << 30;

/// Which kind of choice a step makes; fixed when the step is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleSpec {
    /// Take the most likely token of every row; parameters and counts are not read.
    pub greedy: bool,
    /// How many of the most likely tokens to report, `0..=20`.
    pub top: usize,
}

/// The buffers that a decode step reads and updates in place.
#[derive(Clone, Debug)]
pub struct SampleState {
    /// Last token of each row, `[m]` int32; replaced by the chosen one.
    pub tokens: Tensor<1, Int>,
    /// Its position, `[m]` int32; advanced by one.
    pub positions: Tensor<1, Int>,
    /// Slot of each row, `[m]` int32.
    pub slots: Tensor<1, Int>,
    /// Parameters, `[slots, SAMPLE_PARAMS]` int32.
    pub params: Tensor<2, Int>,
    /// Occurrences per token, `[slots, vocab]` int32; bit 30 marks tokens of the prompt.
    pub counts: Tensor<2, Int>,
}

/// What [`sample`] returns beside the updated state.
///
/// `[m, 2 + 2 top]` int32 per row: the chosen id (-1 when the logits hold a NaN or an infinity),
/// the float bits of its log-probability, then the ids of the most likely tokens and the float bits
/// of their log-probabilities. Log-probabilities are those of the unchanged logits.
pub type SampleOutput = Tensor<2, Int>;

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait SampleOps: Backend {
    fn sample(
        logits: FloatTensor<Self>,
        tokens: IntTensor<Self>,
        positions: IntTensor<Self>,
        slots: IntTensor<Self>,
        params: IntTensor<Self>,
        counts: IntTensor<Self>,
        spec: SampleSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>, IntTensor<Self>, IntTensor<Self>);
}

/// Chooses one token per row and advances the state.
///
/// In this order: penalties and biases change the logits; temperature divides them; top-k keeps
/// the `k` largest (ties with the last included), top-p the smallest set whose share of the mass
/// kept so far reaches `p` (ties included), min-p those of at least `min_p` times the largest
/// probability; the Gumbel-max trick draws from what is left, with noise that depends only on
/// seed, position and token id, so that a row's tokens do not depend on its batch.
///
/// # Shapes
/// logits `[m, vocab]` float32.
pub fn sample(logits: Tensor<2>, state: SampleState, spec: SampleSpec) -> (SampleState, SampleOutput) {
    let slots = state.slots.clone();
    let params = state.params.clone();
    let (tokens, positions, counts, out) = Dispatch::sample(
        logits.into_dispatch(),
        state.tokens.into_dispatch(),
        state.positions.into_dispatch(),
        state.slots.into_dispatch(),
        state.params.into_dispatch(),
        state.counts.into_dispatch(),
        spec,
    );
    let state = SampleState {
        tokens: Tensor::from_dispatch(tokens),
        positions: Tensor::from_dispatch(positions),
        slots,
        params,
        counts: Tensor::from_dispatch(counts),
    };
    (state, Tensor::from_dispatch(out))
}

impl SampleOps for Flex {
    fn sample(
        logits: FlexTensor,
        mut tokens: FlexTensor,
        mut positions: FlexTensor,
        slots: FlexTensor,
        params: FlexTensor,
        mut counts: FlexTensor,
        spec: SampleSpec,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let [m, vocab] = tensor::dims(&logits);
        let logits = tensor::contiguous(logits);
        let width = 2 + 2 * spec.top;
        let mut out = vec![0i32; m * width];
        flex::sample::sample(
            tensor::f32s(&logits),
            vocab,
            tensor::i32s_mut(&mut tokens),
            tensor::i32s_mut(&mut positions),
            tensor::i32s(&slots),
            tensor::i32s(&params),
            tensor::i32s_mut(&mut counts),
            spec,
            &mut out,
        );
        (tokens, positions, counts, tensor::from_i32s(out, [m, width]))
    }
}
