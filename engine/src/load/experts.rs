//! The matrices of experts, however a checkpoint spells them.

use atelico_kernels::formats::Format;

use super::Weights;
use crate::nn::Experts;
use crate::weights::StoredTensor;
use crate::{Error, Result};

/// One linear layer of all experts: one stacked tensor, or one tensor an expert.
struct Part<'a> {
    format: Format,
    /// Rows of one expert.
    rows: usize,
    tensors: Vec<StoredTensor<'a>>,
}

impl<'a> Part<'a> {
    /// The stored rows of one expert, of the `count` there are.
    fn expert(&self, expert: usize, count: usize) -> &[u8] {
        match &self.tensors[..] {
            [stacked] => &stacked.bytes[expert * (stacked.bytes.len() / count)..][..stacked.bytes.len() / count],
            tensors => &tensors[expert].bytes,
        }
    }
}

impl<'a> Weights<'a> {
    /// The layer of `count` experts that merges `parts` (name and outputs of each), from here on:
    ///
    /// - `merged`, one tensor `[count, Σ out, in]` with the parts' rows in order, or
    /// - each part as one tensor `[count, out, in]`, or as `<expert>.<part>.weight`, `[out, in]` each.
    ///
    /// Stacked tensors may have the suffix `.weight`. A layer of one part has that part's name as
    /// `merged`.
    ///
    /// # Errors
    /// When tensors are missing, their shape differs, or one part's experts differ in format.
    pub fn experts(&self, merged: &str, parts: &[(&str, usize)], count: usize, input: usize) -> Result<Experts> {
        let outputs = parts.iter().map(|(_, out)| out).sum();
        if let Some(name) = self.stacked(merged) {
            let tensor = self.tensor(&name, &[count, outputs, input])?;
            let weight = self.stored_matrix(tensor.format, count * outputs, input, &tensor.bytes)?;
            self.done(&tensor);
            return Ok(Experts { weights: vec![weight], precision: self.placement.precision });
        }
        let parts = parts.iter().map(|(name, out)| self.part(name, *out, count, input)).collect::<Result<Vec<_>>>()?;
        let mut weights = Vec::new();
        for run in parts.chunk_by(|a, b| a.format == b.format) {
            let [first, ..] = run else { continue };
            let rows = count * run.iter().map(|part| part.rows).sum::<usize>();
            weights.push(match (run.len(), &first.tensors[..]) {
                (1, [stacked]) => self.stored_matrix(first.format, rows, input, &stacked.bytes)?,
                _ => {
                    let experts = (0..count).flat_map(|e| run.iter().flat_map(move |part| part.expert(e, count)));
                    self.stored_matrix(first.format, rows, input, &experts.copied().collect::<Vec<u8>>())?
                }
            });
            run.iter().flat_map(|part| &part.tensors).for_each(|tensor| self.done(tensor));
        }
        Ok(Experts { weights, precision: self.placement.precision })
    }

    /// The full name of a stacked tensor, if there is one.
    fn stacked(&self, name: &str) -> Option<String> {
        [name.to_owned(), format!("{name}.weight")].into_iter().find(|name| self.contains(name))
    }

    fn part(&self, name: &str, rows: usize, count: usize, input: usize) -> Result<Part<'a>> {
        let tensors = match self.stacked(name) {
            Some(name) => vec![self.tensor(&name, &[count, rows, input])?],
            None => (0..count)
                .map(|expert| self.tensor(&format!("{expert}.{name}.weight"), &[rows, input]))
                .collect::<Result<Vec<_>>>()?,
        };
        let format = tensors.first().map_or(Format::F32, |tensor| tensor.format);
        match tensors.iter().find(|tensor| tensor.format != format) {
            Some(other) => {
                let problem = format!("is {:?} where the other experts are {format:?}", other.format);
                Err(Error::Config { key: other.name.clone(), problem })
            }
            None => Ok(Part { format, rows, tensors }),
        }
    }
}
