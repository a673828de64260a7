//! From the MODEL argument to a loaded model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atelico_engine::cache::Cache;
use atelico_engine::handle::{LoadOptions, ModelHandle};
use atelico_engine::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::PlacementArgs;
use crate::error::CliError;
use crate::interrupt;

/// Where a model lies and what to call it.
#[derive(Debug)]
pub(crate) struct Located {
    /// The MODEL argument, or the built-in model's name.
    pub(crate) name: String,
    /// The checkpoint's folder or `.gguf` file.
    pub(crate) path: PathBuf,
}

/// Finds MODEL: a path when one exists or the argument can't be anything else, an id in the cache
/// otherwise, the built-in model when it is left out.
pub(crate) fn locate(model: Option<&str>) -> Result<Located> {
    let Some(model) = model else {
        let path = atelico_models::builtin::path()?;
        let name = path.file_name().map_or_else(|| "built-in".into(), |name| name.to_string_lossy().into_owned());
        return Ok(Located { name, path });
    };
    let name = model.to_owned();
    let path = Path::new(model);
    if path.exists() {
        return Ok(Located { name, path: path.to_owned() });
    }
    let is_path = path.is_absolute() || model.contains('\\') || model.starts_with("./") || model.starts_with("../");
    if is_path {
        return Err(Error::Model { id: name, problem: "there is no such file or folder".into() });
    }
    let path = Cache::from_env()?.resolve(model)?;
    Ok(Located { name, path })
}

/// Loads a model with a progress bar on standard error when that is a terminal. Ctrl-C ends the
/// process from here on, except where an answer watches for it.
pub(crate) fn load(located: &Located, placement: &PlacementArgs) -> Result<ModelHandle, CliError> {
    load_with_context(located, placement, placement.context)
}

/// [`load`] with room for `context` tokens.
pub(crate) fn load_with_context(
    located: &Located,
    placement: &PlacementArgs,
    context: Option<usize>,
) -> Result<ModelHandle, CliError> {
    interrupt::install()?;
    // Draws only on terminals.
    let bar = ProgressBar::new(0).with_style(bar_style()).with_message(format!("loading {}", located.name));
    bar.enable_steady_tick(Duration::from_millis(100));
    let shown = bar.clone();
    let options = LoadOptions {
        device: placement.device,
        precision: placement.precision,
        cache: placement.kv_cache,
        context,
        slots: 1,
        progress: Some(Arc::new(move |done, total| {
            shown.set_length(total);
            shown.set_position(done);
        })),
        ..LoadOptions::default()
    };
    let loaded = atelico_models::load(&located.path, &options);
    bar.finish_and_clear();
    Ok(loaded?)
}

fn bar_style() -> ProgressStyle {
    const TEMPLATE: &str = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {elapsed}";
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}
