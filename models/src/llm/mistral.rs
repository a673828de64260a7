//! Mistral 7B and Nemo (Mistral AI, 2023 and 2024): LLaMA's block with an optional sliding window.
//!
//! A GGUF names no window and is of the architecture `llama`. Reference: transformers
//! `modeling_mistral.py`.

use atelico_engine::Result;
use atelico_engine::config::Config;
use atelico_engine::load::Weights;
use atelico_engine::model::LanguageModel;

use crate::parts::{Decoder, DecoderConfig, LayerConfig};

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    let sliding_window = match config.value("sliding_window") {
        Some(_) => Some(config.size("sliding_window")?),
        None => None,
    };
    let layer = |_| LayerConfig { sliding_window, ..LayerConfig::default() };
    Ok(Box::new(Decoder::load(DecoderConfig::from_config(config)?, weights, layer)?))
}
