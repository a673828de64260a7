//! The config of a Parcae model, as `config.json` has it.

use atelico_engine::config::Config;
use atelico_engine::{Error, Result};

/// Settings and the values that are known of them. Others change the arithmetic, and no released
/// model has them.
const KNOWN: [(&str, &[&str]); 8] = [
    ("block_class_name", &["TransformerPreNormBlock"]),
    ("norm_class_name", &["RMSNorm"]),
    ("mlp_class_name", &["BaseMLP"]),
    ("nonlin_name", &["ReLU2"]),
    ("injection_type", &["diagonal"]),
    // Those without a scale on embeddings or logits.
    ("init_strategy", &["scaled-zero", "scaled", "scaled-geiping", "small"]),
    ("use_fused_head", &["pytorch", "cce"]),
    // How the official code draws the loop's first state; see the model.
    ("state_init", &["zero", "like-init", "normal", "embed", "unit"]),
];

/// Switches that must be off, for the same reason.
const OFF: [&str; 3] = ["bias", "qk_bias", "use_abacus"];
/// Settings that must be absent or null.
const NULL: [&str; 3] = ["logit_softcap", "clip_qkv", "randomize_positions_from"];

/// Shape of a stack of blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockConfig {
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) head_dim: usize,
    pub(super) norm_eps: f64,
    pub(super) qk_norm: bool,
}

/// A Parcae model.
#[derive(Clone, Debug)]
pub(super) struct ParcaeConfig {
    /// Rows of the embeddings and logits.
    pub(super) padded_vocab_size: usize,
    /// Positions that the stored rotary table covers.
    pub(super) block_size: usize,
    pub(super) rope_base: f64,
    /// Blocks of the prelude and the coda.
    pub(super) outer: BlockConfig,
    /// Blocks of the core.
    pub(super) core: BlockConfig,
    pub(super) n_layers_in_prelude: usize,
    pub(super) n_layers_in_recurrent_block: usize,
    pub(super) n_layers_in_coda: usize,
    /// Times that the core runs.
    pub(super) mean_recurrence: usize,
    pub(super) prelude_norm: bool,
    pub(super) tie_embeddings: bool,
}

impl ParcaeConfig {
    pub(super) fn from_config(config: &Config<'_>) -> Result<Self> {
        check_known(config)?;
        let n_embd = config.size("n_embd")?;
        let heads = config.size("num_attention_heads")?;
        let outer = BlockConfig {
            hidden_size: n_embd,
            intermediate_size: config.size_or("intermediate_size", 4 * n_embd)?,
            num_attention_heads: heads,
            num_key_value_heads: config.size_or("num_key_value_heads", heads)?,
            head_dim: head_dim(n_embd, heads, "num_attention_heads")?,
            norm_eps: config.positive_or("norm_eps", 1e-5)?,
            qk_norm: config.flag_or("qk_norm", false)?,
        };
        let state = config.size("recurrent_embedding_dimension")?;
        let core_heads = config.size_or("recurrent_num_attention_heads", heads)?;
        let core = BlockConfig {
            hidden_size: state,
            intermediate_size: config.size("recurrent_intermediation_embedding_dimension")?,
            num_attention_heads: core_heads,
            num_key_value_heads: core_heads,
            head_dim: head_dim(state, core_heads, "recurrent_num_attention_heads")?,
            ..outer
        };
        if core.head_dim != outer.head_dim {
            let problem =
                format!("makes heads of {}; those of the outer blocks have {}", core.head_dim, outer.head_dim);
            return error("recurrent_num_attention_heads", problem);
        }
        let multiple = config.size_or("padding_multiple", 512)?;
        let rope = Config::new(config.value("rope_settings").unwrap_or(&serde_json::Value::Null));
        if !rope.flag_or("use_rope", true)? || rope.positive_or("rope_condense_ratio", 1.0)? != 1.0 {
            return error("rope_settings", "is known with `use_rope` true and `rope_condense_ratio` 1".into());
        }
        Ok(Self {
            padded_vocab_size: match config.value("padded_vocab_size") {
                Some(_) => config.size("padded_vocab_size")?,
                None => config.size("vocab_size")?.next_multiple_of(multiple),
            },
            block_size: config.size("block_size")?,
            rope_base: rope.positive_or("rope_base", 50_000.0)?,
            outer,
            core,
            n_layers_in_prelude: config.size("n_layers_in_prelude")?,
            n_layers_in_recurrent_block: config.size("n_layers_in_recurrent_block")?,
            n_layers_in_coda: config.size("n_layers_in_coda")?,
            mean_recurrence: config.size("mean_recurrence")?,
            prelude_norm: config.flag_or("prelude_norm", false)?,
            tie_embeddings: config.flag_or("tie_embeddings", false)?,
        })
    }
}

fn check_known(config: &Config<'_>) -> Result<()> {
    for (key, known) in KNOWN {
        match config.value(key) {
            Some(value) if !value.as_str().is_some_and(|v| known.contains(&v)) => {
                return error(key, format!("is {value}; known: {}", known.join(", ")));
            }
            _ => {}
        }
    }
    for key in OFF {
        if config.flag_or(key, false)? {
            return error(key, "is true, which is not supported".into());
        }
    }
    if let Some((key, value)) = NULL.iter().find_map(|key| Some((key, config.value(key)?))) {
        return error(key, format!("is {value}, which is not supported"));
    }
    if config.positive_or("mup_model_scaling_factor", 1.0)? != 1.0 {
        return error("mup_model_scaling_factor", "is not 1, which is not supported".into());
    }
    Ok(())
}

fn head_dim(width: usize, heads: usize, key: &str) -> Result<usize> {
    let dim = width / heads;
    if dim * heads != width || !dim.is_multiple_of(4) || dim > 512 {
        return error(key, format!("is {heads}; width {width} needs heads of a multiple of 4 up to 512"));
    }
    Ok(dim)
}

fn error<T>(key: &str, problem: String) -> Result<T> {
    Err(Error::Config { key: key.into(), problem })
}
