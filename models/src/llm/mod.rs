//! Language models, one file per architecture.

pub(crate) mod gemma4;
pub(crate) mod llama;
pub(crate) mod mistral;
pub(crate) mod nemotron_h;
pub(crate) mod parcae;
pub(crate) mod qwen3;
pub(crate) mod qwen35;
pub(crate) mod smollm3;
