//! `atelico serve`.

use atelico_server::{ServeArgs, ServerError};

use crate::error::CliError;

/// Runs the server until it is told to stop; it handles its signals itself.
pub(crate) fn run(args: ServeArgs) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::System { what: "event loop", problem: error.to_string() })?;
    let served = runtime.block_on(atelico_server::serve(args));
    // Models may still be loading on its threads; nobody waits for them any more.
    runtime.shutdown_background();
    match served {
        Err(ServerError::Interrupted) => Err(CliError::Interrupted),
        Err(ServerError::Engine(error)) => Err(error.into()),
        Err(error @ ServerError::Argument { .. }) => Err(CliError::Usage(error.to_string())),
        served => Ok(served?),
    }
}
