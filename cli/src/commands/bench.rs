//! `atelico bench`: llama-bench's protocol.

use std::time::Instant;

use atelico_engine::bandwidth::{self, Bandwidth};
use atelico_engine::device::DeviceSpec;
use atelico_engine::handle::{Event, ModelHandle, Request, SamplingParams, Timings};
use atelico_engine::weights::Checkpoint;
use atelico_engine::{Error, kernel_cache};
use clap::Args;
use serde_json::{Value, json};

use crate::args::ModelArgs;
use crate::error::CliError;
use crate::model;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  atelico bench
  atelico bench ./model-Q4_K_M.gguf --device vulkan
  atelico bench meta-llama/Llama-3.2-1B -p 0 -n 256 -r 3 --format json

pp: tokens per second of a prompt of random tokens, from an empty context to its last logits.
tg: decode steps per second, greedy from an empty context, end-of-sequence tokens ignored.
Each after one warm-up that is not counted. The bandwidth that tg is compared with is measured on the
spot: the rate at which the CPU reads its memory, or at which a GPU copies within its own (bytes read
and written). The first token is that of the process's first prompt, of the length that -p states,
kernels being compiled and tuned on the way.";

/// Tokens of context that every model takes.
const LEAST_CONTEXT: usize = 128;

/// Arguments of `atelico bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Tokens of the prompt; 0 skips the part
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    prompt: usize,

    /// Tokens to generate; 0 skips the part
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 128)]
    generate: usize,

    /// Times that each part is measured
    #[arg(short, long, value_name = "TIMES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,

    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One measured part.
struct Measurement {
    /// llama-bench's name for it: `pp512`, `tg128`.
    test: String,
    /// Tokens per second of each repetition.
    samples: Vec<f64>,
    /// Whether each token reads the weights once, so that memory is its bound.
    per_token: bool,
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), CliError> {
    if args.prompt == 0 && args.generate == 0 {
        return Err(CliError::Usage("-p 0 -n 0 leaves nothing to measure".into()));
    }
    let located = model::locate(args.model.model.as_deref())?;
    let read_bytes = bandwidth::bytes_per_token(&Checkpoint::open(&located.path).map_err(Error::from)?);
    let placement = &args.model.placement;
    // Room for one token more than each part computes, as the engine wants it.
    let needed = args.prompt.max(args.generate.saturating_add(1)).saturating_add(1);
    let context = placement.context.unwrap_or(needed.max(LEAST_CONTEXT));
    let model = model::load_with_context(&located, placement, Some(context))?;
    let first_token_ms = first_token_ms(&model, args.prompt.max(1))?;
    let mut parts = Vec::new();
    if args.prompt > 0 {
        parts.push(prompt_part(&model, args)?);
    }
    if args.generate > 0 {
        parts.push(generation_part(&model, args)?);
    }
    let bandwidth = bandwidth::measure(&model.info().device.parse::<DeviceSpec>()?.open()?);
    let report = Report { name: &located.name, model: &model, parts, read_bytes, bandwidth, first_token_ms };
    match args.format {
        Format::Json => output::print_json(&report.json()),
        Format::Text => output::print(&report.text()),
    }
}

/// Milliseconds from the submission of the process's first prompt to its first token.
fn first_token_ms(model: &ModelHandle, prompt_tokens: usize) -> Result<f64, CliError> {
    let prompt = random_prompt(&mut Random::new(), model, prompt_tokens);
    let started = Instant::now();
    run_once(model, prompt, 1)?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// A prompt of random tokens.
fn random_prompt(random: &mut Random, model: &ModelHandle, tokens: usize) -> Vec<u32> {
    let vocab_size = model.info().vocab_size as u64;
    // Ids are below the vocabulary size, which fits u32.
    (0..tokens).map(|_| (random.next() % vocab_size) as u32).collect()
}

fn prompt_part(model: &ModelHandle, args: &BenchArgs) -> Result<Measurement, CliError> {
    let mut random = Random::new();
    let measure = || {
        let timings = run_once(model, random_prompt(&mut random, model, args.prompt), 1)?;
        Ok(args.prompt as f64 * 1e3 / timings.prompt_ms)
    };
    Ok(Measurement { test: format!("pp{}", args.prompt), samples: repeat(args, measure)?, per_token: false })
}

fn generation_part(model: &ModelHandle, args: &BenchArgs) -> Result<Measurement, CliError> {
    let start = model.tokenizer().ok().and_then(|tokenizer| tokenizer.bos_token_id()).unwrap_or(0);
    let measure = || {
        // The first token comes from the prompt's computation, so one more makes N steps.
        let timings = run_once(model, vec![start], args.generate + 1)?;
        Ok(args.generate as f64 * 1e3 / timings.decode_ms)
    };
    Ok(Measurement { test: format!("tg{}", args.generate), samples: repeat(args, measure)?, per_token: true })
}

/// The samples of `measure` after one run that is thrown away.
fn repeat(args: &BenchArgs, mut measure: impl FnMut() -> Result<f64, CliError>) -> Result<Vec<f64>, CliError> {
    measure()?;
    (0..args.repetitions).map(|_| measure()).collect()
}

fn run_once(model: &ModelHandle, prompt: Vec<u32>, max_tokens: usize) -> Result<Timings, CliError> {
    let context = model.info().context_length;
    let prompt_tokens = prompt.len();
    // A request would end early there and the figure be one of fewer tokens.
    if prompt_tokens + max_tokens > context {
        return Err(Error::ContextExceeded { prompt_tokens: prompt_tokens + max_tokens, context }.into());
    }
    let mut generation = model.submit(Request {
        prompt,
        max_tokens: Some(max_tokens),
        sampling: SamplingParams::greedy(),
        stop_tokens: Vec::new(),
        ignore_eos: true,
        logprobs: None,
        prompt_logits: false,
        // Every prompt is to be computed.
        reuse_prefix: false,
    })?;
    loop {
        match generation.next_blocking().transpose()? {
            Some(Event::Done { timings, .. }) => return Ok(timings),
            Some(_) => {}
            None => return Err(Error::Stopped.into()),
        }
    }
}

/// A xorshift generator: the same prompts in every run.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

impl Measurement {
    fn mean(&self) -> f64 {
        self.samples.iter().sum::<f64>() / self.samples.len() as f64
    }

    /// The samples' standard deviation; 0 for a single one.
    fn deviation(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        (squares / self.samples.len().saturating_sub(1).max(1) as f64).sqrt()
    }

    /// GB/s of weights read.
    fn gigabytes_per_second(&self, read_bytes: u64) -> Option<f64> {
        self.per_token.then(|| self.mean() * read_bytes as f64 / 1e9)
    }
}

/// All that a run found.
struct Report<'a> {
    name: &'a str,
    model: &'a ModelHandle,
    parts: Vec<Measurement>,
    read_bytes: u64,
    bandwidth: Option<Bandwidth>,
    first_token_ms: f64,
}

impl Report<'_> {
    /// The share of the memory bandwidth at which a part reads the weights.
    fn share(&self, part: &Measurement) -> Option<f64> {
        Some(part.gigabytes_per_second(self.read_bytes)? / self.bandwidth?.gb_per_second)
    }

    /// Whether the kernels of an earlier run were there; `None` where none are kept.
    fn kernel_cache(&self) -> Option<&'static str> {
        let warm = kernel_cache::was_warm().filter(|_| self.model.info().device != "cpu")?;
        Some(if warm { "warm" } else { "cold" })
    }

    fn json(&self) -> Value {
        let info = self.model.info();
        let result = |part: &Measurement| {
            json!({
                "test": part.test,
                "tokens_per_second": part.mean(),
                "stddev": part.deviation(),
                "samples": part.samples,
                "weights_gb_s": part.gigabytes_per_second(self.read_bytes),
                "bandwidth_share": self.share(part),
            })
        };
        json!({
            "results": self.parts.iter().map(result).collect::<Vec<_>>(),
            "model": self.name,
            "device": info.device,
            "architecture": info.architecture,
            "parameters": info.parameters,
            "format": info.format,
            "weight_bytes": info.weight_bytes,
            "bytes_read_per_token": self.read_bytes,
            "memory_bandwidth_gb_s": self.bandwidth.map(|bandwidth| bandwidth.gb_per_second),
            "memory_bandwidth_of": self.bandwidth.map(|bandwidth| bandwidth.traffic.to_string()),
            "load_ms": info.load_ms,
            "first_token_ms": self.first_token_ms,
            "kernel_cache": self.kernel_cache(),
        })
    }

    fn text(&self) -> String {
        let info = self.model.info();
        let header = ["TEST", "TOKENS/S", "WEIGHTS READ", "OF MEMORY BANDWIDTH"].map(str::to_owned);
        let row = |part: &Measurement| {
            let rate = part.gigabytes_per_second(self.read_bytes);
            let share = self.share(part).zip(self.bandwidth).map(|(share, Bandwidth { gb_per_second, traffic })| {
                format!("{:.0} % of a {traffic}'s {gb_per_second:.1} GB/s", share * 100.0)
            });
            [
                part.test.clone(),
                format!("{:.2} ± {:.2}", part.mean(), part.deviation()),
                rate.map_or_else(|| "-".into(), |rate| format!("{rate:.1} GB/s")),
                share.unwrap_or_else(|| "-".into()),
            ]
        };
        let rows: Vec<_> = std::iter::once(header).chain(self.parts.iter().map(row)).collect();
        format!(
            "{}: {} {} {}, {} on {}\nloaded in {:.0} ms, first token {:.0} ms later{}\n{}",
            output::printable(self.name),
            info.architecture,
            output::human_count(info.parameters),
            info.format,
            output::human_bytes(info.weight_bytes),
            info.device,
            info.load_ms,
            self.first_token_ms,
            self.kernel_cache().map(|state| format!(", kernel cache {state}")).unwrap_or_default(),
            output::table(&rows, [false, true, true, true]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_sample_deviation() {
        let part = Measurement { test: "tg4".into(), samples: vec![2.0, 4.0, 6.0], per_token: true };
        assert_eq!(part.mean(), 4.0);
        assert_eq!(part.deviation(), 2.0);
        assert_eq!(part.gigabytes_per_second(500_000_000), Some(2.0));
        let single = Measurement { samples: vec![3.0], ..part };
        assert_eq!(single.deviation(), 0.0);
    }
}
