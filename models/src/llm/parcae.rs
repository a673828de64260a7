//! Parcae (Sandy Research, 2026): a looped transformer whose loop is a stable linear system.
//!
//! A prelude of blocks turns the tokens into `e`; a core of blocks runs `mean_recurrence` times over
//! a state that decays and takes `e` in before every loop; a coda reads the last state. Each loop has
//! keys and values of its own, so a model holds caches for `prelude + loops * core + coda` blocks.
//!
//! The official code starts the loop from a random state (`state_init`). Here it starts from zeros,
//! the mean of every such draw, so that answers repeat; the decay leaves little of the start.
//!
//! Its tokenizer is released in a repository of its own: `tokenizer.json` belongs beside the weights.
//! Reference: <https://github.com/sandyresearch/parcae>, `ModelingParcae.forward_for_generation`.

mod block;
mod config;

use atelico_engine::config::Config;
use atelico_engine::load::{Placement, Weights};
use atelico_engine::model::{LanguageModel, LogitRows, Step};
use atelico_engine::nn::{Embedding, Linear, RmsNorm, Rope, RopeConfig, RopeScaling};
use atelico_engine::state::{DecodeState, KvCache, LayerState};
use atelico_engine::{Error, Result};
use burn::tensor::{DType, Tensor, TensorData};

use self::block::Block;
use self::config::{BlockConfig, ParcaeConfig};
use crate::parts::Residual;

/// What training wrappers put before the names of tensors, outermost first.
const PREFIXES: [&str; 3] = ["module", "_orig_mod", "model"];

pub(crate) fn load(config: &Config<'_>, weights: &Weights<'_>) -> Result<Box<dyn LanguageModel>> {
    Ok(Box::new(Parcae::load(ParcaeConfig::from_config(config)?, &root(weights))?))
}

/// The place of the model's names, behind whichever prefixes the file has.
fn root<'a>(weights: &Weights<'a>) -> Weights<'a> {
    let subsets = (0..1 << PREFIXES.len()).map(|subset: usize| {
        let kept = PREFIXES.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1);
        kept.fold(weights.clone(), |weights, (_, prefix)| weights.at(prefix))
    });
    // A file without the embedding is reported under its plain name.
    subsets.into_iter().find(|root| root.contains("transformer.wte.weight")).unwrap_or_else(|| weights.clone())
}

#[derive(Debug)]
struct Parcae {
    wte: Embedding,
    prelude: Vec<Block>,
    ln_prelude: Option<RmsNorm>,
    adapter: Adapter,
    core_block: Vec<Block>,
    c: Linear,
    coda: Vec<Block>,
    ln_f: RmsNorm,
    lm_head: Linear,
    config: ParcaeConfig,
    placement: Placement,
}

impl Parcae {
    fn load(config: ParcaeConfig, weights: &Weights<'_>) -> Result<Self> {
        let ParcaeConfig { padded_vocab_size, outer, core, .. } = config;
        let placement = weights.placement().clone();
        let transformer = weights.at("transformer");
        let rope = rope(&config, weights)?;
        let wte = transformer.embedding("wte", padded_vocab_size, outer.hidden_size)?;
        // Value embeddings are numbered through prelude, core and coda, the core counted once.
        let mut position = 0;
        let mut blocks = |name: &str, count: usize, config: &BlockConfig| {
            let place = transformer.at(name);
            let block = |index: usize| {
                let embeds = weights.at("value_embeds");
                let value_embed = match embeds.contains(&format!("{position}.weight")) {
                    true => {
                        let width = config.num_key_value_heads * config.head_dim;
                        Some(embeds.embedding(&position.to_string(), padded_vocab_size, width)?)
                    }
                    false => None,
                };
                position += 1;
                Block::load(config, &rope, &place.at(index), value_embed)
            };
            (0..count).map(block).collect::<Result<Vec<_>>>()
        };
        let prelude = blocks("prelude", config.n_layers_in_prelude, &outer)?;
        let core_block = blocks("core_block", config.n_layers_in_recurrent_block, &core)?;
        let coda = blocks("coda", config.n_layers_in_coda, &outer)?;
        let ln_prelude = match config.prelude_norm {
            true => Some(transformer.rms_norm("ln_prelude", outer.hidden_size, outer.norm_eps)?),
            false => None,
        };
        let lm_head = match config.tie_embeddings {
            true => wte.tied_head(placement.precision),
            false => weights.linear("lm_head", padded_vocab_size, outer.hidden_size)?,
        };
        Ok(Self {
            adapter: Adapter::load(core.hidden_size, outer.hidden_size, &transformer.at("adapter"))?,
            c: transformer.linear("C", outer.hidden_size, core.hidden_size)?,
            ln_f: transformer.rms_norm("ln_f", outer.hidden_size, outer.norm_eps)?,
            wte,
            prelude,
            ln_prelude,
            core_block,
            coda,
            lm_head,
            config,
            placement,
        })
    }
}

impl LanguageModel for Parcae {
    fn vocab_size(&self) -> usize {
        self.config.padded_vocab_size
    }

    fn new_state(&self) -> Result<DecodeState> {
        let ParcaeConfig { outer, core, mean_recurrence, .. } = self.config;
        let caches = |blocks: usize, config: &BlockConfig| {
            let (kv_heads, head_dim) = (config.num_key_value_heads, config.head_dim);
            let placement = &self.placement;
            (0..blocks).map(move |_| KvCache::new(kv_heads, head_dim, placement).map(LayerState::Kv))
        };
        let prelude = caches(self.prelude.len(), &outer);
        let core = caches(self.core_block.len() * mean_recurrence, &core);
        let layers = prelude.chain(core).chain(caches(self.coda.len(), &outer));
        Ok(DecodeState { layers: layers.collect::<Result<_>>()? })
    }

    fn forward(&self, step: &Step, state: &mut DecodeState) -> Tensor<2> {
        let (prelude, rest) = state.layers.split_at_mut(self.prelude.len());
        let (core, coda) = rest.split_at_mut(self.core_block.len() * self.config.mean_recurrence);

        let mut x = Residual::new(self.wte.forward(step.tokens.clone())); // [m, n_embd]
        run(&self.prelude, &mut x, &values(&self.prelude, step), step, prelude);
        let embedded = match &self.ln_prelude {
            Some(norm) => x.normed(norm),
            None => x.into_sum(),
        };

        let input = self.adapter.input(embedded); // [m, recurrent_embedding_dimension]
        let values_of_core = values(&self.core_block, step);
        let mut looped = None::<Tensor<2>>;
        for caches in core.chunks_mut(self.core_block.len()) {
            let mut x = Residual::new(match looped {
                Some(state) => self.adapter.decayed(state) + input.clone(),
                // A state of zeros.
                None => input.clone(),
            });
            run(&self.core_block, &mut x, &values_of_core, step, caches);
            looped = Some(x.into_sum());
        }

        let mut x = Residual::new(self.c.forward(looped.unwrap_or(input))); // [m, n_embd]
        run(&self.coda, &mut x, &values(&self.coda, step), step, coda);
        if step.logits == LogitRows::Last {
            x = x.last_row();
        }
        self.lm_head.forward(x.normed(&self.ln_f)) // [rows, padded_vocab_size]
    }
}

/// What the step's tokens add to the values of each block.
fn values(blocks: &[Block], step: &Step) -> Vec<Option<Tensor<2>>> {
    blocks.iter().map(|block| block.value_embeds(step)).collect()
}

fn run(blocks: &[Block], x: &mut Residual, values: &[Option<Tensor<2>>], step: &Step, caches: &mut [LayerState]) {
    for ((block, values), cache) in blocks.iter().zip(values).zip(caches) {
        block.forward(x, values.clone(), step, cache.kv());
    }
}

/// The linear system of the loop: `s = exp(-dt A) s + dt B e`.
#[derive(Debug)]
struct Adapter {
    /// `exp(-dt A)`, `[1, recurrent_embedding_dimension]`.
    decay: Tensor<2>,
    /// `[1, recurrent_embedding_dimension]`.
    dt: Tensor<2>,
    b: Linear,
}

impl Adapter {
    fn load(state: usize, input: usize, weights: &Weights<'_>) -> Result<Self> {
        let softplus = |x: f32| if x > 20.0 { x } else { x.exp().ln_1p() };
        let dt = weights.host_vector("dt_bias", state)?.into_iter().map(softplus).collect::<Vec<_>>();
        let a = weights.host_vector("A_log", state)?;
        let decay = dt.iter().zip(a).map(|(dt, a)| (-dt * a.exp()).exp()).collect::<Vec<_>>();
        let device = &weights.placement().device;
        let row = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [1, state]), (device, DType::F32));
        Ok(Self { decay: row(decay), dt: row(dt), b: weights.parameter("B", state, input)? })
    }

    /// What every loop takes in; e `[m, n_embd]`.
    fn input(&self, e: Tensor<2>) -> Tensor<2> {
        self.b.forward(e) * self.dt.clone()
    }

    /// What a loop keeps of the state `[m, recurrent_embedding_dimension]`.
    fn decayed(&self, state: Tensor<2>) -> Tensor<2> {
        state * self.decay.clone()
    }
}

/// The rotary table: the one stored with the weights, as the reference uses it, else computed.
fn rope(config: &ParcaeConfig, weights: &Weights<'_>) -> Result<Rope> {
    let Placement { context, ref device, .. } = *weights.placement();
    let head_dim = config.outer.head_dim;
    if !weights.contains("freqs_cis") {
        let rope = RopeConfig { theta: config.rope_base, scaling: RopeScaling::Default };
        return Ok(Rope::new(&rope, head_dim, None, context, device));
    }
    if context > config.block_size {
        let problem = format!("is {}; the context holds {context} tokens", config.block_size);
        return Err(Error::Config { key: "block_size".into(), problem });
    }
    // [1, block_size, 1, head_dim / 2, 2]: cosine and sine of each frequency.
    let stored = weights.host_tensor("freqs_cis", &[1, config.block_size, 1, head_dim / 2, 2])?;
    let rows = stored.chunks_exact(head_dim).take(context);
    let table = rows.flat_map(|row| [0, 1].into_iter().flat_map(|part| row[part..].iter().step_by(2).copied()));
    Ok(Rope::from_table(table.collect(), head_dim, device))
}
