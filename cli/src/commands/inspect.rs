//! `atelico inspect`.

use std::collections::BTreeMap;

use atelico_engine::Error;
use atelico_engine::text::{ChatTemplate, Tokenizer};
use atelico_engine::weights::{Checkpoint, TensorSummary};
use clap::Args;
use serde_json::{Value, json};

use super::models::architecture;
use crate::error::CliError;
use crate::model;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  atelico inspect
  atelico inspect meta-llama/Llama-3.2-1B-Instruct
  atelico inspect ./model-Q4_K_M.gguf --format json";

/// Arguments of `atelico inspect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// A checkpoint's folder, a .gguf file or an id in the cache [default: the small built-in model]
    #[arg(value_name = "PATH|ID")]
    model: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let located = model::locate(args.model.as_deref())?;
    let checkpoint = Checkpoint::open(&located.path).map_err(Error::from)?;
    let tensors: Vec<_> = checkpoint.summaries().collect();
    // A checkpoint whose text side is damaged still has tensors to look at: the error is shown.
    let tokenizer = read_tokenizer(&checkpoint).map_err(|error| error.to_string());
    let template = read_template(&checkpoint).map_err(|error| error.to_string());
    match args.format {
        Format::Json => {
            let rows: Vec<_> = tensors.iter().map(tensor_json).collect();
            output::print_json(&json!({
                "model": located.name,
                "path": located.path,
                "architecture": architecture(&checkpoint),
                "parameters": checkpoint.parameters(),
                "format": checkpoint.main_format(),
                "weight_bytes": checkpoint.weight_bytes(),
                "config": checkpoint.config(),
                "generation_config": checkpoint.generation_config(),
                "tokenizer": tokenizer.as_ref().map_or_else(error_json, |found| found.as_ref().map_or(Value::Null, tokenizer_json)),
                "chat_template": template.as_ref().map_or_else(error_json, |found| found.as_ref().map_or(Value::Null, |template| json!(template.source()))),
                "tensors": rows,
            }))
        }
        Format::Text => {
            let mut text = summary_text(&located.name, &checkpoint, &tensors);
            text.push_str(&format!("\nconfig\n{}\n", pretty(checkpoint.config())));
            if let Some(config) = checkpoint.generation_config() {
                text.push_str(&format!("\ngeneration config\n{}\n", pretty(config)));
            }
            text.push_str("\ntokenizer\n");
            text.push_str(&match &tokenizer {
                Ok(Some(tokenizer)) => tokenizer_text(tokenizer),
                Ok(None) => "none\n".to_owned(),
                Err(error) => format!("error: {}\n", output::printable(error)),
            });
            text.push_str("\nchat template\n");
            text.push_str(&match &template {
                // Line breaks stay: it is a program to be read.
                Ok(Some(template)) => template.source().lines().map(|line| output::printable(line) + "\n").collect(),
                Ok(None) => "none\n".to_owned(),
                Err(error) => format!("error: {}\n", output::printable(error)),
            });
            text.push_str("\ntensors\n");
            text.push_str(&tensors_text(&tensors));
            output::print(&text)
        }
    }
}

fn read_tokenizer(checkpoint: &Checkpoint) -> Result<Option<Tokenizer>, Error> {
    match (checkpoint.gguf(), checkpoint.folder()) {
        (Some(metadata), _) => Tokenizer::from_gguf(metadata),
        (None, Some(folder)) => Tokenizer::from_folder(folder),
        (None, None) => Ok(None),
    }
}

fn read_template(checkpoint: &Checkpoint) -> Result<Option<ChatTemplate>, Error> {
    match (checkpoint.gguf(), checkpoint.folder()) {
        (Some(metadata), _) => ChatTemplate::from_gguf(metadata),
        (None, Some(folder)) => ChatTemplate::from_folder(folder),
        (None, None) => Ok(None),
    }
}

fn error_json(error: &String) -> Value {
    json!({"error": error})
}

fn tensor_json(tensor: &TensorSummary<'_>) -> Value {
    let TensorSummary { name, dtype, shape, bytes } = tensor;
    json!({"name": name, "format": dtype.name(), "shape": shape, "bytes": bytes})
}

fn tokenizer_json(tokenizer: &Tokenizer) -> Value {
    json!({
        "vocab_size": tokenizer.vocab_size(),
        "bos_token": tokenizer.bos_token(),
        "bos_token_id": tokenizer.bos_token_id(),
        "eos_token": tokenizer.eos_token(),
        "eos_token_ids": tokenizer.eos_token_ids(),
    })
}

fn tokenizer_text(tokenizer: &Tokenizer) -> String {
    let token = |text: Option<&str>| text.map_or_else(|| "none".to_owned(), output::printable);
    let ids: Vec<_> = tokenizer.eos_token_ids().iter().map(ToString::to_string).collect();
    format!(
        "vocabulary  {} tokens\nbos         {}\neos         {}\nends with   {}\n",
        tokenizer.vocab_size(),
        token(tokenizer.bos_token()),
        token(tokenizer.eos_token()),
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") },
    )
}

fn summary_text(name: &str, checkpoint: &Checkpoint, tensors: &[TensorSummary<'_>]) -> String {
    let mut by_format: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for tensor in tensors {
        let (count, bytes) = by_format.entry(tensor.dtype.name()).or_default();
        *count += 1;
        *bytes += tensor.bytes;
    }
    let formats: Vec<_> = by_format
        .iter()
        .map(|(format, (count, bytes))| format!("{format} × {count} ({})", output::human_bytes(*bytes)))
        .collect();
    format!(
        "{}\narchitecture  {}\nparameters    {}\nformat        {}\nweights       {} in {} tensors: {}\n",
        output::printable(name),
        output::printable(&architecture(checkpoint)),
        output::human_count(checkpoint.parameters()),
        checkpoint.main_format(),
        output::human_bytes(checkpoint.weight_bytes()),
        tensors.len(),
        formats.join(", "),
    )
}

/// Indented JSON, in which serde escapes control characters but DEL and C1.
fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    let mut shown = String::with_capacity(text.len());
    for line in text.lines() {
        shown.push_str(&output::printable(line));
        shown.push('\n');
    }
    shown.truncate(shown.trim_end().len());
    shown
}

fn tensors_text(tensors: &[TensorSummary<'_>]) -> String {
    let rows: Vec<_> = tensors
        .iter()
        .map(|tensor| {
            let shape: Vec<_> = tensor.shape.iter().map(ToString::to_string).collect();
            [
                output::printable(tensor.name),
                tensor.dtype.name().to_owned(),
                format!("[{}]", shape.join(", ")),
                output::human_bytes(tensor.bytes),
            ]
        })
        .collect();
    output::table(&rows, [false, false, false, true])
}
