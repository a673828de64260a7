//! Runs template programs, which come with a checkpoint from a stranger, at arm's length.
//!
//! Fuel bounds a program's steps, but not all that a step can cost: values nest as deep as the fuel
//! lasts, and the interpreter compares, prints and drops them recursively; lazy sequences can be
//! stacked until one access takes ages. So every rendering has a thread of its own, whose stack
//! holds the deepest value that the fuel can build, and a deadline, after which nobody waits for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use minijinja::{Environment, Value};

use super::{MAX_OUTPUT_BYTES, template_error};
use crate::{Error, Result};

/// Longest a rendering may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// Renderings past their deadline that may still be running; more are not started beside them.
const MAX_ABANDONED: usize = 2;
/// Address space of a rendering's stack; memory is taken only for what is used. The fuel lasts for
/// some 540,000 nested lists, which print with 420 bytes of stack each.
const STACK_BYTES: usize = if cfg!(target_pointer_width = "64") { 512 << 20 } else { 64 << 20 };

/// An environment and its running programs.
pub(super) struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    environment: Environment<'static>,
    abandoned: AtomicUsize,
}

impl Sandbox {
    pub(super) fn new(environment: Environment<'static>) -> Self {
        Self { shared: Arc::new(Shared { environment, abandoned: AtomicUsize::new(0) }) }
    }

    /// Whether there is a template called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.shared.environment.get_template(name).is_ok()
    }

    /// Renders the template `name`.
    pub(super) fn render(&self, name: &'static str, context: Value) -> Result<String> {
        if self.shared.abandoned.load(Ordering::Acquire) >= MAX_ABANDONED {
            return Err(Error::Template("earlier renderings have not ended yet".into()));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let shared = self.shared.clone();
        let ending = Ending { shared: self.shared.clone(), ended: ended.clone() };
        let run = move || {
            let _ending = ending;
            drop(sender.send(shared.run(name, context)));
        };
        thread::Builder::new()
            .name("chat-template".into())
            .stack_size(STACK_BYTES)
            .spawn(run)
            .map_err(|error| Error::Template(format!("no thread to render on: {error}")))?;
        let result = receiver.recv_timeout(DEADLINE).or_else(|error| {
            self.shared.abandoned.fetch_add(1, Ordering::AcqRel);
            if error == RecvTimeoutError::Timeout && !ended.swap(true, Ordering::AcqRel) {
                return Ok(Err(Error::Template(format!("rendering took longer than {DEADLINE:?}"))));
            }
            // It ended in this very moment, or panicked.
            self.shared.abandoned.fetch_sub(1, Ordering::AcqRel);
            receiver.recv()
        });
        result.unwrap_or_else(|_| Err(Error::Template("rendering failed".into())))
    }
}

/// Tells, when a rendering's thread ends, whether the caller still waits: of the two, the one that
/// comes second finds `ended` set.
struct Ending {
    shared: Arc<Shared>,
    ended: Arc<AtomicBool>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            self.shared.abandoned.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Shared {
    fn run(&self, name: &str, context: Value) -> Result<String> {
        let mut output = Limited(Vec::new());
        let template = self.environment.get_template(name).map_err(template_error)?;
        template.render_captured_to(context, &mut output).map_err(template_error)?;
        String::from_utf8(output.0).map_err(|error| Error::Template(error.to_string()))
    }
}

/// Collects output up to [`MAX_OUTPUT_BYTES`].
struct Limited(Vec<u8>);

impl io::Write for &mut Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_OUTPUT_BYTES - self.0.len() {
            return Err(io::Error::other(format!("the text exceeds {MAX_OUTPUT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
