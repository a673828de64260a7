//! OpenAI's wire format: what requests hold, what answers look like.

pub(crate) mod chat;
pub(crate) mod common;
pub(crate) mod completions;
pub(crate) mod messages;
pub(crate) mod models;
