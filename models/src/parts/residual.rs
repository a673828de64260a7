//! The residual stream of a pre-norm model.

use atelico_engine::nn::RmsNorm;
use burn::tensor::Tensor;

/// A residual stream `[m, hidden_size]` whose latest addition is still to be made: it rides in the
/// next norm, which reads the sum anyway.
#[derive(Debug)]
pub(crate) struct Residual {
    sum: Tensor<2>,
    update: Option<Tensor<2>>,
}

impl Residual {
    pub(crate) fn new(x: Tensor<2>) -> Self {
        Self { sum: x, update: None }
    }

    /// The norm of the stream.
    pub(crate) fn normed(&mut self, norm: &RmsNorm) -> Tensor<2> {
        let sum = self.sum.clone();
        match self.update.take() {
            Some(update) => {
                let normed;
                (self.sum, normed) = norm.forward_add(update, sum);
                normed
            }
            None => norm.forward(sum),
        }
    }

    /// Adds `update` to the stream.
    pub(crate) fn add(&mut self, update: Tensor<2>) {
        self.update = Some(match self.update.take() {
            Some(earlier) => earlier + update,
            None => update,
        });
    }

    /// Only the last row.
    #[must_use]
    pub(crate) fn last_row(self) -> Self {
        let last = |x: Tensor<2>| {
            let m = x.dims()[0];
            x.narrow(0, m - 1, 1)
        };
        Self { sum: last(self.sum), update: self.update.map(last) }
    }

    /// The stream itself.
    pub(crate) fn into_sum(self) -> Tensor<2> {
        match self.update {
            Some(update) => self.sum + update,
            None => self.sum,
        }
    }
}
