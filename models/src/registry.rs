//! Which architectures this build knows and how a checkpoint names them.

use atelico_engine::config::Config;
use atelico_engine::load::Weights;
use atelico_engine::model::LanguageModel;
use atelico_engine::{Error, Result};

use crate::llm;

/// Loads a language model of one architecture.
pub(crate) type Loader = fn(&Config<'_>, &Weights<'_>) -> Result<Box<dyn LanguageModel>>;

/// One architecture.
pub(crate) struct Architecture {
    /// Name shown to users.
    pub(crate) name: &'static str,
    /// `architectures[0]` of its `config.json`, or `_class_name` where that is absent.
    pub(crate) class: &'static str,
    /// `model_type` of its `config.json`, or `general.architecture` of its GGUF, or
    /// `model_class_name` where both are absent.
    pub(crate) model_types: &'static [&'static str],
    pub(crate) load: Loader,
}

/// A new architecture is one file under `llm/` and one line here.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "gemma4",
        class: "Gemma4ForConditionalGeneration",
        model_types: &["gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"],
        load: llm::gemma4::load,
    },
    Architecture { name: "llama", class: "LlamaForCausalLM", model_types: &["llama"], load: llm::llama::load },
    Architecture { name: "mistral", class: "MistralForCausalLM", model_types: &["mistral"], load: llm::mistral::load },
    Architecture { name: "parcae", class: "ParcaeConfig", model_types: &["Parcae"], load: llm::parcae::load },
    Architecture {
        name: "nemotron_h",
        class: "NemotronHForCausalLM",
        model_types: &["nemotron_h", "nemotron_h_moe"],
        load: llm::nemotron_h::load,
    },
    Architecture { name: "qwen3", class: "Qwen3ForCausalLM", model_types: &["qwen3"], load: llm::qwen3::load },
    Architecture {
        name: "qwen3_5",
        class: "Qwen3_5ForConditionalGeneration",
        model_types: &["qwen3_5", "qwen3_5_text", "qwen35"],
        load: llm::qwen35::load,
    },
    Architecture {
        name: "qwen3_5_moe",
        class: "Qwen3_5MoeForConditionalGeneration",
        model_types: &["qwen3_5_moe", "qwen3_5_moe_text", "qwen35moe"],
        load: llm::qwen35::load,
    },
    Architecture { name: "smollm3", class: "SmolLM3ForCausalLM", model_types: &["smollm3"], load: llm::smollm3::load },
];

/// The architecture that `config` names: by class, else by model type.
///
/// # Errors
/// [`Error::UnknownArchitecture`] listing those known.
pub(crate) fn detect(config: &Config<'_>) -> Result<&'static Architecture> {
    let class = config.value("architectures").and_then(|v| v.get(0)).and_then(|v| v.as_str());
    let class = class.or_else(|| config.str("_class_name"));
    let model_type = config.str("model_type").or_else(|| config.str("model_class_name"));
    ARCHITECTURES
        .iter()
        .find(|a| class == Some(a.class))
        .or_else(|| ARCHITECTURES.iter().find(|a| model_type.is_some_and(|t| a.model_types.contains(&t))))
        .ok_or_else(|| Error::UnknownArchitecture {
            found: class.or(model_type).unwrap_or("(none named)").into(),
            known: ARCHITECTURES.iter().map(|a| a.name).collect::<Vec<_>>().join(", "),
        })
}
