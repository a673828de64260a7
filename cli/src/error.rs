//! The command line's error type and its exit codes.

use std::io;
use std::path::PathBuf;

use atelico_engine::Error as EngineError;

/// Exit code of a command that failed.
const FAILURE: u8 = 1;
/// Exit code of a command line that can't be carried out as written.
const USAGE: u8 = 2;
/// Exit code after Ctrl-C, as shells expect it: 128 and the signal's number.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The server could not start or failed.
    #[error(transparent)]
    Server(#[from] atelico_server::ServerError),
    /// The command line contradicts itself or lacks something.
    #[error("{0}")]
    Usage(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// Standard input could not be read.
    #[error("standard input: {0}")]
    Input(io::Error),
    /// A file named on the command line could not be used.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The terminal failed.
    #[error("terminal: {0}")]
    Terminal(#[from] rustyline::error::ReadlineError),
    /// The operating system refused something the command needs to run at all.
    #[error("{what}: {problem}")]
    System {
        /// What could not be set up.
        what: &'static str,
        /// What the operating system said.
        problem: String,
    },
}

impl CliError {
    /// The process's exit code: 0, 1 (failure), 2 (usage) or 130 (Ctrl-C).
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Interrupted => INTERRUPTED,
            Self::Usage(_) | Self::Engine(EngineError::Parameter { .. }) => USAGE,
            _ => FAILURE,
        }
    }

    /// Whether nothing is printed: the reader of a pipe went away, or the user pressed Ctrl-C.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.exit_code(), 0 | INTERRUPTED)
    }

    /// The message in one line, with the next step where there is one.
    pub(crate) fn line(&self) -> String {
        let message = self.to_string().replace(['\n', '\r'], " ");
        match self.next_step() {
            Some(step) => format!("{message}; {step}"),
            None => message,
        }
    }

    fn next_step(&self) -> Option<&'static str> {
        let Self::Engine(error) = self else { return None };
        match error {
            EngineError::Model { .. } => Some("`atelico models` lists what is there; a folder or .gguf file works too"),
            EngineError::ContextExceeded { .. } => Some("shorten the prompt or raise --context"),
            EngineError::Template(_) => Some("`atelico generate` completes plain text without one"),
            EngineError::Device { .. } => Some("choose another with --device"),
            _ => None,
        }
    }
}
