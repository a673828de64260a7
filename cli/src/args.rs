//! The command line.

use atelico_engine::arithmetic::{CacheType, Precision, parse_precision};
use atelico_engine::device::DeviceSpec;
use atelico_engine::handle::SamplingParams;
use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value};

use crate::commands::bench::BenchArgs;
use crate::commands::chat::ChatArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::generate::GenerateArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::models::ModelsArgs;

const EXAMPLES: &str = "\
Examples:
  atelico generate -p \"Once upon a time\"
  atelico chat meta-llama/Llama-3.2-1B-Instruct
  atelico serve --device auto
  atelico bench ./model-Q4_K_M.gguf

Exit codes: 0 done (also when the reader of a pipe went away), 1 failure, 2 wrong usage, 130 Ctrl-C.
Environment: ATELICO_CACHE_DIR holds the models, RUST_LOG sets the log filter.";

const SERVE_EXAMPLES: &str = "\
Examples:
  atelico serve
  atelico serve --port 8080 --device vulkan
  atelico serve --host 0.0.0.0 --device cuda:1";

/// Run language models on this machine.
#[derive(Debug, Parser)]
#[command(name = "atelico", version, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Complete a text
    Generate(Box<GenerateArgs>),
    /// Talk with a model
    Chat(ChatArgs),
    /// Serve models over HTTP with OpenAI's API
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(atelico_server::ServeArgs),
    /// List the models in the cache
    Models(ModelsArgs),
    /// Show a checkpoint's config, tensors, tokenizer and chat template
    Inspect(InspectArgs),
    /// Measure prompt and generation speed
    Bench(BenchArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

/// Which model, where it runs.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Id in the cache, a checkpoint's folder or a .gguf file [default: the small built-in model]
    pub(crate) model: Option<String>,

    #[command(flatten)]
    pub(crate) placement: PlacementArgs,
}

/// Where a model runs.
#[derive(Debug, Args)]
pub(crate) struct PlacementArgs {
    /// cpu, cuda[:N], vulkan[:N], metal, webgpu[:N] or auto (the best one present)
    #[arg(long, env = "ATELICO_DEVICE", default_value = "auto")]
    pub(crate) device: DeviceSpec,

    /// Tokens of context to make room for [default: chosen for the model]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<usize>,

    /// Arithmetic of products: f32, int8 (packed weights), bf16 or f16 (prompts on a GPU) [default: bf16
    /// on CUDA, elsewhere int8 for all but small models]
    #[arg(long, env = "ATELICO_PRECISION", value_name = "TYPE", value_parser = parse_precision)]
    pub(crate) precision: Option<Precision>,

    /// Element type of the key-value cache: f32, f16, bf16 or q8_0 [default: f16; f32 where the CPU
    /// computes in f32 and beside --precision f32]
    #[arg(long, env = "ATELICO_KV_CACHE", value_name = "TYPE")]
    pub(crate) kv_cache: Option<CacheType>,
}

/// How tokens are chosen; what is left out is as the checkpoint's generation_config.json says.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling (defaults come from the model)")]
pub(crate) struct SamplingArgs {
    /// 0 always takes the most likely token; up to 4
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,

    /// Keep the smallest set of tokens that reaches this probability; above 0, up to 1
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,

    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,

    /// Drop tokens less likely than this share of the most likely one; 0..=1
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,

    /// Make tokens that have occurred less likely; 1 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,

    /// Subtracted from the logits of tokens in the answer; -2..=2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,

    /// Subtracted for each occurrence in the answer; -2..=2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,

    /// Make sampling repeatable
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,

    /// End the answer before this text (may be given several times)
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}

/// What the chat template is told besides the messages.
#[derive(Debug, Args)]
pub(crate) struct TemplateArgs {
    /// Variables for the chat template, e.g. '{"enable_thinking": false}'
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

impl TemplateArgs {
    pub(crate) fn kwargs(&self) -> Map<String, Value> {
        self.chat_template_kwargs.clone().unwrap_or_default()
    }
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

impl SamplingArgs {
    /// Checks the values against their ranges, before a model is there.
    pub(crate) fn check(&self) -> atelico_engine::Result<()> {
        self.over(&SamplingParams::default()).validate(usize::MAX)
    }

    /// The model's own sampling with what the command line says instead.
    pub(crate) fn over(&self, defaults: &SamplingParams) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            logit_bias: defaults.logit_bias.clone(),
            seed: self.seed.or(defaults.seed),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Splits a shell line of the examples: blanks separate, quotes group.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.chars() {
            match c {
                _ if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(c),
                ' ' if quote.is_none() => words.push(String::new()),
                _ => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_example_of_every_command_parses() {
        let mut cli = Cli::command();
        cli.build();
        let mut examples = 0;
        let commands = std::iter::once(&cli).chain(cli.get_subcommands());
        for command in commands.filter(|command| command.get_name() != "help") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<_> =
                help.lines().filter(|line| line.starts_with("  ") && line.contains("atelico")).collect();
            assert!(!lines.is_empty(), "`{}` has no examples", command.get_name());
            for line in lines {
                let call = &line[line.find("atelico").unwrap()..];
                let call = call.split(" > ").next().unwrap();
                if let Err(error) = Cli::try_parse_from(words(call)) {
                    panic!("{line}: {error}");
                }
                examples += 1;
            }
        }
        assert!(examples >= 14);
    }
}
