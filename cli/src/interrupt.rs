//! Ctrl-C: stops a watched answer, ends the process everywhere else.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::error::{CliError, INTERRUPTED};

static WATCHED: AtomicBool = AtomicBool::new(false);
static PRESSED: AtomicBool = AtomicBool::new(false);
static WAKE: Notify = Notify::const_new();

/// Takes over Ctrl-C. While a [`Watch`] lives the first press goes to it; any other press ends
/// the process with exit code 130.
pub(crate) fn install() -> Result<(), CliError> {
    ctrlc::set_handler(|| {
        if WATCHED.swap(false, Ordering::AcqRel) {
            PRESSED.store(true, Ordering::Release);
            WAKE.notify_one();
        } else {
            // Past the exit handlers of drivers, whose threads may be at work.
            signal_hook::low_level::exit(i32::from(INTERRUPTED));
        }
    })
    .map_err(|error| CliError::System { what: "Ctrl-C handler", problem: error.to_string() })
}

/// Waits for Ctrl-C while something runs that can be stopped.
pub(crate) struct Watch;

impl Watch {
    pub(crate) fn start() -> Self {
        PRESSED.store(false, Ordering::Release);
        WATCHED.store(true, Ordering::Release);
        Self
    }

    /// Returns when Ctrl-C is pressed.
    pub(crate) async fn pressed(&self) {
        // A permit left over from an earlier watch only makes the loop turn once more.
        while !PRESSED.load(Ordering::Acquire) {
            WAKE.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.store(false, Ordering::Release);
    }
}
