//! Compiled kernels and tuned choices, kept from run to run beside the models.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::cache;

/// The environment variable that names the folder of kept kernels; empty keeps none.
pub const KERNEL_CACHE_VARIABLE: &str = "ATELICO_KERNEL_CACHE_DIR";

/// Whether this process began with kept kernels; `None` where none are kept.
static WARM: OnceLock<Option<bool>> = OnceLock::new();

/// Has kernels kept, unless that was done before; called before a GPU is opened.
///
/// They lie where [`KERNEL_CACHE_VARIABLE`] says, else in the folder `kernels` of the user's cache:
/// `~/.cache/atelico/kernels` on Linux.
pub(crate) fn start() {
    WARM.get_or_init(|| {
        let root = match std::env::var_os(KERNEL_CACHE_VARIABLE) {
            Some(folder) if folder.is_empty() => return None,
            Some(folder) => std::path::absolute(PathBuf::from(folder)).ok()?,
            None => cache::user_folder()?.join("kernels"),
        };
        let database = atelico_kernels::kernel_cache::keep_below(&root, env!("CARGO_PKG_VERSION"))?;
        Some(database.is_file())
    });
}

/// Whether this process found kernels that an earlier one had kept; `None` where none are kept, or no
/// device was opened yet.
pub fn was_warm() -> Option<bool> {
    WARM.get().copied().flatten()
}
