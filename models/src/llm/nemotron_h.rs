//! Nemotron-H, Nemotron Nano v2 and Nemotron 3 (NVIDIA, 2025): a stack of single mixers, each Mamba2,
//! attention without positions, an MLP or a mixture of experts.
//!
//! Every width comes from the config, so a model cut out of an elastic checkpoint is a model like any
//! other. Reference: transformers `modeling_nemotron_h.py`.

mod moe;

use atelico_engine::config::Config;
use atelico_engine::load::{Placement, Weights};
use atelico_engine::model::{LanguageModel, LogitRows, Step};
use atelico_engine::nn::{Embedding, Linear, RmsNorm, Rope, RopeConfig, RopeScaling};
use atelico_engine::state::{DecodeState, KvCache, LayerState};
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{KvSource, RopePairing};
use burn::tensor::Tensor;
use serde_json::Value;

use crate::parts::{Attention, AttentionConfig, Mamba2, Mamba2Config, Relu2Mlp};

use self::moe::Moe;

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    Ok(Box::new(NemotronH::load(config, weights)?))
}

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mamba,
    Attention,
    Mlp,
    Moe,
}

/// The layers, in any of three spellings. The list's length counts, not `num_hidden_layers`.
fn layer_kinds(config: &Config<'_>) -> Result<Vec<Kind>> {
    let refuse = |key: &str, found: &dyn std::fmt::Display, known: &str| {
        let problem = format!("has a layer `{found}`; known: {known}");
        Err(Error::Config { key: key.into(), problem })
    };
    if let Some(pattern) = config.str("hybrid_override_pattern") {
        let kind = |symbol| match symbol {
            'M' => Ok(Kind::Mamba),
            '*' => Ok(Kind::Attention),
            '-' => Ok(Kind::Mlp),
            'E' => Ok(Kind::Moe),
            other => refuse("hybrid_override_pattern", &other, "M, *, -, E"),
        };
        return pattern.chars().map(kind).collect();
    }
    let Some(list) = config.value("layers_block_type").and_then(Value::as_array) else {
        let problem = "is missing, and so is layers_block_type".into();
        return Err(Error::Config { key: "hybrid_override_pattern".into(), problem });
    };
    let kind = |name: &Value| match name.as_str() {
        Some("mamba" | "linear_attention") => Ok(Kind::Mamba),
        Some("attention" | "full_attention") => Ok(Kind::Attention),
        Some("mlp") => Ok(Kind::Mlp),
        Some("moe") => Ok(Kind::Moe),
        _ => refuse("layers_block_type", name, "mamba, linear_attention, attention, full_attention, mlp, moe"),
    };
    list.iter().map(kind).collect()
}

/// Refuses an activation other than the one that every release has.
fn check_activation(config: &Config<'_>, key: &str, known: &str) -> Result<()> {
    match config.str(key) {
        Some(other) if other != known => {
            let problem = format!("is `{other}`; this architecture is known with `{known}`");
            Err(Error::Config { key: key.into(), problem })
        }
        _ => Ok(()),
    }
}

/// Epsilon of every norm; some files spell its key in the second way only.
fn norm_eps(config: &Config<'_>) -> Result<f64> {
    let key = if config.value("layer_norm_epsilon").is_some() { "layer_norm_epsilon" } else { "norm_eps" };
    config.positive_or(key, 1e-5)
}

fn attention_config(config: &Config<'_>, hidden_size: usize) -> Result<AttentionConfig> {
    let num_attention_heads = config.size("num_attention_heads")?;
    // The first releases know the second key only.
    let key = if config.value("head_dim").is_some() { "head_dim" } else { "attention_head_dim" };
    let head_dim = config.size(key)?;
    Ok(AttentionConfig {
        hidden_size,
        num_attention_heads,
        num_key_value_heads: config.size_or("num_key_value_heads", num_attention_heads)?,
        head_dim,
        // Whatever rope_theta and partial_rotary_factor say: nothing is rotated.
        pairing: RopePairing::None,
        qk_norm_eps: None,
        sliding_window: None,
        scale: (head_dim as f32).powf(-0.5),
        kv: KvSource::Projected,
        norm_offset: 0.0,
        output_gate: false,
    })
}

fn mamba_config(config: &Config<'_>, hidden_size: usize) -> Result<Mamba2Config> {
    Ok(Mamba2Config {
        hidden_size,
        // Their product is the inner width; `expand` is not.
        num_heads: config.size("mamba_num_heads")?,
        head_dim: config.size("mamba_head_dim")?,
        n_groups: config.size("n_groups")?,
        state_size: config.size("ssm_state_size")?,
        conv_kernel: config.size("conv_kernel")?,
        norm_eps: norm_eps(config)?,
    })
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of these a layer")]
enum Mixer {
    Mamba(Mamba2),
    Attention(Attention),
    Mlp(Relu2Mlp),
    Moe(Moe),
}

#[derive(Debug)]
struct Layer {
    norm: RmsNorm,
    mixer: Mixer,
}

#[derive(Debug)]
struct NemotronH {
    embeddings: Embedding,
    layers: Vec<Layer>,
    norm_f: RmsNorm,
    lm_head: Linear,
    vocab_size: usize,
    attention: AttentionConfig,
    mamba: Mamba2Config,
    placement: Placement,
}

impl NemotronH {
    fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Self> {
        check_activation(config, "mlp_hidden_act", "relu2")?;
        check_activation(config, "mamba_hidden_act", "silu")?;
        let (vocab_size, hidden_size) = (config.size("vocab_size")?, config.size("hidden_size")?);
        let eps = norm_eps(config)?;
        let attention = attention_config(config, hidden_size)?;
        let mamba = mamba_config(config, hidden_size)?;
        let placement = weights.placement().clone();
        let model = match weights.contains("backbone.embeddings.weight") {
            true => weights.at("backbone"),
            false => weights.at("model"),
        };
        // Attention takes a table even where it reads none.
        let no_rope = RopeConfig { theta: 1.0, scaling: RopeScaling::Default };
        let rope = Rope::new(&no_rope, attention.head_dim, None, 1, &placement.device);
        let embeddings = model.embedding("embeddings", vocab_size, hidden_size)?;
        let layers = layer_kinds(config)?
            .into_iter()
            .enumerate()
            .map(|(index, kind)| {
                let weights = model.at("layers").at(index);
                let norm = weights.rms_norm("norm", hidden_size, eps)?;
                let weights = weights.at("mixer");
                let mixer = match kind {
                    Kind::Mamba => Mixer::Mamba(Mamba2::load(&mamba, &weights)?),
                    Kind::Attention => Mixer::Attention(Attention::load(&attention, &rope, &weights)?),
                    Kind::Mlp => Mixer::Mlp(Relu2Mlp::load(hidden_size, config.size("intermediate_size")?, &weights)?),
                    Kind::Moe => Mixer::Moe(Moe::load(config, hidden_size, &weights)?),
                };
                Ok(Layer { norm, mixer })
            })
            .collect::<Result<Vec<_>>>()?;
        let norm_f = model.rms_norm("norm_f", hidden_size, eps)?;
        let lm_head = match config.flag_or("tie_word_embeddings", false)? {
            true => embeddings.tied_head(placement.precision),
            false => weights.linear("lm_head", vocab_size, hidden_size)?,
        };
        Ok(Self { embeddings, layers, norm_f, lm_head, vocab_size, attention, mamba, placement })
    }
}

impl LanguageModel for NemotronH {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn new_state(&self) -> Result<DecodeState> {
        let AttentionConfig { num_key_value_heads, head_dim, .. } = self.attention;
        let state = |layer: &Layer| match layer.mixer {
            Mixer::Mamba(_) => Ok(LayerState::Recurrent(self.mamba.new_state(&self.placement))),
            Mixer::Attention(_) => KvCache::new(num_key_value_heads, head_dim, &self.placement).map(LayerState::Kv),
            Mixer::Mlp(_) | Mixer::Moe(_) => Ok(LayerState::Stateless),
        };
        Ok(DecodeState { layers: self.layers.iter().map(state).collect::<Result<_>>()? })
    }

    fn forward(&self, step: &Step, state: &mut DecodeState) -> Tensor<2> {
        let mut residual = self.embeddings.forward(step.tokens.clone()); // [m, hidden_size]
        for (Layer { norm, mixer }, memory) in self.layers.iter().zip(&mut state.layers) {
            residual = match mixer {
                Mixer::Mamba(mamba) => mamba.forward_residual(residual, norm, step, memory.recurrent()),
                Mixer::Attention(attention) => attention.forward_residual(residual, norm, step, memory.kv()),
                Mixer::Mlp(mlp) => mlp.forward_add(residual.clone(), Some(norm), residual),
                Mixer::Moe(moe) => moe.forward_residual(residual, norm),
            };
        }
        if step.logits == LogitRows::Last {
            let m = residual.dims()[0];
            residual = residual.narrow(0, m - 1, 1);
        }
        self.lm_head.forward_normed(residual, Some(&self.norm_f)) // [rows, vocab_size]
    }
}
