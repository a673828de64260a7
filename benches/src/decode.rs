//! `decode`: steps of several streams at a context.

use atelico_engine::bandwidth;
use atelico_engine::device::DeviceSpec;
use atelico_engine::handle::ModelHandle;
use atelico_engine::weights::Checkpoint;
use clap::Args;

use crate::Result;
use crate::prompts::{ModelArgs, finish, label, submit};
use crate::table::{Table, percent};

/// Tokens of a prompt that the engine computes in a turn; in every turn the streams that run already
/// take a step.
const CHUNK: usize = 512;
/// Steps that streams go on for while the measured one ends.
const SLACK: usize = 8;

/// Arguments of `decode`.
#[derive(Args)]
pub(crate) struct DecodeArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Steps that are measured
    #[arg(short = 'n', long, default_value_t = 64)]
    steps: usize,
}

pub(crate) fn run(args: &DecodeArgs) -> Result<()> {
    let read_bytes = bandwidth::bytes_per_token(&Checkpoint::open(&args.model.model)?) as f64;
    let model = args.model.load(Some(CHUNK))?;
    let columns = ["TOKENS/S", "MICROSECONDS/STEP", "WEIGHTS GB/S", "OF MEMORY"];
    // The first run compiles what was not captured.
    measure(&model, 1, 1, SLACK)?;
    let bandwidth = bandwidth::measure(&model.info().device.parse::<DeviceSpec>()?.open()?);
    if let Some(bandwidth) = &bandwidth {
        let (gb, traffic) = (bandwidth.gb_per_second, bandwidth.traffic);
        println!("OF MEMORY: weights alone, without the cache, of a {traffic}'s {gb:.1} GB/s.");
    }
    let mut table = Table::new("CONTEXT", 14, &columns, &args.model.peer);
    for &context in &args.model.contexts {
        for &streams in &args.model.streams {
            // A first run compiles what its prompts need, and meanwhile the device falls asleep.
            measure(&model, context, streams, args.steps)?;
            let step = measure(&model, context, streams, args.steps)?;
            let (rate, tokens) = (read_bytes / step / 1e9, streams as f64 / step);
            let cells = [
                format!("{tokens:.1}"),
                format!("{:.1}", step * 1e6),
                format!("{rate:.1}"),
                percent(bandwidth.as_ref().map(|bandwidth| rate / bandwidth.gb_per_second)),
            ];
            table.row(&label(context, streams), &cells, tokens);
        }
    }
    table.end()
}

/// Seconds that a step of `streams` takes about `context` tokens into each.
///
/// The last stream to start is measured: while it runs, all others do. They start with shorter
/// prompts, by the steps that they take before it starts.
fn measure(model: &ModelHandle, context: usize, streams: usize, steps: usize) -> Result<f64> {
    let capacity = model.info().context_length;
    let context = context.min(capacity.saturating_sub(steps + SLACK + 1)).max(1);
    let ahead = context.div_ceil(CHUNK);
    let mut running = Vec::new();
    for stream in 0..streams {
        let early = (streams - 1 - stream) * ahead;
        let tokens = context.saturating_sub(early).max(1);
        let more = if early == 0 { 1 } else { early + SLACK };
        running.push(submit(model, stream, tokens, steps + more)?);
    }
    let last = running.pop().ok_or("--streams must be at least 1")?;
    let timings = finish(last)?;
    drop(running);
    // Takes its turn after the slots of the streams that were dropped are free again.
    finish(submit(model, 0, 1, 1)?)?;
    Ok(timings.decode_ms / 1e3 / timings.generated_tokens.saturating_sub(1).max(1) as f64)
}
