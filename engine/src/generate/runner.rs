//! A model with its state and buffers: prompts in, next tokens out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use atelico_kernels::ops::{self, IN_PROMPT, PendingRead, SAMPLE_PARAMS, SampleSpec, SampleState};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::graph::StepGraph;
use super::request::Params;
use crate::load::Placement;
use crate::model::{LanguageModel, LogitRows, Step};
use crate::state::DecodeState;
use crate::{Error, Result};

/// Most likely tokens that a step reports when any of its requests asks for log-probabilities.
pub(super) const TOP: usize = 20;

/// A row of the decode batch: the last token, where it lies, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) token: u32,
    pub(super) position: usize,
    pub(super) slot: usize,
}

/// The model and everything that steps of every batch size share.
struct Core {
    model: Box<dyn LanguageModel>,
    state: DecodeState,
    /// `[slots, SAMPLE_PARAMS]`
    params: Tensor<2, Int>,
    /// `[slots, vocab_size]`
    counts: Tensor<2, Int>,
    /// Stands in for a buffer while it is moved through an operation.
    placeholder: Tensor<2, Int>,
}

/// The rows of one batch size, fed by the step itself.
struct Batch {
    tokens: Tensor<1, Int>,
    positions: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    placeholder: Tensor<1, Int>,
}

/// Batch size and kind of choice: what a captured step is fixed to.
type Key = (usize, SampleSpec);

pub(super) struct Runner {
    device: Device,
    core: Rc<RefCell<Core>>,
    batches: HashMap<usize, Rc<RefCell<Batch>>>,
    graphs: HashMap<Key, StepGraph>,
    vocab_size: usize,
    chunk: usize,
    spare_slot: usize,
}

/// Sizes of decode batches; a batch is filled up with rows of the spare slot.
fn bucket(rows: usize) -> usize {
    rows.next_power_of_two()
}

impl Runner {
    /// Allocates the state and, on devices that replay, captures the decode steps.
    pub(super) fn new(model: Box<dyn LanguageModel>, placement: &Placement) -> Result<Self> {
        let device = placement.device.clone();
        let vocab_size = model.vocab_size();
        let state = model.new_state()?;
        let zeros = |shape| ops::int_zeros(shape, &device);
        let core = Core {
            state,
            params: zeros([placement.state_slots(), SAMPLE_PARAMS]),
            counts: zeros([placement.state_slots(), vocab_size]),
            placeholder: zeros([1, 1]),
            model,
        };
        let mut runner = Self {
            core: Rc::new(RefCell::new(core)),
            batches: HashMap::new(),
            graphs: HashMap::new(),
            vocab_size,
            spare_slot: placement.state_slots() - 1,
            chunk: placement.prefill_chunk,
            device,
        };
        let mut size = 1;
        while size <= bucket(placement.slots) {
            let zeros = || ops::int_zeros([size], &runner.device);
            // Rows of one batch differ in slot, as they will in use.
            let slots = (0..size).map(|i| (i % placement.slots) as i32).collect();
            let batch = Batch {
                tokens: zeros(),
                positions: zeros(),
                slots: ops::assign(zeros(), 0, slots),
                placeholder: ops::int_zeros([1], &runner.device),
            };
            runner.batches.insert(size, Rc::new(RefCell::new(batch)));
            if !ops::is_cpu(&runner.device) {
                // Log-probabilities are rarely asked for: steps with them run uncaptured.
                for greedy in [true, false] {
                    runner.capture((size, SampleSpec { greedy, top: 0 }));
                }
            }
            size *= 2;
        }
        Ok(runner)
    }

    /// Records one step. It runs a few times on the way, on positions 0.. of slots that nobody
    /// uses yet.
    fn capture(&mut self, key: Key) {
        let Some(batch) = self.batches.get(&key.0) else { return };
        let (core, batch) = (self.core.clone(), batch.clone());
        let reset = ops::assign(take(&mut batch.borrow_mut(), |b| &mut b.positions), 0, vec![0; key.0]);
        batch.borrow_mut().positions = reset;
        let step = Box::new(move || decode(&mut core.borrow_mut(), &mut batch.borrow_mut(), key.1));
        self.graphs.insert(key, StepGraph::capture(&self.device, step));
    }

    /// Whether decode steps are replayed as one submission.
    pub(super) fn is_captured(&self) -> bool {
        !self.graphs.is_empty() && self.graphs.values().all(StepGraph::is_hardware)
    }

    /// Whether a slot's state can be cut back to an earlier position.
    pub(super) fn truncates(&self) -> bool {
        self.core.borrow().state.truncates()
    }

    /// Tokens of a prompt that are computed at once.
    pub(super) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Prepares a slot for a new request: sampling parameters, and the prompt's tokens counted when
    /// they matter.
    pub(super) fn admit(&mut self, slot: usize, params: &Params, prompt: &[u32]) {
        if params.greedy {
            return;
        }
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let buffer = std::mem::replace(&mut core.params, core.placeholder.clone());
        core.params = ops::assign(buffer, slot * SAMPLE_PARAMS, params.encode());
        if params.penalizes {
            let mut counts = vec![0; self.vocab_size];
            for &id in prompt {
                if let Some(count) = counts.get_mut(id as usize) {
                    *count = IN_PROMPT;
                }
            }
            let buffer = std::mem::replace(&mut core.counts, core.placeholder.clone());
            core.counts = ops::assign(buffer, slot * self.vocab_size, counts);
        }
    }

    /// Computes tokens of a prompt from `position` on and returns the logits of the last,
    /// `[1, vocab_size]`.
    pub(super) fn prefill(&mut self, slot: usize, tokens: &[u32], position: usize) -> Tensor<2> {
        let n = tokens.len();
        let ints = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [n]), (&self.device, DType::I32));
        let step = Step {
            tokens: ints(tokens.iter().map(|&id| id as i32).collect()),
            positions: ints((position..position + n).map(|p| p as i32).collect()),
            slots: ints(vec![slot as i32; n]),
            consecutive: true,
            logits: LogitRows::Last,
        };
        let core = &mut *self.core.borrow_mut();
        core.model.forward(&step, &mut core.state)
    }

    /// Chooses the token after a prompt whose last token lies at `position`.
    pub(super) fn choose(&mut self, logits: Tensor<2>, slot: usize, position: usize, spec: SampleSpec) -> PendingRead {
        let int = |value: usize| ops::assign(ops::int_zeros([1], &self.device), 0, vec![value as i32]);
        let mut batch = Batch { tokens: int(0), positions: int(position), slots: int(slot), placeholder: int(0) };
        PendingRead::start(choose(&mut self.core.borrow_mut(), &mut batch, logits, spec))
    }

    /// Queues a decode step. `rows` are written to the device first; `None` goes on with the rows
    /// of the step before, of the same batch size, whose tokens the device has already.
    pub(super) fn step(&mut self, size: usize, rows: Option<&[Row]>, spec: SampleSpec) -> Result<PendingRead> {
        let size = bucket(size);
        let batch = self.batches.get(&size).ok_or_else(|| Error::Compute(format!("no batch of {size} rows")))?;
        if let Some(rows) = rows {
            let spare = Row { token: 0, position: 0, slot: self.spare_slot };
            let filled = |value: fn(&Row) -> usize| {
                (0..size).map(|i| value(rows.get(i).unwrap_or(&spare)) as i32).collect::<Vec<i32>>()
            };
            let batch = &mut *batch.borrow_mut();
            batch.tokens = ops::assign(take(batch, |b| &mut b.tokens), 0, filled(|r| r.token as usize));
            batch.positions = ops::assign(take(batch, |b| &mut b.positions), 0, filled(|r| r.position));
            batch.slots = ops::assign(take(batch, |b| &mut b.slots), 0, filled(|r| r.slot));
        }
        let out = match self.graphs.get_mut(&(size, spec)) {
            Some(graph) => graph.replay(),
            None => decode(&mut self.core.borrow_mut(), &mut batch.borrow_mut(), spec),
        };
        Ok(PendingRead::start(out))
    }
}

/// Moves a buffer out of a batch, so that its handle is unique while an operation writes to it.
fn take(batch: &mut Batch, field: fn(&mut Batch) -> &mut Tensor<1, Int>) -> Tensor<1, Int> {
    let placeholder = batch.placeholder.clone();
    std::mem::replace(field(batch), placeholder)
}

/// One decode step: a forward pass over the batch's rows and the choice of their next tokens.
fn decode(core: &mut Core, batch: &mut Batch, spec: SampleSpec) -> Tensor<2, Int> {
    let step = Step {
        tokens: batch.tokens.clone(),
        positions: batch.positions.clone(),
        slots: batch.slots.clone(),
        consecutive: false,
        logits: LogitRows::All,
    };
    let logits = core.model.forward(&step, &mut core.state);
    drop(step);
    choose(core, batch, logits, spec)
}

fn choose(core: &mut Core, batch: &mut Batch, logits: Tensor<2>, spec: SampleSpec) -> Tensor<2, Int> {
    let state = SampleState {
        tokens: take(batch, |b| &mut b.tokens),
        positions: take(batch, |b| &mut b.positions),
        slots: batch.slots.clone(),
        params: core.params.clone(),
        counts: std::mem::replace(&mut core.counts, core.placeholder.clone()),
    };
    let (state, out) = ops::sample(logits, state, spec);
    batch.tokens = state.tokens;
    batch.positions = state.positions;
    core.counts = state.counts;
    out
}
