//! `prefill`: prompts, from their submission to the logits of their last token.

use std::time::Instant;

use atelico_engine::handle::ModelHandle;
use clap::Args;

use crate::Result;
use crate::prompts::{ModelArgs, finish, label, submit};
use crate::table::Table;

/// Arguments of `prefill`.
#[derive(Args)]
pub(crate) struct PrefillArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Times that each row is measured; the best counts
    #[arg(short, long, default_value_t = 3)]
    repetitions: usize,
}

pub(crate) fn run(args: &PrefillArgs) -> Result<()> {
    let model = args.model.load(None)?;
    let parameters = model.info().parameters as f64;
    let columns = ["TOKENS/S", "MILLISECONDS", "TFLOP/S"];
    let mut table = Table::new("CONTEXT", 14, &columns, &args.model.peer);
    for &context in &args.model.contexts {
        // The token that follows the prompt needs a position, too.
        let tokens = context.min(model.info().context_length - 1);
        for &streams in &args.model.streams {
            // The first run compiles and tunes.
            let mut best = measure(&model, tokens, streams)?;
            for _ in 0..args.repetitions {
                best = best.min(measure(&model, tokens, streams)?);
            }
            let rate = (tokens * streams) as f64 / best;
            let cells =
                [format!("{rate:.1}"), format!("{:.2}", best * 1e3), format!("{:.2}", 2e-12 * parameters * rate)];
            table.row(&label(context, streams), &cells, rate);
        }
    }
    println!("TFLOP/S counts two operations a parameter and token, whether the token uses it or not.");
    table.end()
}

/// Seconds until the prompts of all streams are computed.
fn measure(model: &ModelHandle, tokens: usize, streams: usize) -> Result<f64> {
    let start = Instant::now();
    let running = (0..streams).map(|i| submit(model, i, tokens, 1)).collect::<Result<Vec<_>>>()?;
    for generation in running {
        finish(generation)?;
    }
    Ok(start.elapsed().as_secs_f64())
}
