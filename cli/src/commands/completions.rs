//! `atelico completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::CliError;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  atelico completions bash > ~/.local/share/bash-completion/completions/atelico
  atelico completions fish > ~/.config/fish/completions/atelico.fish
  atelico completions powershell > atelico.ps1";

/// Arguments of `atelico completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    // Into memory first: the generator panics when its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "atelico", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
