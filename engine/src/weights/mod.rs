//! Checkpoint readers: Hugging Face folders (safetensors or torch) and GGUF files behind one
//! interface.
//!
//! [`Checkpoint::open`] maps the files and checks every length, offset, shape and type of their
//! headers against the bytes that are there before anything is allocated for them. Tensors are
//! handed out as borrowed bytes in their storage [`Format`], under their Hugging Face names
//! ([`names`] maps those of GGUF); a GGUF's metadata is rewritten as the `config.json` that its
//! model would have had.

mod checkpoint;
mod error;
mod folder;
pub mod gguf;
mod mapped;
mod mlx;
pub mod names;
pub mod safetensors;
mod tensor_info;
pub mod torch;

pub use atelico_kernels::formats::Format;
pub use checkpoint::{Checkpoint, StoredTensor, TensorSummary};
pub use error::WeightError;
pub(crate) use folder::WEIGHT_FILES;
pub use gguf::{GgufArray, GgufMetadata, GgufValue};
pub use tensor_info::{MAX_TENSORS, StoredType, TensorInfo};
