//! Public functions over Burn tensors, one file per family.
//!
//! All activations are float32; weights stay in their stored [`Format`](crate::formats::Format).
//! Row indices (`tokens`, `positions`, `slots`) are int32 tensors that live on the device, so that
//! a captured decode step reads fresh values at every replay.

mod activation;
mod assign;
mod attention;
mod conv;
// Dispatch to no backend leaves its arguments unused.
#[cfg_attr(not(feature = "cube"), allow(unused_variables))]
mod decode_attention;
mod delta;
mod gated_norm;
mod interleaved;
pub(crate) mod kv_cache;
#[cfg_attr(not(feature = "cube"), allow(unused_variables))]
mod linear;
mod mamba;
mod moe;
mod norm;
mod read;
mod rope;
mod sample;
mod sigmoid_gate;
mod support;
mod value_embed;
mod weight;

pub(crate) use activation::Gate;
pub use activation::{gelu_mul, gelu_mul_table, relu2, silu_mul};
pub use assign::{assign, int_zeros};
pub use attention::{AttentionSpec, attention};
pub use conv::{ConvSpec, MAX_TAPS, causal_conv};
pub use decode_attention::rope_attention;
pub(crate) use delta::L2_EPS;
pub use delta::{DeltaSpec, delta_rule};
pub use gated_norm::{GateOrder, GatedNormSpec, gated_rms_norm};
pub use kv_cache::{Q8_BLOCK, q8_width};
pub(crate) use kv_cache::{Q8_LARGEST, Q8_MIDDLE};
#[cfg(feature = "cube")]
pub(crate) use linear::MATVEC_ROWS;
pub use linear::{
    Activation, Fusion, Precision, dequantize, embedding, linear, linear_fused, linear_merged, products_take_norm,
};
pub use mamba::{MambaSpec, mamba_scan};
pub use moe::{MoeGatingSpec, MoeRoute, MoeScores, moe_gate, moe_linear, moe_linear_sum};
pub use norm::{add_rms_norm, rms_norm, rms_norm_add};
pub use read::PendingRead;
pub use rope::{KvSource, RopePairing, RopeSpec, rope_append};
pub use sample::IN_PROMPT;
pub use sample::{SAMPLE_PARAMS, SampleOutput, SampleSpec, SampleState, sample};
pub use sigmoid_gate::{GateScope, sigmoid_gate};
#[cfg(feature = "cuda")]
pub use support::cuda_toolkit;
pub use support::{computes, multiplies, prepare, stores};
pub use value_embed::add_value_embeds;
pub use weight::{MatrixSpec, Weight, is_cpu};

#[cfg(feature = "cube")]
pub(crate) use activation::ActivationOps;
#[cfg(feature = "cube")]
pub(crate) use assign::AssignOps;
#[cfg(feature = "cube")]
pub(crate) use attention::AttentionOps;
#[cfg(feature = "cube")]
pub(crate) use conv::ConvOps;
#[cfg(feature = "cube")]
pub(crate) use decode_attention::DecodeAttentionOps;
#[cfg(feature = "cube")]
pub(crate) use delta::DeltaOps;
#[cfg(feature = "cube")]
pub(crate) use gated_norm::GatedNormOps;
#[cfg(feature = "cube")]
pub(crate) use linear::{FusedLinearOps, FusionSpec, LinearOps};
#[cfg(feature = "cube")]
pub(crate) use mamba::MambaOps;
pub(crate) use moe::MoeProduct;
#[cfg(feature = "cube")]
pub(crate) use moe::{MoeOps, MoeSum, MoeTerms};
#[cfg(feature = "cube")]
pub(crate) use norm::NormOps;
#[cfg(feature = "cube")]
pub(crate) use rope::RopeOps;
#[cfg(feature = "cube")]
pub(crate) use sample::SampleOps;
#[cfg(feature = "cube")]
pub(crate) use sigmoid_gate::SigmoidGateOps;
#[cfg(feature = "cube")]
pub(crate) use value_embed::ValueEmbedOps;
