//! Token embeddings.

use atelico_kernels::ops::{self, Precision, Weight};
use burn::tensor::{Int, Tensor};

use super::Linear;

/// A table of vectors, `[vocab_size, hidden_size]`, stored as the checkpoint stores it.
#[derive(Clone, Debug)]
pub struct Embedding {
    pub(crate) weight: Weight,
}

impl Embedding {
    /// Rows `tokens` of the table.
    ///
    /// # Shapes
    /// tokens `[n]` int32; returns `[n, hidden_size]` float32.
    pub fn forward(&self, tokens: Tensor<1, Int>) -> Tensor<2> {
        ops::embedding(&self.weight, tokens)
    }

    /// The output head that shares this table.
    pub fn tied_head(&self, precision: Precision) -> Linear {
        Linear { weights: vec![self.weight.clone()], bias: None, precision }
    }
}
