//! LLaMA 3.x (Meta, 2024) and SmolLM2, which is the same architecture.
//!
//! Pre-norm decoder, grouped-query attention, rotary embedding with the `llama3` scaling, SwiGLU.
//! Reference: transformers `modeling_llama.py`.

use atelico_engine::Result;
use atelico_engine::config::Config;
use atelico_engine::load::Weights;
use atelico_engine::model::LanguageModel;

use crate::parts::{Decoder, DecoderConfig, LayerConfig};

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    let config = DecoderConfig::from_config(config)?;
    Ok(Box::new(Decoder::load(config, weights, |_| LayerConfig::default())?))
}
