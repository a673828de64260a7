//! The matrices of experts, however a checkpoint spells them.

use atelico_kernels::formats::Format;
use atelico_kernels::ops::is_cpu;

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
    /// The same of an expert that all tokens share, in one or several tensors; empty where it is stored apart.
    shared: Vec<StoredTensor<'a>>,
}

impl<'a> Part<'a> {
    /// The stored rows of one expert, of the `count` there are; the shared one is number `count`.
    fn expert(&self, expert: usize, count: usize) -> impl Iterator<Item = &[u8]> {
        let (own, shared) = match &self.tensors[..] {
            _ if expert == count => (None, &self.shared[..]),
            [stacked] => {
                let size = stacked.bytes.len() / count;
                (Some(&stacked.bytes[expert * size..][..size]), &[][..])
            }
            tensors => (Some(&*tensors[expert].bytes), &[][..]),
        };
        own.into_iter().chain(shared.iter().map(|tensor| &*tensor.bytes))
    }
}

impl<'a> Weights<'a> {
    /// The layer of `count` experts that merges `parts` (name and outputs of each), from here on:
    ///
    /// - `merged`, one tensor `[count, Σ out, in]` with the parts' rows in order, or
    /// - each part as one tensor `[count, out, in]`, or as `<expert>.<part>.weight`, `[out, in]` each.
    ///
    /// Stacked tensors may have the suffix `.weight`. A layer of one part has that part's name as
    /// `merged`. The expert at `shared` (`<part>.weight`, `[out, in]` each) becomes number `count`.
    ///
    /// # Errors
    /// When tensors are missing, their shape differs, or one part's experts differ in format.
    pub fn experts(
        &self,
        merged: &str,
        parts: &[(&str, usize)],
        count: usize,
        input: usize,
        shared: Option<&Self>,
    ) -> Result<Experts> {
        let parts = self.parts(merged, parts, count, input, shared)?;
        let total = count + usize::from(shared.is_some());
        let mut weights = Vec::new();
        for run in parts.chunk_by(|a, b| a.format == b.format) {
            let [first, ..] = run else { continue };
            let rows = total * run.iter().map(|part| part.rows).sum::<usize>();
            weights.push(match (run, &first.tensors[..]) {
                ([_], [stacked]) if shared.is_none() => {
                    self.stored_matrix(first.format, rows, input, &stacked.bytes)?
                }
                _ => {
                    let pieces = (0..total).flat_map(|e| run.iter().flat_map(move |part| part.expert(e, count)));
                    let pieces: Vec<&[u8]> = pieces.collect();
                    self.stored_matrix(first.format, rows, input, &pieces.concat())?
                }
            });
            run.iter().flat_map(|part| part.tensors.iter().chain(&part.shared)).for_each(|tensor| self.done(tensor));
        }
        Ok(Experts { weights, precision: self.placement.precision })
    }

    /// Whether [`Self::experts`] can take the expert at `shared` in: it is stored as they are. A CPU multiplies
    /// it faster by itself, in rows side by side.
    ///
    /// # Errors
    /// As [`Self::experts`].
    pub fn experts_take(
        &self,
        merged: &str,
        parts: &[(&str, usize)],
        count: usize,
        input: usize,
        shared: &Self,
    ) -> Result<bool> {
        if is_cpu(&self.placement.device) {
            return Ok(false);
        }
        let alike = |part: &Part<'_>| part.shared.iter().all(|tensor| tensor.format == part.format);
        Ok(self.parts(merged, parts, count, input, Some(shared))?.iter().all(alike))
    }

    /// The tensors of a layer, as [`Self::experts`] takes them.
    fn parts(
        &self,
        merged: &str,
        parts: &[(&str, usize)],
        count: usize,
        input: usize,
        shared: Option<&Self>,
    ) -> Result<Vec<Part<'a>>> {
        let shared = |(name, out): &(&str, usize)| {
            shared.map(|shared| shared.matrix_tensor(&format!("{name}.weight"), *out, input)).transpose()
        };
        if let Some(name) = self.stacked(merged) {
            let rows = parts.iter().map(|(_, out)| out).sum();
            let tensor = self.tensor(&name, &[count, rows, input])?;
            let shared = parts.iter().filter_map(|part| shared(part).transpose()).collect::<Result<_>>()?;
            return Ok(vec![Part { format: tensor.format, rows, tensors: vec![tensor], shared }]);
        }
        let part = |part: &(&str, usize)| {
            let (name, rows) = *part;
            let tensors = self.part(name, rows, count, input)?;
            let format = tensors.first().map_or(Format::F32, |tensor| tensor.format);
            Ok(Part { format, rows, tensors, shared: shared(part)?.into_iter().collect() })
        };
        parts.iter().map(part).collect()
    }

    /// The full name of a stacked tensor, if there is one.
    fn stacked(&self, name: &str) -> Option<String> {
        [name.to_owned(), format!("{name}.weight")].into_iter().find(|name| self.contains(name))
    }

    /// The tensors of one part, all of one format.
    fn part(&self, name: &str, rows: usize, count: usize, input: usize) -> Result<Vec<StoredTensor<'a>>> {
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
            None => Ok(tensors),
        }
    }
}
