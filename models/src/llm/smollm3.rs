//! SmolLM3 (Hugging Face, 2025): LLaMA's block, every fourth layer without rotary embedding.
//!
//! Reference: transformers `modeling_smollm3.py`.

use atelico_engine::config::Config;
use atelico_engine::load::Weights;
use atelico_engine::model::LanguageModel;
use atelico_engine::{Error, Result};

use crate::parts::{Decoder, DecoderConfig, LayerConfig};

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    if config.flag_or("use_sliding_window", false)? {
        let problem = "is true; no released SmolLM3 uses it, and it is not supported";
        return Err(Error::Config { key: "use_sliding_window".into(), problem: problem.into() });
    }
    let decoder = DecoderConfig::from_config(config)?;
    // 1 marks a layer with rotary embedding, despite the key's name.
    let listed = config.sizes("no_rope_layers", decoder.num_hidden_layers)?;
    let interval = config.size_or("no_rope_layer_interval", 4)?;
    let layer = |index: usize| {
        let no_rope = match &listed {
            Some(list) => list.get(index) == Some(&0),
            None => (index + 1).is_multiple_of(interval),
        };
        LayerConfig { no_rope, ..LayerConfig::default() }
    };
    Ok(Box::new(Decoder::load(decoder, weights, layer)?))
}
