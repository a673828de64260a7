//! Parts that several architectures share.

mod attention;
mod decoder;
mod delta_net;
mod mamba2;
mod mlp;
mod moe;
mod residual;

pub(crate) use attention::{Attention, AttentionConfig};
pub(crate) use decoder::{Decoder, DecoderConfig, LayerConfig};
pub(crate) use delta_net::{DeltaNetConfig, GatedDeltaNet};
pub(crate) use mamba2::{Mamba2, Mamba2Config};
pub(crate) use mlp::{GeGlu, Relu2Mlp, SwiGlu};
pub(crate) use moe::{ExpertActivation, ExpertsConfig, RoutedExperts, Router};
pub(crate) use residual::Residual;
