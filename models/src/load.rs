//! From a path to a running model.

use std::path::Path;
use std::sync::Arc;

use atelico_engine::config::Config;
use atelico_engine::device::{DeviceKind, OpenDevice};
use atelico_engine::generate::{Ready, start};
use atelico_engine::handle::{DEFAULT_CONTEXT, LoadOptions, ModelHandle, ModelInfo, SamplingParams};
use atelico_engine::load::{Placement, Weights};
use atelico_engine::text::{ChatTemplate, Tokenizer};
use atelico_engine::weights::Checkpoint;
use atelico_engine::{Error, Result};
use atelico_kernels::ops::Precision;
use burn::tensor::DType;

use crate::registry;

/// Most slots that a model may be loaded with.
const MAX_SLOTS: usize = 32;

/// Tokens of a prompt that are computed at once when the caller does not say.
const PREFILL_CHUNK: usize = 512;

/// Loads the checkpoint at `path` (a folder or a `.gguf` file) and starts its thread.
///
/// # Errors
/// When the files are damaged, the architecture is unknown, or the device can't be used.
pub fn load(path: &Path, options: &LoadOptions) -> Result<ModelHandle> {
    if !(1..=MAX_SLOTS).contains(&options.slots) {
        let problem = format!("is {}; it must be in 1..={MAX_SLOTS}", options.slots);
        return Err(Error::Parameter { name: "slots", problem });
    }
    // Everything that needs no device fails before one is opened.
    let checkpoint = Checkpoint::open(path)?;
    registry::detect(&Config::new(checkpoint.config()))?;
    let options = options.clone();
    start(move || prepare(&checkpoint, &options))
}

/// The architecture of a checkpoint.
///
/// # Errors
/// [`Error::UnknownArchitecture`] listing those known.
pub fn describe(checkpoint: &Checkpoint) -> Result<&'static str> {
    Ok(registry::detect(&Config::new(checkpoint.config()))?.name)
}

fn prepare(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Ready> {
    let config = Config::new(checkpoint.config());
    let architecture = registry::detect(&config)?;
    let max_context = config.text().size_or("max_position_embeddings", DEFAULT_CONTEXT)?;
    let context = match options.context {
        None => max_context.min(DEFAULT_CONTEXT),
        Some(context) if (16..=max_context).contains(&context) => context,
        Some(context) => {
            let problem = format!("is {context}; this model takes 16..={max_context} tokens");
            return Err(Error::Parameter { name: "context", problem });
        }
    };
    let tokenizer = tokenizer(checkpoint)?;
    let chat_template = match (checkpoint.folder(), checkpoint.gguf()) {
        (Some(folder), _) => ChatTemplate::from_folder(folder)?,
        (None, Some(metadata)) => ChatTemplate::from_gguf(metadata)?,
        (None, None) => None,
    };
    let opened = options.device.open()?;
    let placement = placement(&opened, options, context)?;
    let weights = Weights::new(checkpoint, &placement, options.progress.as_ref());
    let model = (architecture.load)(&config, &weights)?;
    let info = ModelInfo {
        architecture: architecture.name.into(),
        parameters: checkpoint.parameters(),
        format: checkpoint.main_format(),
        weight_bytes: checkpoint.weight_bytes(),
        vocab_size: model.vocab_size(),
        context_length: context,
        max_context_length: max_context,
        device: opened.name,
        load_ms: 0.0,
        captured: false,
    };
    Ok(Ready {
        model,
        placement,
        info,
        eos_token_ids: eos_token_ids(&config, checkpoint, tokenizer.as_deref()),
        tokenizer,
        chat_template: chat_template.map(Arc::new),
        generation_defaults: generation_defaults(checkpoint)?,
    })
}

fn tokenizer(checkpoint: &Checkpoint) -> Result<Option<Arc<Tokenizer>>> {
    let tokenizer = match (checkpoint.folder(), checkpoint.gguf()) {
        (Some(folder), _) => Tokenizer::from_folder(folder)?,
        (None, Some(metadata)) => Tokenizer::from_gguf(metadata)?,
        (None, None) => None,
    };
    Ok(tokenizer.map(Arc::new))
}

/// float32 on the CPU; on a GPU bfloat16 operands where the tensor cores take them (CUDA), float32
/// elsewhere. Caches are half as wide as the arithmetic of products unless that is float32.
fn placement(opened: &OpenDevice, options: &LoadOptions, context: usize) -> Result<Placement> {
    let default = match opened.kind {
        DeviceKind::Cuda => Precision::BF16,
        _ => Precision::F32,
    };
    let precision = options.precision.unwrap_or(default);
    if opened.kind == DeviceKind::Cpu && precision != Precision::F32 {
        let problem = format!("is {precision:?}; the CPU computes in F32");
        return Err(Error::Parameter { name: "precision", problem });
    }
    let cache_dtype = if precision == Precision::F32 { DType::F32 } else { DType::F16 };
    let prefill_chunk = options.prefill_chunk.unwrap_or(PREFILL_CHUNK).max(1);
    Ok(Placement {
        device: opened.device.clone(),
        precision,
        cache_dtype,
        context,
        slots: options.slots,
        prefill_chunk,
    })
}

/// Ids that end an answer: those of the config, of `generation_config.json` and of the tokenizer.
fn eos_token_ids(config: &Config<'_>, checkpoint: &Checkpoint, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
    let mut ids = config.ids("eos_token_id");
    ids.extend(config.text().ids("eos_token_id"));
    if let Some(generation) = checkpoint.generation_config() {
        ids.extend(Config::new(generation).ids("eos_token_id"));
    }
    ids.extend(tokenizer.map(Tokenizer::eos_token_ids).unwrap_or_default());
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The sampling of `generation_config.json`; greedy where it says `do_sample: false`.
fn generation_defaults(checkpoint: &Checkpoint) -> Result<SamplingParams> {
    let defaults = SamplingParams::default();
    let Some(value) = checkpoint.generation_config() else { return Ok(defaults) };
    let config = Config::new(value);
    let number = |key, default: f32| config.positive_or(key, f64::from(default)).map(|x| x as f32);
    if config.value("do_sample").is_some() && !config.flag_or("do_sample", true)? {
        return Ok(SamplingParams::greedy());
    }
    Ok(SamplingParams {
        temperature: number("temperature", defaults.temperature)?,
        top_k: config.value("top_k").and_then(serde_json::Value::as_u64).unwrap_or(0) as u32,
        top_p: number("top_p", defaults.top_p)?,
        min_p: config.value("min_p").and_then(serde_json::Value::as_f64).unwrap_or(0.0) as f32,
        repetition_penalty: number("repetition_penalty", defaults.repetition_penalty)?,
        ..defaults
    })
}
