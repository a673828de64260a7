//! `atelico generate`.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use atelico_engine::handle::{FinishReason, ModelHandle, Request};
use atelico_engine::text_stream::TextOptions;
use clap::Args;
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::args::{ModelArgs, SamplingArgs, TemplateArgs};
use crate::error::CliError;
use crate::output::{self, Format};
use crate::{model, npy};

const EXAMPLES: &str = "\
Examples:
  atelico generate -p \"Once upon a time\"
  atelico generate meta-llama/Llama-3.2-1B -p \"The capital of France is\" --temperature 0
  atelico generate ./model-Q4_K_M.gguf -p \"def fib(n):\" --max-tokens 200 --stop \"def \"
  atelico generate --chat -p \"Who are you?\" --format json
  cat story.txt | atelico generate -p - --seed 7
  atelico generate --prompt-ids 1,15,27 --max-tokens 1 --logits-out logits.npy

The prompt is completed as plain text, with the special tokens that the tokenizer puts in front.
In JSON, `ids` holds the generated tokens without the one that ended the answer, and `logprobs`
per token the --logprobs most likely ones as [id, log-probability].";

/// Arguments of `atelico generate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// The text to complete; `-`, or leaving it out in a pipe, reads standard input
    #[arg(short, long, value_name = "TEXT", conflicts_with = "prompt_ids", allow_hyphen_values = true)]
    prompt: Option<String>,

    /// The prompt as token ids, used as they are
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',')]
    prompt_ids: Option<Vec<u32>>,

    /// Put the prompt into the model's chat template as the user's message
    #[arg(long, conflicts_with = "prompt_ids")]
    chat: bool,

    #[command(flatten)]
    template: TemplateArgs,

    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_tokens: usize,

    /// Go on after the model's end-of-sequence tokens
    #[arg(long)]
    ignore_eos: bool,

    #[command(flatten)]
    sampling: SamplingArgs,

    /// text streams the answer, json prints one object at its end
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    format: Format,

    /// Report the N most likely tokens with every token; needs --format json; at most 20
    #[arg(long, value_name = "N", help_heading = "Output")]
    logprobs: Option<usize>,

    /// Write the float32 logits after the prompt as a NumPy array
    #[arg(long, value_name = "FILE.npy", help_heading = "Output")]
    logits_out: Option<PathBuf>,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<(), CliError> {
    if args.logprobs.is_some() && args.format == Format::Text {
        return Err(CliError::Usage("--logprobs needs --format json".into()));
    }
    if !args.chat && !args.template.kwargs().is_empty() {
        return Err(CliError::Usage("--chat-template-kwargs needs --chat".into()));
    }
    // Everything that can be wrong with the command line comes before the long load.
    args.sampling.check()?;
    let prompt = read_prompt(args)?;
    let located = model::locate(args.model.model.as_deref())?;
    let model = model::load(&located, &args.model.placement)?;
    let prompt_ids = encode(&model, prompt, args)?;
    let request = Request {
        prompt: prompt_ids.clone(),
        max_tokens: Some(args.max_tokens),
        sampling: args.sampling.over(model.generation_defaults()),
        stop_tokens: Vec::new(),
        ignore_eos: args.ignore_eos,
        logprobs: args.logprobs,
        prompt_logits: args.logits_out.is_some(),
        reuse_prefix: false,
    };
    let options = TextOptions { stop_strings: args.sampling.stop.clone(), continues_prompt: !args.chat };
    let streams = args.format == Format::Text;
    let answer = answer::run(&model, request, options, |text| match streams {
        true => output::print(text),
        false => Ok(()),
    })?;
    if let (Some(path), Some(logits)) = (&args.logits_out, &answer.prompt_logits) {
        npy::write_f32(path, logits)?;
    }
    if streams {
        output::print("\n")?;
    }
    let Some((reason, timings)) = answer.end else { return Err(CliError::Interrupted) };
    match args.format {
        Format::Json => output::print_json(&report(&located.name, &model, &prompt_ids, &answer, args.logprobs)),
        Format::Text => {
            let mut terminal = std::io::stderr();
            if terminal.is_terminal() {
                let rate = |tokens: usize, ms: f64| tokens as f64 * 1e3 / ms.max(1e-6);
                // Only a courtesy: the answer has been printed.
                let _ = writeln!(
                    terminal,
                    "[{} prompt tokens, {:.1}/s; {} generated, {:.1}/s; {}]",
                    timings.prompt_tokens,
                    rate(timings.prompt_tokens, timings.prompt_ms),
                    timings.generated_tokens,
                    rate(timings.generated_tokens.saturating_sub(1), timings.decode_ms),
                    finish_reason(reason),
                );
            }
            Ok(())
        }
    }
}

/// A prompt as the command line gives it.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

fn read_prompt(args: &GenerateArgs) -> Result<Prompt, CliError> {
    let mut input = std::io::stdin();
    match (&args.prompt_ids, args.prompt.as_deref()) {
        (Some(ids), _) => Ok(Prompt::Ids(ids.clone())),
        (None, Some(text)) if text != "-" => Ok(Prompt::Text(text.to_owned())),
        (None, None) if input.is_terminal() => {
            Err(CliError::Usage("no prompt; give one with -p TEXT or --prompt-ids, or pipe it in".into()))
        }
        (None, _) => {
            let mut text = String::new();
            input.read_to_string(&mut text).map_err(CliError::Input)?;
            Ok(Prompt::Text(text))
        }
    }
}

fn encode(model: &ModelHandle, prompt: Prompt, args: &GenerateArgs) -> Result<Vec<u32>, CliError> {
    let text = match prompt {
        Prompt::Ids(ids) => return Ok(ids),
        Prompt::Text(text) if !args.chat => return Ok(model.tokenizer()?.encode(&text, true)?),
        Prompt::Text(text) => text,
    };
    let messages = json!([{"role": "user", "content": text}]);
    Ok(super::chat::render(model, &messages, &args.template.kwargs())?.ids)
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn report(name: &str, model: &ModelHandle, prompt_ids: &[u32], answer: &Answer, logprobs: Option<usize>) -> Value {
    let info = model.info();
    let has_tokenizer = model.tokenizer().is_ok();
    let top = || answer.logprobs.iter().map(|token| &token.top).collect::<Vec<_>>();
    let (reason, timings) = answer.end.unzip();
    let timings = timings.unwrap_or_default();
    json!({
        "model": name,
        "architecture": info.architecture,
        "device": info.device,
        "prompt_ids": prompt_ids,
        "ids": answer.ids,
        "text": has_tokenizer.then_some(&answer.text),
        "finish_reason": reason.map(finish_reason),
        "logprobs": logprobs.map(|_| top()),
        "timings": {
            "load_ms": info.load_ms,
            "prompt_tokens": timings.prompt_tokens,
            "prompt_ms": timings.prompt_ms,
            "generated_tokens": timings.generated_tokens,
            "decode_ms": timings.decode_ms,
        },
    })
}
