//! What `decode` and `prefill` share: the model, its options, and requests of random tokens.

use std::path::PathBuf;

use atelico_engine::arithmetic::{CacheType, Precision, parse_precision};
use atelico_engine::device::DeviceSpec;
use atelico_engine::handle::{Event, Generation, LoadOptions, ModelHandle, Request, SamplingParams, Timings};
use clap::Args;

use crate::Result;
use crate::table::Peer;

/// Which model, where, and what is asked of it.
#[derive(Args)]
pub(crate) struct ModelArgs {
    /// A checkpoint's folder or .gguf file
    pub(crate) model: PathBuf,

    /// cpu, cuda[:N], vulkan[:N], metal, webgpu[:N] or auto
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,

    /// f32, bf16 or f16 [default: as the engine chooses]
    #[arg(long, value_parser = parse_precision)]
    precision: Option<Precision>,

    /// f32, f16 or bf16 [default: as the engine chooses]
    #[arg(long)]
    kv_cache: Option<CacheType>,

    /// Tokens that a stream's cache has room for, whatever the context
    #[arg(long, default_value_t = 16_384)]
    capacity: usize,

    /// Tokens of context; the longest that fits stands for those beyond the capacity
    #[arg(long, value_delimiter = ',', default_value = "128,2048,16384")]
    pub(crate) contexts: Vec<usize>,

    /// Streams that run at once
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32")]
    pub(crate) streams: Vec<usize>,

    /// A peer's tokens per second for a row, as `c128 x1=788`; may be given several times
    #[arg(long, value_name = "LABEL=FIGURE")]
    pub(crate) peer: Vec<Peer>,
}

impl ModelArgs {
    /// Loads the model with a slot for every stream. `prefill_chunk` tokens of a prompt are computed at
    /// once; `None` leaves that to the engine.
    pub(crate) fn load(&self, prefill_chunk: Option<usize>) -> Result<ModelHandle> {
        let slots = self.streams.iter().copied().max().unwrap_or(1);
        let options = LoadOptions {
            device: self.device,
            precision: self.precision,
            cache: self.kv_cache,
            context: Some(self.capacity),
            slots,
            prefill_chunk,
            ..LoadOptions::default()
        };
        let model = atelico_models::load(&self.model, &options)?;
        let info = model.info();
        println!(
            "{}: {} {}, {} slots of {} tokens on {}",
            self.model.display(),
            info.architecture,
            info.format,
            slots,
            info.context_length,
            info.device
        );
        Ok(model)
    }
}

/// The label of a row.
pub(crate) fn label(context: usize, streams: usize) -> String {
    format!("c{context} x{streams}")
}

/// Submits a prompt of `tokens` random tokens; `seed` tells prompts apart.
pub(crate) fn submit(model: &ModelHandle, seed: usize, tokens: usize, max_tokens: usize) -> Result<Generation> {
    let vocab_size = model.info().vocab_size;
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ seed as u64;
    let mut id = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize % vocab_size) as u32
    };
    Ok(model.submit(Request {
        prompt: (0..tokens).map(|_| id()).collect(),
        max_tokens: Some(max_tokens),
        sampling: SamplingParams::greedy(),
        stop_tokens: Vec::new(),
        ignore_eos: true,
        logprobs: None,
        prompt_logits: false,
        // Every prompt is to be computed.
        reuse_prefix: false,
    })?)
}

/// Waits for a generation's end.
pub(crate) fn finish(mut generation: Generation) -> Result<Timings> {
    loop {
        match generation.next_blocking().transpose()? {
            Some(Event::Done { timings, .. }) => return Ok(timings),
            Some(_) => {}
            None => return Err(atelico_engine::Error::Stopped.into()),
        }
    }
}
