//! Keeps compiled kernels and tuned choices from run to run, in CubeCL's database of them.

use std::path::{Path, PathBuf};

/// Has compiled kernels and tuned choices kept in a database below `root`, one per `version`; inside
/// it, devices and builds of this program are told apart. Returns the database's path; nothing is
/// opened before a GPU is.
///
/// Takes effect only before the first GPU is opened, and only once: `None` when CubeCL is configured
/// already, and in builds without a GPU's backend. Where the folder can't be written,
/// kernels are kept for the length of the process.
pub fn keep_below(root: &Path, version: &str) -> Option<PathBuf> {
    #[cfg(feature = "cube")]
    {
        use cubecl::config::cache::CacheConfig;
        use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

        // What CubeCL reads from the environment still counts; a cubecl.toml in the folder that a
        // player's program happens to start in does not.
        let mut config = CubeClRuntimeConfig::default().override_from_env();
        config.compilation.cache = true;
        config.environment.path = CacheConfig::Directory(root.to_owned());
        // Choices that were tuned with less care must not stand for better ones.
        config.environment.name = format!("{version}-{:?}", config.autotune.level).to_lowercase();
        let database = root.join(cubecl::environment::file_name(&config.environment.name));
        CubeClRuntimeConfig::try_set(config).then_some(database)
    }
    #[cfg(not(feature = "cube"))]
    {
        let _ = (root, version);
        None
    }
}
