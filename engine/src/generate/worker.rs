//! The thread that owns a device and runs its requests.
//!
//! Every turn takes new jobs, computes one chunk of a waiting prompt and one decode step for all
//! running answers, so long prompts do not stall them. While the set of answers stays the same,
//! the device feeds itself: the next step is queued before the last one's tokens are read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use atelico_kernels::ops::PendingRead;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::graph;
use super::prefix::Prefixes;
use super::request::{self, Params};
use super::runner::{Row, Runner, TOP};
use crate::handle::{
    EngineThread, Event, FinishReason, Job, ModelHandle, ModelInfo, SamplingParams, Shared, Timings, TokenLogprobs,
};
use crate::load::Placement;
use crate::model::LanguageModel;
use crate::text::{ChatTemplate, Tokenizer};
use crate::{Error, Result};

/// A loaded model on its way to its thread's loop.
pub struct Ready {
    /// The model.
    pub model: Box<dyn LanguageModel>,
    /// Where it was loaded to.
    pub placement: Placement,
    /// What callers are told of it; `load_ms` and `captured` are filled in by [`start`].
    pub info: ModelInfo,
    /// Its tokenizer.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Its chat template.
    pub chat_template: Option<Arc<ChatTemplate>>,
    /// Ids that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// The sampling that the checkpoint asks for.
    pub generation_defaults: SamplingParams,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What a thread that has loaded its model sends to [`start`].
struct Loaded {
    info: ModelInfo,
    tokenizer: Option<Arc<Tokenizer>>,
    chat_template: Option<Arc<ChatTemplate>>,
    eos_token_ids: Vec<u32>,
    generation_defaults: SamplingParams,
    jobs: mpsc::UnboundedSender<Job>,
    failure: Arc<OnceLock<String>>,
}

/// Starts a thread that loads a model with `load` and then runs requests until every handle and
/// generation is dropped. Returns when the model is ready.
///
/// # Errors
/// What `load` returns, or [`Error::Compute`] when the device fails.
pub fn start(load: impl FnOnce() -> Result<Ready> + Send + 'static) -> Result<ModelHandle> {
    let (ready, loaded) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        let (mut worker, failure) = match guarded(|| prepare(load)) {
            Err(error) => return drop(ready.send(Err(error))),
            Ok((loaded, worker)) => {
                let failure = loaded.failure.clone();
                if ready.send(Ok(loaded)).is_err() {
                    return;
                }
                (worker, failure)
            }
        };
        drop(ready);
        if let Err(error) = guarded(|| worker.run()) {
            tracing::error!("the engine thread ends: {error}");
            // Nothing else sets it.
            let _ = failure.set(error.to_string());
            worker.fail_all(&error);
        }
    };
    let (pool, threads) = pool()?;
    let engine = move || {
        // The loop runs as one of the threads that compute: handing work to a pool from outside costs
        // more than a small model's kernel.
        pool.install(run);
        drop(pool);
        for thread in threads {
            // Panics have been reported where they happened.
            drop(thread.join());
        }
    };
    let thread = std::thread::Builder::new()
        .name("atelico-engine".into())
        .spawn(engine)
        .map_err(|e| Error::Compute(format!("no engine thread: {e}")))?;
    let loaded = match loaded.recv().map_err(|_| Error::Stopped).flatten() {
        Ok(loaded) => loaded,
        Err(error) => {
            // As when a handle is dropped: the device may be in use until the thread has ended.
            drop(thread.join());
            return Err(error);
        }
    };
    let Loaded { info, tokenizer, chat_template, eos_token_ids, generation_defaults, jobs, failure } = loaded;
    let waiting = Arc::new(AtomicUsize::new(0));
    let engine = EngineThread::new(jobs, thread);
    let shared =
        Shared { info, tokenizer, chat_template, eos_token_ids, generation_defaults, waiting, failure, engine };
    Ok(ModelHandle { shared: Arc::new(shared) })
}

/// A pool of threads that compute, and these threads: only who joins them knows that they have ended
/// with all that drivers keep in them.
fn pool() -> Result<(rayon::ThreadPool, Vec<JoinHandle<()>>)> {
    let mut threads = Vec::new();
    let pool = rayon::ThreadPoolBuilder::new().spawn_handler(|thread| {
        let name = format!("atelico-{}", thread.index());
        threads.push(std::thread::Builder::new().name(name).spawn(|| thread.run())?);
        Ok(())
    });
    let pool = pool.build().map_err(|e| Error::Compute(format!("no thread pool: {e}")))?;
    Ok((pool, threads))
}

/// Loads a model with `load` and captures its decode steps.
fn prepare(load: impl FnOnce() -> Result<Ready>) -> Result<(Loaded, Worker)> {
    let started = Instant::now();
    let Ready { model, placement, mut info, tokenizer, chat_template, eos_token_ids, generation_defaults } = {
        let _working = graph::working();
        let ready = load()?;
        sync(&ready.placement)?;
        ready
    };
    let runner = {
        let _capturing = graph::capturing();
        let runner = Runner::new(model, &placement)?;
        sync(&placement)?;
        runner
    };
    info.captured = runner.is_captured();
    info.load_ms = started.elapsed().as_secs_f64() * 1e3;
    let (jobs, queue) = mpsc::unbounded_channel();
    let slots = (0..placement.slots).map(|_| None).collect();
    let prefixes = Prefixes::new(placement.slots, runner.truncates());
    let worker = Worker {
        runner,
        placement,
        queue,
        slots,
        prefixes,
        eos_token_ids: eos_token_ids.clone(),
        pending: None,
        next_seed: started_seed(),
        next_id: 0,
    };
    let failure = Arc::new(OnceLock::new());
    let loaded = Loaded { info, tokenizer, chat_template, eos_token_ids, generation_defaults, jobs, failure };
    Ok((loaded, worker))
}

/// Waits until the device has done all that was asked of it.
fn sync(placement: &Placement) -> Result<()> {
    placement.device.sync().map_err(|e| Error::Compute(format!("{e:?}")))
}

/// Runs `f`, turning the panics by which Burn reports device failures into errors.
fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Error::Compute(text.unwrap_or_else(|| "unknown panic".into())))
    })
}

/// A first seed that differs from run to run.
fn started_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// A request that holds a slot.
struct Active {
    /// Tells it from an earlier holder of the slot, whose last step may still be in flight.
    id: u64,
    job: Job,
    params: Params,
    /// Tokens of the prompt that are computed.
    prefilled: usize,
    /// Tokens of the prompt that an earlier request left computed.
    cached: usize,
    /// The last token and its position; `None` while the prompt is computed.
    last: Option<(u32, usize)>,
    generated: Vec<u32>,
    /// Generated tokens that went, or are on their way, through the model.
    fed: usize,
    started: Instant,
    first_token: Option<Instant>,
    prompt_ms: f64,
}

/// A decode step whose results are not read yet, and the slots and requests of its rows.
struct Pending {
    read: PendingRead,
    owners: Vec<(usize, u64)>,
    top: usize,
}

struct Worker {
    runner: Runner,
    placement: Placement,
    queue: mpsc::UnboundedReceiver<Job>,
    slots: Vec<Option<Active>>,
    prefixes: Prefixes,
    eos_token_ids: Vec<u32>,
    pending: Option<Pending>,
    next_seed: u64,
    next_id: u64,
}

impl Worker {
    fn run(&mut self) -> Result<()> {
        loop {
            if self.slots.iter().all(Option::is_none) && self.pending.is_none() {
                match self.queue.blocking_recv() {
                    Some(job) => self.admit(job),
                    None => return sync(&self.placement),
                }
            }
            while self.slots.iter().any(Option::is_none) {
                match self.queue.try_recv() {
                    Ok(job) => self.admit(job),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            let _working = graph::working();
            self.prefill_chunk()?;
            self.decode()?;
        }
    }

    /// Tells every running and waiting request of a failure that ends the engine.
    fn fail_all(&mut self, error: &Error) {
        for active in self.slots.iter_mut().filter_map(Option::take) {
            drop(active.job.events.try_send(Err(Error::Compute(error.to_string()))));
        }
        self.queue.close();
        while let Ok(job) = self.queue.try_recv() {
            drop(job.events.try_send(Err(Error::Stopped)));
        }
    }

    fn admit(&mut self, mut job: Job) {
        if job.events.is_closed() {
            return;
        }
        job.waiting = None;
        self.next_seed = self.next_seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let free = self.slots.iter().enumerate().filter_map(|(slot, held)| held.is_none().then_some(slot));
        if let Some((slot, cached)) = self.prefixes.take(free, &job.request.prompt, job.request.reuse_prefix) {
            self.next_id += 1;
            drop(job.events.try_send(Ok(Event::Started { cached_tokens: cached })));
            self.slots[slot] = Some(Active {
                id: self.next_id,
                params: Params::new(&job.request.sampling, self.next_seed),
                job,
                prefilled: cached,
                cached,
                last: None,
                generated: Vec::new(),
                fed: 0,
                started: Instant::now(),
                first_token: None,
                prompt_ms: 0.0,
            });
        }
    }

    /// The slot of the prompt that waits longest.
    fn first_waiting(&self) -> Option<usize> {
        let waiting = |(slot, active): (usize, &Option<Active>)| {
            active.as_ref().filter(|a| a.last.is_none()).map(|active| (active.id, slot))
        };
        self.slots.iter().enumerate().filter_map(waiting).min().map(|(_, slot)| slot)
    }

    /// Computes the next chunk of the first waiting prompt; after its last, chooses the first token.
    fn prefill_chunk(&mut self) -> Result<()> {
        self.drop_cancelled();
        let Some(slot) = self.first_waiting() else { return Ok(()) };
        let Some(active) = self.slots[slot].as_mut() else { return Ok(()) };
        if active.prefilled == active.cached {
            active.started = Instant::now();
        }
        let prompt = &active.job.request.prompt;
        let end = (active.prefilled + self.runner.chunk()).min(prompt.len());
        let logits = self.runner.prefill(slot, &prompt[active.prefilled..end], active.prefilled);
        self.prefixes.extend(slot, &prompt[active.prefilled..end]);
        active.prefilled = end;
        if end < prompt.len() {
            return Ok(());
        }
        // Rows that fill up batches write to no slot of a request, so its counts stay right.
        self.runner.admit(slot, &active.params, prompt);
        let copy = active.job.request.prompt_logits.then(|| logits.clone());
        let spec = request::spec(std::iter::once((&active.params, &active.job.request)));
        let values = self.runner.choose(logits, slot, end - 1, spec).wait().map_err(compute)?;
        active.prompt_ms = active.started.elapsed().as_secs_f64() * 1e3;
        if let Some(logits) = copy {
            let data = logits.try_into_data().map_err(|e| Error::Compute(format!("{e:?}")))?;
            let values = data.try_to_vec::<f32>().map_err(|e| Error::Compute(format!("{e:?}")))?;
            drop(active.job.events.try_send(Ok(Event::PromptLogits(values))));
        }
        self.deliver(slot, &values, spec.top, end);
        Ok(())
    }

    /// Queues a decode step for all running answers, then reads the one before.
    fn decode(&mut self) -> Result<()> {
        self.drop_cancelled();
        let rows = self.rows();
        let owners = self.owners();
        let same = self.pending.as_ref().is_some_and(|p| p.owners == owners);
        if let Some(pending) = self.pending.take() {
            // The device goes on by itself when nothing can end in the step that is not read yet.
            let next = if same && self.may_run_ahead() { Some(self.queue_step(&rows, false)?) } else { None };
            let values = pending.read.wait().map_err(compute)?;
            let width = 2 + 2 * pending.top;
            for (&(slot, id), values) in pending.owners.iter().zip(values.chunks_exact(width)) {
                let owner = self.slots[slot].as_ref().filter(|a| a.id == id);
                if let Some(position) = owner.and_then(|a| a.last).map(|(_, p)| p + 1) {
                    self.deliver(slot, values, pending.top, position);
                }
            }
            self.pending = next;
            return Ok(());
        }
        if !rows.is_empty() {
            self.pending = Some(self.queue_step(&rows, true)?);
        }
        Ok(())
    }

    fn queue_step(&mut self, rows: &[Row], upload: bool) -> Result<Pending> {
        let owners = self.owners();
        for active in self.slots.iter_mut().flatten().filter(|a| a.last.is_some()) {
            active.fed += 1;
        }
        let actives = self.slots.iter().flatten().filter(|a| a.last.is_some());
        let spec = request::spec(actives.map(|a| (&a.params, &a.job.request)));
        let read = self.runner.step(rows.len(), upload.then_some(rows), spec)?;
        Ok(Pending { read, owners, top: spec.top })
    }

    /// The rows of all running answers.
    fn rows(&self) -> Vec<Row> {
        let row = |(slot, active): (usize, &Option<Active>)| {
            let (token, position) = active.as_ref()?.last?;
            Some(Row { token, position, slot })
        };
        self.slots.iter().enumerate().filter_map(row).collect()
    }

    /// Slots and requests of all running answers, in the order of [`Self::rows`].
    fn owners(&self) -> Vec<(usize, u64)> {
        let running =
            |(slot, a): (usize, &Option<Active>)| a.as_ref().filter(|a| a.last.is_some()).map(|a| (slot, a.id));
        self.slots.iter().enumerate().filter_map(running).collect()
    }

    /// Whether a step beyond the one in flight makes sense: every answer still has room after it.
    /// It is computed in vain when a stop token comes.
    fn may_run_ahead(&self) -> bool {
        self.slots.iter().flatten().filter(|a| a.last.is_some()).all(|a| {
            let room = a.last.is_some_and(|(_, position)| position + 2 < self.placement.context);
            room && a.job.request.max_tokens.is_none_or(|most| a.generated.len() + 1 < most)
        })
    }

    /// Frees the slots of answers that nobody waits for. Their rows in flight are ignored.
    fn drop_cancelled(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(|a| a.job.events.is_closed()) {
                self.release(slot);
            }
        }
    }

    /// Ends the request that holds `slot`; what it leaves there may serve another.
    fn release(&mut self, slot: usize) {
        if let Some(active) = self.slots[slot].take() {
            self.prefixes.end(slot, &active.generated, active.fed);
        }
    }

    /// Hands the token that a step chose for `slot`, at `position`, to its request.
    fn deliver(&mut self, slot: usize, values: &[i32], top: usize, position: usize) {
        let context = self.placement.context;
        let Some(active) = self.slots[slot].as_mut() else { return };
        let request = &active.job.request;
        let (Some(&id), Some(&logprob)) = (values.first(), values.get(1)) else { return };
        let Ok(id) = u32::try_from(id) else {
            drop(active.job.events.try_send(Err(Error::NonFinite { position })));
            self.slots[slot] = None;
            self.prefixes.forget(slot);
            return;
        };
        active.generated.push(id);
        let now = Instant::now();
        let first = *active.first_token.get_or_insert(now);
        let stop = request.stop_tokens.contains(&id) || (!request.ignore_eos && self.eos_token_ids.contains(&id));
        if !stop {
            let logprobs = request.logprobs.map(|n| logprobs(values, logprob, top, n));
            if active.job.events.try_send(Ok(Event::Token { id, logprobs })).is_err() {
                return self.release(slot);
            }
        }
        active.last = Some((id, position));
        let full = position + 1 >= context || request.max_tokens.is_some_and(|most| active.generated.len() >= most);
        if stop || full {
            let timings = Timings {
                prompt_tokens: request.prompt.len(),
                cached_tokens: active.cached,
                prompt_ms: active.prompt_ms,
                generated_tokens: active.generated.len(),
                decode_ms: (now - first).as_secs_f64() * 1e3,
            };
            let reason = if stop { FinishReason::Stop } else { FinishReason::Length };
            drop(active.job.events.try_send(Ok(Event::Done { reason, timings })));
            self.release(slot);
        }
    }
}

/// The first `n` of the `top` reported tokens.
fn logprobs(values: &[i32], logprob: i32, top: usize, n: usize) -> TokenLogprobs {
    debug_assert!(top <= TOP);
    let float = |bits: &i32| f32::from_bits(*bits as u32);
    let ids = values.get(2..2 + top).unwrap_or_default();
    let probabilities = values.get(2 + top..2 + 2 * top).unwrap_or_default();
    // A vocabulary smaller than the report leaves the rest negative.
    let pairs = ids.iter().zip(probabilities).filter_map(|(id, p)| Some((u32::try_from(*id).ok()?, float(p))));
    TokenLogprobs { logprob: float(&logprob), top: pairs.take(n).collect() }
}

fn compute(error: impl std::fmt::Display) -> Error {
    Error::Compute(error.to_string())
}
