//! A loaded model as its callers see it: submit a [`Request`], receive its [`Event`]s.
//!
//! The model lives on a thread of its own that owns the device; everything here is plain data and
//! channels, so a handle can be cloned into any thread or task.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use atelico_kernels::ops::Precision;
use tokio::sync::mpsc;

use crate::arithmetic::CacheType;
use crate::device::DeviceSpec;
use crate::load::Progress;
use crate::text::{ChatTemplate, Tokenizer};
use crate::{Error, Result};

/// What a loaded model is.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Architecture name, e.g. `llama`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Storage format, e.g. `BF16` or `Q4_K_M`-like mixes listed by their main type.
    pub format: String,
    /// Bytes of weights held in memory.
    pub weight_bytes: u64,
    /// Vocabulary size (rows of the logits).
    pub vocab_size: usize,
    /// Longest context in tokens that a request may use (prompt and answer).
    pub context_length: usize,
    /// Longest context the checkpoint was made for.
    pub max_context_length: usize,
    /// The device it runs on, e.g. `cuda:0`.
    pub device: String,
    /// Milliseconds spent loading.
    pub load_ms: f64,
    /// Whether decode steps are captured once and replayed as one submission.
    pub captured: bool,
}

/// How a model is loaded.
#[derive(Clone)]
pub struct LoadOptions {
    /// The device to run on.
    pub device: DeviceSpec,
    /// Arithmetic; `None` takes activations of eight bits for packed weights on the CPU, and the
    /// fastest accurate one on a GPU.
    pub precision: Option<Precision>,
    /// Element type of the key-value caches; `None` takes float32 where the arithmetic is float32,
    /// float16 elsewhere.
    pub cache: Option<CacheType>,
    /// Positions a request may use; `None` takes the checkpoint's own, at most
    /// [`DEFAULT_CONTEXT`].
    pub context: Option<usize>,
    /// Requests that are computed at once.
    pub slots: usize,
    /// Tokens of a prompt that are computed at once; `None` takes what suits the device.
    pub prefill_chunk: Option<usize>,
    /// Told of the bytes loaded.
    pub progress: Option<Progress>,
}

/// Context of a model when none is asked for: its cache fits beside the weights on small devices.
pub const DEFAULT_CONTEXT: usize = 8192;

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: DeviceSpec::Auto,
            precision: None,
            cache: None,
            context: None,
            slots: 1,
            prefill_chunk: None,
            progress: None,
        }
    }
}

impl std::fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("device", &self.device)
            .field("precision", &self.precision)
            .field("cache", &self.cache)
            .field("context", &self.context)
            .field("slots", &self.slots)
            .field("prefill_chunk", &self.prefill_chunk)
            .finish_non_exhaustive()
    }
}

/// How the next token is chosen. The defaults are those of greedy-free plain sampling:
/// temperature 1, everything else off.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 chooses the most likely token; `0..=4`.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probability reaches this; `0 < p <= 1`.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; `0..=1`.
    pub min_p: f32,
    /// Divide (positive) or multiply (negative) logits of tokens seen in prompt or answer; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from logits of tokens seen in the answer; `-2..=2`.
    pub presence_penalty: f32,
    /// Subtracted per occurrence in the answer; `-2..=2`.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens; at most 1,024 entries.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes sampling repeatable; `None` draws one.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

impl SamplingParams {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every value against its documented range.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first value out of range.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        let range = |name, value: f32, low: f32, high: f32| {
            if value.is_finite() && (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Error::Parameter { name, problem: format!("is {value}; it must be in {low}..={high}") })
            }
        };
        range("temperature", self.temperature, 0.0, 4.0)?;
        range("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        range("min_p", self.min_p, 0.0, 1.0)?;
        range("repetition_penalty", self.repetition_penalty, 0.01, 10.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        if self.logit_bias.len() > 1024 {
            let n = self.logit_bias.len();
            return Err(Error::Parameter { name: "logit_bias", problem: format!("holds {n} entries; at most 1024") });
        }
        for &(id, bias) in &self.logit_bias {
            if id as usize >= vocab_size {
                let problem = format!("names token {id}; the vocabulary holds {vocab_size}");
                return Err(Error::Parameter { name: "logit_bias", problem });
            }
            range("logit_bias", bias, -100.0, 100.0)?;
        }
        Ok(())
    }
}

/// One generation to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt as token ids, specials included.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; `None` goes on until a stop token or the end of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Ids that end the answer (they are not sent); the model's own come in addition unless
    /// `ignore_eos`.
    pub stop_tokens: Vec<u32>,
    /// Do not stop at the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Report this many most likely tokens with every token, `0..=20`; `None` reports no
    /// log-probabilities.
    pub logprobs: Option<usize>,
    /// Send the logits after the prompt as [`Event::PromptLogits`].
    pub prompt_logits: bool,
    /// Start from what an earlier request left, where the prompt begins as that one's prompt and answer
    /// did. Rounding may differ from a prompt that is computed as a whole.
    pub reuse_prefix: bool,
}

/// A token's log-probability and its most likely rivals, from the model's own distribution
/// (before temperature and penalties).
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Natural-log probability of the chosen token.
    pub logprob: f32,
    /// The most likely tokens with theirs, best first.
    pub top: Vec<(u32, f32)>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token came.
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
}

/// What the generation took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Those of them that an earlier request had left computed.
    pub cached_tokens: usize,
    /// Milliseconds from the start of the prompt's computation to its last token's logits.
    pub prompt_ms: f64,
    /// Tokens generated, the stop token included.
    pub generated_tokens: usize,
    /// Milliseconds from the first generated token to the last.
    pub decode_ms: f64,
}

/// What comes back from the engine thread.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request has a slot; the first to come.
    Started {
        /// Tokens of the prompt that an earlier request left computed.
        cached_tokens: usize,
    },
    /// The float32 logits after the prompt, `[vocab_size]`; only with [`Request::prompt_logits`].
    PromptLogits(Vec<f32>),
    /// One generated token.
    Token {
        /// Its id.
        id: u32,
        /// Its log-probabilities, when asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// The generation ended; nothing follows.
    Done {
        /// Why.
        reason: FinishReason,
        /// What it took.
        timings: Timings,
    },
}

/// A request on its way to the engine thread.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) events: mpsc::Sender<Result<Event>>,
    /// Counts the job among the waiting until the engine takes it.
    pub(crate) waiting: Option<WaitingGuard>,
}

/// A running generation. Dropping it cancels the request at the engine's next step.
#[derive(Debug)]
pub struct Generation {
    // Goes first: an engine whose last generation is dropped is waited for.
    events: mpsc::Receiver<Result<Event>>,
    _shared: Arc<Shared>,
}

impl Generation {
    /// The next event; `None` after [`Event::Done`] or an error.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        self.events.recv().await
    }

    /// [`Self::next`] for callers outside an async runtime.
    pub fn next_blocking(&mut self) -> Option<Result<Event>> {
        self.events.blocking_recv()
    }
}

/// A loaded model. Clones share it. Dropping the last clone, or the last [`Generation`] if that comes
/// later, ends the engine thread and waits for it, which takes at most a step.
#[derive(Clone, Debug)]
pub struct ModelHandle {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) info: ModelInfo,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    pub(crate) chat_template: Option<Arc<ChatTemplate>>,
    pub(crate) eos_token_ids: Vec<u32>,
    pub(crate) generation_defaults: SamplingParams,
    pub(crate) waiting: Arc<AtomicUsize>,
    /// Why the engine thread has ended, once it has by a failure.
    pub(crate) failure: Arc<OnceLock<String>>,
    pub(crate) engine: EngineThread,
}

/// The way to the engine thread, and its end: without a sender the thread ends, and this waits for it,
/// because a driver that is unloaded while a thread still uses it crashes the process.
#[derive(Debug)]
pub(crate) struct EngineThread {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    pub(crate) fn new(jobs: mpsc::UnboundedSender<Job>, thread: JoinHandle<()>) -> Self {
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.as_ref().ok_or(Error::Stopped)?.send(job).map_err(|_| Error::Stopped)
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has reached the callers as the engine's failure.
            drop(thread.join());
        }
    }
}

/// Requests that may wait for a slot before [`ModelHandle::submit`] refuses more.
pub const QUEUE_LIMIT: usize = 256;

impl ModelHandle {
    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Why the engine thread has ended; `None` while it runs. There is no way back but loading the
    /// model anew, and on a device that failed as a whole a new process.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the checkpoint has none.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>> {
        self.shared.tokenizer.as_ref().ok_or_else(|| Error::Tokenizer("the checkpoint has no tokenizer".into()))
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// [`Error::Template`] when the checkpoint has none.
    pub fn chat_template(&self) -> Result<&Arc<ChatTemplate>> {
        self.shared.chat_template.as_ref().ok_or_else(|| Error::Template("the checkpoint has none".into()))
    }

    /// Ids that end a generation (config, generation_config and tokenizer united).
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.shared.eos_token_ids
    }

    /// The sampling that the checkpoint's `generation_config.json` asks for.
    pub fn generation_defaults(&self) -> &SamplingParams {
        &self.shared.generation_defaults
    }

    /// Checks `request` and queues it.
    ///
    /// # Errors
    /// [`Error::ContextExceeded`], [`Error::Parameter`], [`Error::QueueFull`] or
    /// [`Error::Stopped`]; later failures arrive through the [`Generation`].
    pub fn submit(&self, request: Request) -> Result<Generation> {
        let info = self.info();
        if request.prompt.is_empty() {
            return Err(Error::Parameter { name: "prompt", problem: "is empty".into() });
        }
        if let Some(&id) = request.prompt.iter().find(|&&id| id as usize >= info.vocab_size) {
            let problem = format!("holds token {id}; the vocabulary holds {}", info.vocab_size);
            return Err(Error::Parameter { name: "prompt", problem });
        }
        if request.prompt.len() >= info.context_length {
            return Err(Error::ContextExceeded { prompt_tokens: request.prompt.len(), context: info.context_length });
        }
        if request.max_tokens == Some(0) {
            return Err(Error::Parameter { name: "max_tokens", problem: "is 0; it must be at least 1".into() });
        }
        if request.logprobs.is_some_and(|n| n > 20) {
            return Err(Error::Parameter { name: "logprobs", problem: "is above 20".into() });
        }
        request.sampling.validate(info.vocab_size)?;
        if self.shared.waiting.fetch_add(1, Ordering::AcqRel) >= QUEUE_LIMIT {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::QueueFull { limit: QUEUE_LIMIT });
        }
        let waiting = WaitingGuard(self.shared.waiting.clone());
        // One place per event that can ever come: sending never blocks the engine.
        let most = request.max_tokens.unwrap_or(info.context_length).min(info.context_length) + 4;
        let (events, receiver) = mpsc::channel(most);
        self.shared.engine.send(Job { request, events, waiting: Some(waiting) })?;
        Ok(Generation { events: receiver, _shared: self.shared.clone() })
    }
}

/// Counts a job among the waiting for as long as it lives.
#[derive(Debug)]
pub(crate) struct WaitingGuard(pub(crate) Arc<AtomicUsize>);

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
