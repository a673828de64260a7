//! Qwen 3 (Alibaba, 2025): LLaMA's block with a norm on every query and key head.
//!
//! Reference: transformers `modeling_qwen3.py`.

use atelico_engine::config::Config;
use atelico_engine::load::Weights;
use atelico_engine::model::LanguageModel;
use atelico_engine::{Error, Result};

use crate::parts::{Decoder, DecoderConfig, LayerConfig};

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    if config.flag_or("use_sliding_window", false)? {
        let problem = "is true; no released Qwen 3 uses it, and it is not supported";
        return Err(Error::Config { key: "use_sliding_window".into(), problem: problem.into() });
    }
    let layer = |_| LayerConfig { qk_norm: true, ..LayerConfig::default() };
    Ok(Box::new(Decoder::load(DecoderConfig::from_config(config)?, weights, layer)?))
}
