//! Parts that several architectures share.

mod attention;
mod decoder;
mod mlp;
mod moe;

pub(crate) use attention::{Attention, AttentionConfig};
pub(crate) use decoder::{Decoder, DecoderConfig, LayerConfig};
pub(crate) use mlp::{GeGlu, SwiGlu};
pub(crate) use moe::{ExpertActivation, RoutedExperts, Router};
