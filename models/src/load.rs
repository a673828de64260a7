//! From a path to a running model.

use std::path::Path;
use std::sync::Arc;

use atelico_engine::arithmetic::{CacheType, precision_name};
use atelico_engine::config::Config;
use atelico_engine::device::{DeviceKind, OpenDevice};
use atelico_engine::generate::{Ready, start};
use atelico_engine::handle::{DEFAULT_CONTEXT, LoadOptions, ModelHandle, ModelInfo, SamplingParams};
use atelico_engine::load::{Placement, Weights};
use atelico_engine::text::{ChatTemplate, Tokenizer};
use atelico_engine::weights::Checkpoint;
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{self, Precision};
use burn::tensor::{DType, Device};

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
    // Parcae's name for it.
    let block_size = config.size_or("block_size", DEFAULT_CONTEXT)?;
    let max_context = config.text().size_or("max_position_embeddings", block_size)?;
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
    let placement = placement(&opened, options, context, checkpoint.weight_bytes())?;
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

/// Weights below this fit the caches of a processor, where fewer bits gain nothing.
const SMALL_WEIGHTS: u64 = 32 << 20;

/// Unless the caller says otherwise, activations of eight bits for the packed weights of all but small
/// models; on CUDA, whose tensor cores take them, bfloat16 operands for prompts. Caches are float16 where that is stored, unless the CPU computes in float32 or float32
/// was asked for.
fn placement(opened: &OpenDevice, options: &LoadOptions, context: usize, weight_bytes: u64) -> Result<Placement> {
    let default = match opened.kind {
        DeviceKind::Cuda => Precision::BF16,
        _ if weight_bytes >= SMALL_WEIGHTS => Precision::Int8,
        _ => Precision::F32,
    };
    let precision = options.precision.unwrap_or(default);
    let cache = options.cache.unwrap_or(match opened.kind {
        // Whoever computes in float32 on the CPU, or asks for it elsewhere, gets it throughout.
        DeviceKind::Cpu if precision != Precision::Int8 => CacheType::F32,
        DeviceKind::Cpu => CacheType::F16,
        _ if options.precision == Some(Precision::F32) => CacheType::F32,
        _ if ops::stores(&opened.device, DType::F16) => CacheType::F16,
        _ => CacheType::F32,
    });
    let operands = match precision {
        Precision::F32 => DType::F32,
        Precision::BF16 => DType::BF16,
        Precision::F16 => DType::F16,
        Precision::Int8 => DType::I8,
    };
    let on_cpu = (&[][..], "computes in f32 or int8");
    supported(opened, "precision", precision_name(precision), operands, ops::multiplies, on_cpu)?;
    let on_cpu = (&[DType::F16][..], "keeps f32, f16 or q8_0");
    supported(opened, "kv_cache", cache.name(), cache.dtype(), ops::stores, on_cpu)?;
    let prefill_chunk = options.prefill_chunk.unwrap_or(PREFILL_CHUNK).max(1);
    Ok(Placement { device: opened.device.clone(), precision, cache, context, slots: options.slots, prefill_chunk })
}

/// Refuses a number type that the device does not have for the use in question.
fn supported(
    opened: &OpenDevice,
    name: &'static str,
    asked: &str,
    dtype: DType,
    has: fn(&Device, DType) -> bool,
    (cpu_has, cpu_does): (&[DType], &str),
) -> Result<()> {
    let problem = match opened.kind {
        // Integers of eight bits travel in words, which every device has.
        _ if matches!(dtype, DType::F32 | DType::I8) => return Ok(()),
        DeviceKind::Cpu if cpu_has.contains(&dtype) => return Ok(()),
        DeviceKind::Cpu => format!("is {asked}; the CPU {cpu_does}"),
        _ if has(&opened.device, dtype) => return Ok(()),
        _ => format!("is {asked}, which {} does not support; f32 always works", opened.name),
    };
    Err(Error::Parameter { name, problem })
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
