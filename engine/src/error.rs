//! The engine's error type.

use std::path::PathBuf;

/// Everything that can go wrong between a checkpoint on disk and a generated token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or mapped.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A weight file (GGUF, safetensors) is damaged or not of the expected form.
    #[error(transparent)]
    Weights(#[from] crate::weights::WeightError),
    /// `config.json` or the GGUF metadata lacks or mis-states something the model needs.
    #[error("config: `{key}` {problem}")]
    Config {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// The checkpoint's architecture is not one that this build knows.
    #[error("unknown architecture `{found}`; known: {known}")]
    UnknownArchitecture {
        /// The name found in the checkpoint.
        found: String,
        /// The names this build knows, comma-separated.
        known: String,
    },
    /// The tokenizer could not be read or built, or text could not be tokenized.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template failed to compile or render.
    #[error("chat template: {0}")]
    Template(String),
    /// The prompt does not fit the context.
    #[error("the prompt holds {prompt_tokens} tokens and exceeds the context of {context} tokens")]
    ContextExceeded {
        /// Tokens in the prompt.
        prompt_tokens: usize,
        /// Tokens that the context holds.
        context: usize,
    },
    /// The device asked for is not compiled in or not present.
    #[error("device `{asked}`: {problem}; available: {available}")]
    Device {
        /// The device as the caller named it.
        asked: String,
        /// Why it can't be used.
        problem: String,
        /// What can be used.
        available: String,
    },
    /// A request parameter is out of range.
    #[error("`{name}` {problem}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The device failed while computing.
    #[error("device failure: {0}")]
    Compute(String),
    /// The model's logits were NaN or infinite.
    #[error("the model produced logits that are not finite at position {position}")]
    NonFinite {
        /// Position of the token whose logits failed.
        position: usize,
    },
    /// Too many requests wait already.
    #[error("the queue of {limit} requests is full")]
    QueueFull {
        /// Requests that may wait.
        limit: usize,
    },
    /// The engine thread has ended.
    #[error("the engine has stopped")]
    Stopped,
    /// A model id that is not in the cache, or no valid id.
    #[error("model `{id}`: {problem}")]
    Model {
        /// The id as the caller named it.
        id: String,
        /// What is wrong.
        problem: String,
    },
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
