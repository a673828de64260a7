//! Times work that is queued on a device.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, capture};

use crate::Result;

/// Passes, of which the median counts.
const PASSES: usize = 5;
/// How long a pass takes, so that its start and the wait for its end do not count.
const PASS: Duration = Duration::from_millis(30);
/// Most runs of a pass.
const MOST: u128 = 10_000;

/// Seconds that `work` takes on `device`, queued over and over.
pub(crate) fn queued(device: &Device, mut work: impl FnMut() -> Tensor<2>) -> Result<f64> {
    let run = |count: u128| -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..count {
            drop(work());
        }
        device.sync().map_err(|error| format!("{error:?}"))?;
        Ok(start.elapsed())
    };
    median(run)
}

/// [`queued`], with `work` recorded once and replayed as one submission where the device can: what
/// it takes inside a decode step.
pub(crate) fn captured(device: &Device, work: impl FnMut() -> Tensor<2>) -> Result<f64> {
    let mut graph = capture(device, work);
    let run = |count: u128| -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..count {
            // SAFETY: what the closure reads outlives this function, nothing else uses the device,
            // and this thread, on whose stream the graph was captured, replays it.
            unsafe { graph.replay() };
        }
        device.sync().map_err(|error| format!("{error:?}"))?;
        Ok(start.elapsed())
    };
    median(run)
}

/// Seconds a run, the median of passes that are long enough.
fn median(mut run: impl FnMut(u128) -> Result<Duration>) -> Result<f64> {
    // The first compiles and tunes, the second tells how many fill a pass.
    run(1)?;
    let one = run(1)?;
    let count = (PASS.as_nanos() / one.as_nanos().max(1)).clamp(1, MOST);
    let mut passes = Vec::new();
    for _ in 0..PASSES {
        passes.push(run(count)?.as_secs_f64() / count as f64);
    }
    passes.sort_by(f64::total_cmp);
    Ok(passes[PASSES / 2])
}
