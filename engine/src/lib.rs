//! The engine: from a checkpoint on disk to generated tokens.
//!
//! [`weights`] reads checkpoints, [`text`] turns text into tokens and back, [`nn`] holds the
//! building blocks of a model, [`state`] what a model remembers between tokens, [`generate`] the
//! decode loop, and [`handle`] what callers hold: a loaded model whose thread owns its device.
//! Architectures live in the `atelico-models` crate, on top of this one.

pub mod arithmetic;
pub mod bandwidth;
pub mod cache;
pub mod config;
pub mod device;
mod error;
pub mod generate;
pub mod handle;
pub mod kernel_cache;
pub mod load;
pub mod model;
pub mod nn;
pub mod reasoning;
pub mod state;
pub mod text;
pub mod text_stream;
pub mod weights;

pub use error::{Error, Result};
