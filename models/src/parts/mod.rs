//! Parts that several architectures share.

mod attention;
mod decoder;
mod mlp;
mod residual;

pub(crate) use attention::{Attention, AttentionConfig};
pub(crate) use decoder::{Decoder, DecoderConfig, LayerConfig};
pub(crate) use mlp::SwiGlu;
pub(crate) use residual::Residual;
