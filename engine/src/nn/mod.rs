//! The parts that models are made of. Each holds its weights as the checkpoint stores them and
//! runs on any device.

mod embedding;
mod experts;
mod linear;
mod norm;
mod rope;

pub use embedding::Embedding;
pub use experts::Experts;
pub use linear::Linear;
pub use norm::RmsNorm;
pub use rope::{Rope, RopeConfig, RopeScaling};
