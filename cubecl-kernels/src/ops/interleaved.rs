//! Products with weights whose rows are interleaved, on the CPU.

use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn_flex::{Flex, FlexTensor};

use crate::flex::{interleaved, tensor};

/// A matrix that the CPU multiplies with activations of eight bits.
pub(crate) type Matrix = Arc<interleaved::Interleaved>;

#[backend_extension(Flex)]
pub(crate) trait InterleavedOps: Backend {
    /// `out[:, offset..offset + rows] = x wᵀ`; x `[m, cols]`, out `[m, stride]`, returned.
    fn interleaved_into(
        x: FloatTensor<Self>,
        matrix: Matrix,
        out: FloatTensor<Self>,
        offset: usize,
    ) -> FloatTensor<Self>;

    /// Rows `tokens` of the matrix in float32, `[n, cols]`; a token that is no row becomes zeros.
    fn interleaved_rows(matrix: Matrix, tokens: IntTensor<Self>) -> FloatTensor<Self>;
}

impl InterleavedOps for Flex {
    #[allow(clippy::needless_pass_by_value)]
    fn interleaved_into(x: FlexTensor, matrix: Matrix, mut out: FlexTensor, offset: usize) -> FlexTensor {
        let [m, stride] = tensor::dims(&out);
        let x = tensor::contiguous(x);
        interleaved::linear(&matrix, tensor::f32s(&x), m, tensor::f32s_mut(&mut out), stride, offset);
        out
    }

    #[allow(clippy::needless_pass_by_value)]
    fn interleaved_rows(matrix: Matrix, tokens: FlexTensor) -> FlexTensor {
        let tokens = tensor::contiguous(tokens);
        let tokens = tensor::i32s(&tokens);
        let mut out = vec![0.0; tokens.len() * matrix.cols()];
        matrix.gather(tokens, &mut out);
        tensor::from_f32s(out, [tokens.len(), matrix.cols()])
    }
}
