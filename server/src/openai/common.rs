//! What chat and text completions share: generation parameters, usage, timings.

use std::time::{SystemTime, UNIX_EPOCH};

use atelico_engine::handle::{FinishReason, SamplingParams, Timings};
use serde::Serialize;

use crate::error::ApiError;
use crate::limits;
use crate::params::{Fields, Neutral};

/// Fields documented by OpenAI or by other local servers that change the answer and that neither
/// endpoint supports, with the values that ask for nothing.
pub(crate) const UNSUPPORTED: &[(&str, Neutral)] = &[
    ("best_of", Neutral::Number(1.0)),
    ("service_tier", Neutral::Text(&["auto", "default"])),
    ("store", Neutral::Bool(false)),
    ("add_generation_prompt", Neutral::Bool(true)),
    ("allowed_token_ids", Neutral::Empty),
    ("bad_words", Neutral::Empty),
    ("chat_template", Neutral::Never),
    ("continue_final_message", Neutral::Bool(false)),
    ("documents", Neutral::Empty),
    ("dry_multiplier", Neutral::Number(0.0)),
    ("dynatemp_range", Neutral::Number(0.0)),
    ("grammar", Neutral::Empty),
    ("guided_choice", Neutral::Never),
    ("guided_grammar", Neutral::Never),
    ("guided_json", Neutral::Never),
    ("guided_regex", Neutral::Never),
    ("include_stop_str_in_output", Neutral::Bool(false)),
    ("json_schema", Neutral::Empty),
    ("length_penalty", Neutral::Number(1.0)),
    ("lora", Neutral::Empty),
    ("min_tokens", Neutral::Number(0.0)),
    ("mirostat", Neutral::Number(0.0)),
    ("n_predict", Neutral::Never),
    ("n_probs", Neutral::Number(0.0)),
    ("no_repeat_ngram_size", Neutral::Number(0.0)),
    ("prompt_logprobs", Neutral::Never),
    ("return_tokens_as_token_ids", Neutral::Bool(false)),
    ("samplers", Neutral::Never),
    ("skip_special_tokens", Neutral::Bool(true)),
    ("structured_outputs", Neutral::Never),
    ("tfs_z", Neutral::Number(1.0)),
    ("top_a", Neutral::Number(0.0)),
    ("truncate_prompt_tokens", Neutral::Never),
    ("typical_p", Neutral::Number(1.0)),
    ("use_beam_search", Neutral::Bool(false)),
    ("xtc_probability", Neutral::Number(0.0)),
];

/// Unsupported parts of `stream_options`.
const UNSUPPORTED_STREAM_OPTIONS: &[(&str, Neutral)] =
    &[("include_obfuscation", Neutral::Bool(false)), ("continuous_usage_stats", Neutral::Bool(false))];

/// How to generate and how to answer.
#[derive(Clone, Debug)]
pub(crate) struct GenerationParams {
    /// The model as the client named it.
    pub(crate) model: String,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) sampling: SamplingOverrides,
    pub(crate) stop: Vec<String>,
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) ignore_eos: bool,
    /// Choices per prompt.
    pub(crate) n: usize,
    /// Rival tokens to report with each token; `None` reports no log-probabilities.
    pub(crate) logprobs: Option<usize>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// The answer goes on with the prompt's text, as opposed to answering it.
    pub(crate) continues_prompt: bool,
    /// Start from what an earlier request left computed: llama.cpp's `cache_prompt`.
    pub(crate) reuse_prefix: bool,
}

impl GenerationParams {
    /// Reads what both endpoints share; the others differ and are handed in.
    pub(crate) fn read(
        fields: &Fields<'_>,
        max_tokens: Option<u64>,
        logprobs: Option<usize>,
        continues_prompt: bool,
    ) -> Result<Self, ApiError> {
        let model = fields.string("model")?.ok_or_else(|| ApiError::invalid_param("model", "is missing"))?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        Ok(Self {
            model: model.to_owned(),
            // Beyond `usize` is beyond every context as well.
            max_tokens: max_tokens.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            sampling: SamplingOverrides::read(fields)?,
            stop: fields.strings("stop", limits::STOP_STRINGS, limits::STOP_STRING_BYTES)?,
            stop_token_ids: stop_token_ids(fields)?,
            ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
            n: fields.integer("n", 1..=limits::CHOICES)?.map_or(1, |n| n as usize),
            logprobs,
            stream,
            include_usage: include_usage(fields, stream)?,
            continues_prompt,
            reuse_prefix: fields.boolean("cache_prompt")?.unwrap_or(true),
        })
    }
}

fn stop_token_ids(fields: &Fields<'_>) -> Result<Vec<u32>, ApiError> {
    const MOST: usize = 64;
    let ids = fields.token_ids("stop_token_ids")?.unwrap_or_default();
    if ids.len() > MOST {
        let problem = format_args!("holds {} ids; at most {MOST}", ids.len());
        return Err(ApiError::invalid_param("stop_token_ids", problem));
    }
    Ok(ids)
}

fn include_usage(fields: &Fields<'_>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.object("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(ApiError::invalid_param("stream_options", "needs `stream` to be true"));
    }
    let options = Fields::nested(options, "stream_options.");
    options.refuse(UNSUPPORTED_STREAM_OPTIONS)?;
    Ok(options.boolean("include_usage")?.unwrap_or(false))
}

/// The sampling parameters that a request gives; the others are the model's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct SamplingOverrides {
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Vec<(u32, f32)>,
    seed: Option<u64>,
}

impl SamplingOverrides {
    fn read(fields: &Fields<'_>) -> Result<Self, ApiError> {
        // The same thing under vLLM's and llama.cpp's names.
        let repetition = fields.number("repetition_penalty", 0.01..=10.0)?;
        let repeat = fields.number("repeat_penalty", 0.01..=10.0)?;
        if repetition.is_some() && repeat.is_some() && repetition != repeat {
            return Err(ApiError::invalid_param("repeat_penalty", "differs from `repetition_penalty`"));
        }
        Ok(Self {
            temperature: fields.number("temperature", 0.0..=4.0)?,
            top_k: top_k(fields)?,
            // OpenAI's range includes 0: the most likely token alone.
            top_p: fields.number("top_p", 0.0..=1.0)?.map(|p| p.max(f32::MIN_POSITIVE)),
            min_p: fields.number("min_p", 0.0..=1.0)?,
            repetition_penalty: repetition.or(repeat),
            presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
            logit_bias: logit_bias(fields)?,
            seed: fields.seed("seed")?,
        })
    }

    /// The sampling for one choice of a prompt. Choices under one seed must differ, so each
    /// counts on from it.
    pub(crate) fn apply(&self, defaults: &SamplingParams, choice: usize) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.map(|seed| seed.wrapping_add(choice as u64)),
        }
    }
}

/// `top_k`: 0 keeps all tokens, as does -1, which is vLLM's way to say so.
fn top_k(fields: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    if fields.get("top_k").is_some_and(|value| value.as_i64() == Some(-1)) {
        return Ok(Some(0));
    }
    Ok(fields.integer("top_k", 0..=u64::from(u32::MAX))?.map(|k| k as u32))
}

/// `logit_bias`: token ids, as strings, to what is added to their logits.
fn logit_bias(fields: &Fields<'_>) -> Result<Vec<(u32, f32)>, ApiError> {
    const MOST: usize = 1024;
    let Some(object) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    if object.len() > MOST {
        let problem = format_args!("holds {} entries; at most {MOST}", object.len());
        return Err(ApiError::invalid_param("logit_bias", problem));
    }
    let entries = Fields::nested(object, "logit_bias.");
    let mut biases = Vec::with_capacity(object.len());
    for key in object.keys() {
        let id = key.parse::<u32>();
        let id =
            id.map_err(|_| ApiError::invalid_param("logit_bias", format_args!("has the key {key:?}, no token id")))?;
        // `null` is no bias.
        biases.extend(entries.number(key, -100.0..=100.0)?.map(|bias| (id, bias)));
    }
    Ok(biases)
}

/// Tokens that a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptTokensDetails,
    pub(crate) completion_tokens_details: CompletionTokensDetails,
}

/// Where prompt tokens came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PromptTokensDetails {
    /// Tokens that an earlier request left computed.
    pub(crate) cached_tokens: usize,
}

/// What answer tokens were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CompletionTokensDetails {
    pub(crate) reasoning_tokens: usize,
}

impl Usage {
    pub(crate) fn new(
        prompt_tokens: usize,
        cached_tokens: usize,
        completion_tokens: usize,
        reasoning_tokens: usize,
    ) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
            completion_tokens_details: CompletionTokensDetails { reasoning_tokens },
        }
    }
}

/// llama.cpp's `timings`, which Open WebUI and others show.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct WireTimings {
    cache_n: usize,
    prompt_n: usize,
    prompt_ms: f64,
    prompt_per_second: f64,
    predicted_n: usize,
    predicted_ms: f64,
    predicted_per_second: f64,
}

impl From<Timings> for WireTimings {
    fn from(timings: Timings) -> Self {
        let rate = |tokens: usize, ms: f64| if ms > 0.0 { tokens as f64 / ms * 1e3 } else { 0.0 };
        let computed = timings.prompt_tokens - timings.cached_tokens;
        Self {
            cache_n: timings.cached_tokens,
            prompt_n: computed,
            prompt_ms: timings.prompt_ms,
            prompt_per_second: rate(computed, timings.prompt_ms),
            predicted_n: timings.generated_tokens,
            predicted_ms: timings.decode_ms,
            // The time runs from the first token to the last: one token less than came.
            predicted_per_second: rate(timings.generated_tokens.saturating_sub(1), timings.decode_ms),
        }
    }
}

/// `finish_reason` on the wire.
pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// A log-probability that JSON can hold; OpenAI's own lower bound.
pub(crate) fn wire_logprob(logprob: f32) -> f32 {
    if logprob.is_nan() { -9999.0 } else { logprob.max(-9999.0) }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// A fresh id for an answer.
pub(crate) fn answer_id(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}
