//! `atelico models`.

use std::time::SystemTime;

use atelico_engine::cache::{Cache, CachedModel};
use atelico_engine::weights::{Checkpoint, WeightError};
use clap::Args;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  atelico models
  ATELICO_CACHE_DIR=./models atelico models --format json";

/// Arguments of `atelico models`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ModelsArgs {
    /// How to print the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What the list says about a model.
struct Entry {
    model: CachedModel,
    /// Its header, or why it can't be read.
    summary: Result<Summary, WeightError>,
}

struct Summary {
    architecture: String,
    /// Whether this build can run it.
    supported: bool,
    parameters: u64,
    format: String,
}

pub(crate) fn run(args: &ModelsArgs) -> Result<(), CliError> {
    let cache = Cache::from_env()?;
    let entries: Vec<Entry> = cache
        .list()?
        .into_iter()
        .map(|model| Entry { summary: Checkpoint::open(&model.path).map(|checkpoint| summarize(&checkpoint)), model })
        .collect();
    match args.format {
        Format::Json => {
            let models: Vec<_> = entries.iter().map(entry_json).collect();
            output::print_json(&json!({"cache": cache.root(), "models": models}))
        }
        Format::Text if entries.is_empty() => output::print(&format!("no models in {}\n", cache.root().display())),
        Format::Text => output::print(&entries_text(&entries)),
    }
}

fn summarize(checkpoint: &Checkpoint) -> Summary {
    Summary {
        architecture: architecture(checkpoint),
        supported: atelico_models::describe(checkpoint).is_ok(),
        parameters: checkpoint.parameters(),
        format: checkpoint.main_format(),
    }
}

/// The architecture's name; of one that this build does not know, the name that its config gives.
pub(super) fn architecture(checkpoint: &Checkpoint) -> String {
    let config = checkpoint.config();
    let stated = || config.get("model_type").or_else(|| config.get("architectures")?.get(0))?.as_str();
    match atelico_models::describe(checkpoint) {
        Ok(name) => name.to_owned(),
        Err(_) => stated().unwrap_or("unknown").to_owned(),
    }
}

fn entry_json(entry: &Entry) -> Value {
    let CachedModel { id, path, bytes, modified } = &entry.model;
    let modified = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    match &entry.summary {
        Ok(Summary { architecture, supported, parameters, format }) => json!({
            "id": id, "path": path, "bytes": bytes, "modified": modified,
            "architecture": architecture, "supported": supported, "parameters": parameters, "format": format,
        }),
        Err(error) => json!({
            "id": id, "path": path, "bytes": bytes, "modified": modified, "error": error.to_string(),
        }),
    }
}

fn entries_text(entries: &[Entry]) -> String {
    let header = ["MODEL", "ARCHITECTURE", "PARAMETERS", "FORMAT", "SIZE"].map(str::to_owned);
    let row = |entry: &Entry| {
        let id = output::printable(&entry.model.id);
        let size = output::human_bytes(entry.model.bytes);
        match &entry.summary {
            Ok(Summary { architecture, supported, parameters, format }) => {
                let unsupported = if *supported { "" } else { " (not supported)" };
                let architecture = output::printable(architecture) + unsupported;
                [id, architecture, output::human_count(*parameters), format.clone(), size]
            }
            Err(_) => [id, "damaged".into(), String::new(), String::new(), size],
        }
    };
    let rows: Vec<_> = std::iter::once(header).chain(entries.iter().map(row)).collect();
    let mut text = output::table(&rows, [false, false, true, false, true]);
    for entry in entries {
        if let Err(error) = &entry.summary {
            let line = format!("damaged: {}: {error}", entry.model.id);
            text.push_str(&output::printable(&line));
            text.push('\n');
        }
    }
    text
}
