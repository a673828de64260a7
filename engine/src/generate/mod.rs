//! From a loaded model to tokens: the decode step, its captured graphs, and the thread that runs
//! requests through them.

pub(crate) mod graph;
mod prefix;
mod request;
mod runner;
mod worker;

pub use worker::{Ready, start};
