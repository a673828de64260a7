//! The HTTP server: OpenAI's wire format for models that run in this process.
//!
//! A request goes from the listener ([`listener`]: timeouts, connection limits, draining) through
//! the layers of [`app`] to a route in [`routes`], which reads it with the types of [`openai`],
//! finds its model in [`models`], starts one generation per choice ([`choices`]) and sends what
//! comes as events ([`sse`]) or folded into one object: both are the same stream.

mod answer;
mod app;
mod args;
mod choices;
mod error;
mod host;
mod limits;
mod listener;
mod mock;
mod models;
mod openai;
mod params;
mod prompt;
mod routes;
mod sse;
mod write_timeout;

pub use args::{SERVE_EXAMPLES, ServeArgs};
pub use error::{ApiError, ServerError};
pub use listener::serve;
