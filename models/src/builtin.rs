//! The small model that ships in this repository.

use std::path::{Path, PathBuf};

use atelico_engine::{Error, Result};

/// Names the folder of the built-in model where it is not beside the program.
const ENVIRONMENT: &str = "ATELICO_BUILTIN_MODEL";
/// Its folder beside an installed program.
const BESIDE: &str = "atelico-tiny";

/// The folder of the built-in model: what `ATELICO_BUILTIN_MODEL` names, else `atelico-tiny` beside
/// the program, else the source tree that the program was built from.
///
/// # Errors
/// [`Error::Model`] when it is at none of these places.
pub fn path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(ENVIRONMENT) {
        return Ok(path.into());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(BESIDE)));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(BESIDE);
    [beside, Some(source)].into_iter().flatten().find(|p| p.join("config.json").is_file()).ok_or_else(|| {
        let problem = format!("not found; put it beside the program or name its folder in {ENVIRONMENT}");
        Error::Model { id: BESIDE.into(), problem }
    })
}
