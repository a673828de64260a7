//! A request's sampling parameters as the device reads them.

use std::collections::HashMap;

use atelico_kernels::ops::{SAMPLE_PARAMS, SampleSpec};

use super::runner::TOP;
use crate::handle::{Request, SamplingParams};

/// What the device needs to know of a request's sampling.
#[derive(Clone, Debug)]
pub(super) struct Params {
    /// Plain argmax: nothing changes the logits.
    pub(super) greedy: bool,
    /// Occurrences of tokens matter.
    pub(super) penalizes: bool,
    sampling: SamplingParams,
    seed: u64,
}

impl Params {
    pub(super) fn new(sampling: &SamplingParams, seed: u64) -> Self {
        let penalizes =
            sampling.repetition_penalty != 1.0 || sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
        let greedy = sampling.temperature == 0.0 && !penalizes && sampling.logit_bias.is_empty();
        Self { greedy, penalizes, sampling: sampling.clone(), seed: sampling.seed.unwrap_or(seed) }
    }

    /// The row of the parameter buffer; see [`SAMPLE_PARAMS`].
    pub(super) fn encode(&self) -> Vec<i32> {
        let s = &self.sampling;
        let bits = |x: f32| x.to_bits() as i32;
        // Temperature 0 with penalties: the most likely of the changed logits.
        let (temperature, top_k) = if s.temperature == 0.0 { (1.0, 1) } else { (s.temperature, s.top_k) };
        // Later entries of one id win, and the kernel needs them distinct.
        let biases = s.logit_bias.iter().copied().collect::<HashMap<u32, f32>>();
        let mut row = vec![
            bits(temperature),
            top_k as i32,
            bits(s.top_p),
            bits(s.min_p),
            bits(s.repetition_penalty),
            bits(s.presence_penalty),
            bits(s.frequency_penalty),
            self.seed as i32,
            (self.seed >> 32) as i32,
            biases.len() as i32,
        ];
        row.extend(biases.into_iter().flat_map(|(id, bias)| [id as i32, bits(bias)]));
        row.resize(SAMPLE_PARAMS, 0);
        row
    }
}

/// The kind of step that serves all of `requests`.
pub(super) fn spec<'a>(requests: impl Iterator<Item = (&'a Params, &'a Request)>) -> SampleSpec {
    requests.fold(SampleSpec { greedy: true, top: 0 }, |spec, (params, request)| SampleSpec {
        greedy: spec.greedy && params.greedy,
        top: if request.logprobs.is_some_and(|n| n > 0) { TOP } else { spec.top },
    })
}
