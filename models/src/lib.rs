//! The architectures that the engine runs, and loading by detection.
//!
//! [`load`] opens a checkpoint, finds its architecture in the registry and starts its thread. A
//! new architecture is one file under `llm/` and one line in `registry.rs`; parts that several
//! share live in `parts/`.

pub mod builtin;
mod llm;
mod load;
mod parts;
mod registry;

pub use load::{describe, load};

/// Names of the architectures that this build knows.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    registry::ARCHITECTURES.iter().map(|a| a.name)
}
