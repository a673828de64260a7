//! Captured decode steps.
#![allow(unsafe_code)]

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use burn::tensor::{Device, Graph, Int, Tensor, capture};

/// Held shared by every thread that gives work to a device, and alone while a step is captured: on
/// CUDA, an allocation or a wait anywhere in the process aborts a capture.
static DEVICES: RwLock<()> = RwLock::new(());

/// Waits until no step is being captured, and keeps one from being so.
pub(crate) fn working() -> RwLockReadGuard<'static, ()> {
    // The lock guards no data, so a panic while it was held has left nothing broken.
    DEVICES.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no other thread works on a device, and keeps all from it.
pub(super) fn capturing() -> RwLockWriteGuard<'static, ()> {
    DEVICES.write().unwrap_or_else(PoisonError::into_inner)
}

/// What a decode step computes: a row of results per sequence.
pub(super) type StepFn = Box<dyn FnMut() -> Tensor<2, Int>>;

/// A decode step recorded once and replayed as one submission.
pub(super) struct StepGraph {
    graph: Graph<Tensor<2, Int>, StepFn>,
}

impl StepGraph {
    /// Records `step`, which runs a few times first.
    pub(super) fn capture(device: &Device, step: StepFn) -> Self {
        Self { graph: capture(device, step) }
    }

    /// Runs the step and returns its results, a buffer that the next replay overwrites.
    pub(super) fn replay(&mut self) -> Tensor<2, Int> {
        // SAFETY: every tensor that the step reads or writes lives in the `Rc`s that the closure
        // owns, so it outlives the graph; their buffers are never replaced, since operations on
        // them write in place; and only the engine thread, on whose stream the graph was captured,
        // touches them.
        unsafe { self.graph.replay() }.clone()
    }

    /// Whether the device replays it as one submission.
    pub(super) fn is_hardware(&self) -> bool {
        self.graph.is_hardware()
    }
}
