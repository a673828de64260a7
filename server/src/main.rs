//! `atelico-server`: serves the models of the cache over HTTP.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use atelico_server::{ServeArgs, ServerError};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Serves the models of the cache over HTTP, in OpenAI's wire format.
#[derive(Parser)]
#[command(version, after_help = atelico_server::SERVE_EXAMPLES)]
struct Args {
    #[command(flatten)]
    serve: ServeArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the async runtime did not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(atelico_server::serve(args.serve));
    // A load that still runs on a blocking thread must not hold up the exit.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServerError::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
