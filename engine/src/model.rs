//! What an architecture offers the engine.

use burn::tensor::{Int, Tensor};

use crate::Result;
use crate::state::DecodeState;

/// The inputs of one forward pass: rows of tokens, each at a position of a slot. All live on the
/// device, so that a captured pass reads fresh ones at every replay.
#[derive(Clone, Debug)]
pub struct Step {
    /// Token ids, `[m]` int32.
    pub tokens: Tensor<1, Int>,
    /// Their positions, `[m]` int32.
    pub positions: Tensor<1, Int>,
    /// Their slots, `[m]` int32.
    pub slots: Tensor<1, Int>,
    /// All rows are of one slot, at consecutive positions: a chunk of a prompt.
    pub consecutive: bool,
    /// Rows whose logits are wanted.
    pub logits: LogitRows,
}

/// Rows whose logits a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// Every row.
    All,
    /// The last row.
    Last,
}

/// A loaded language model: weights without state.
pub trait LanguageModel {
    /// Rows of the logits.
    fn vocab_size(&self) -> usize;

    /// An empty state for the placement that the model was loaded for.
    ///
    /// # Errors
    /// Those of [`KvCache::new`](crate::state::KvCache::new).
    fn new_state(&self) -> Result<DecodeState>;

    /// Runs the rows of `step`, writes their state in place and returns the logits of the rows it
    /// asks for, `[rows, vocab_size]` float32.
    fn forward(&self, step: &Step, state: &mut DecodeState) -> Tensor<2>;
}
