//! `load`: time to load and to the first token, and the process's largest memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use atelico_engine::device::DeviceSpec;
use atelico_engine::handle::LoadOptions;
use clap::Args;
use serde_json::{Value, json};

use crate::Result;
use crate::prompts::{finish, submit};
use crate::table::{Peer, Table};

/// Arguments of `load`.
#[derive(Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    once: OnceArgs,

    /// Processes that load the model, one after the other
    #[arg(short, long, default_value_t = 3)]
    repetitions: usize,

    /// A peer's milliseconds of loading for a row, as `run 1=850`; may be given several times
    #[arg(long, value_name = "LABEL=FIGURE")]
    peer: Vec<Peer>,
}

/// What one process loads.
#[derive(Args)]
pub(crate) struct OnceArgs {
    /// A checkpoint's folder or .gguf file
    model: PathBuf,

    /// cpu, cuda[:N], vulkan[:N], metal, webgpu[:N] or auto
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,

    /// Tokens of context
    #[arg(long, default_value_t = 512)]
    context: usize,
}

/// Measures loading in processes of their own: memory once used is never given back.
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    let file_bytes = weight_file_bytes(&args.once.model)? as f64;
    println!("{}: {:.1} MB on {}", args.once.model.display(), file_bytes / 1e6, args.once.device);
    let columns = ["LOAD MS", "GB/S", "FIRST TOKEN MS", "PEAK MB", "PEAK / FILE"];
    let mut table = Table::new("PROCESS", 10, &columns, &args.peer);
    for run in 1..=args.repetitions {
        let found = in_a_process(&args.once)?;
        let number = |key: &str| found[key].as_f64().ok_or_else(|| format!("the process reported no {key}"));
        let load_ms = number("load_ms")?;
        let peak = found["peak_bytes"].as_f64();
        let shown = |value: Option<f64>, decimals: usize| value.map_or("-".into(), |v| format!("{v:.decimals$}"));
        let cells = [
            format!("{load_ms:.1}"),
            format!("{:.2}", file_bytes / load_ms / 1e6),
            format!("{:.1}", number("first_token_ms")?),
            shown(peak.map(|peak| peak / 1e6), 1),
            shown(peak.map(|peak| peak / file_bytes), 2),
        ];
        table.row(&format!("run {run}"), &cells, load_ms);
    }
    if !args.peer.is_empty() {
        println!("RATIO: our time over the peer's; below 1 is faster.");
    }
    table.end()
}

fn in_a_process(args: &OnceArgs) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("load-once").arg(&args.model);
    command.args(["--device", &args.device.to_string(), "--context", &args.context.to_string()]);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the process that loads ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Loads, generates a token and prints what that took as JSON.
pub(crate) fn run_once(args: &OnceArgs) -> Result<()> {
    let options = LoadOptions { device: args.device, context: Some(args.context), ..LoadOptions::default() };
    let start = Instant::now();
    let model = atelico_models::load(&args.model, &options)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    finish(submit(&model, 0, 8, 1)?)?;
    let first_token_ms = start.elapsed().as_secs_f64() * 1e3 - load_ms;
    println!("{}", json!({"load_ms": load_ms, "first_token_ms": first_token_ms, "peak_bytes": peak_bytes()}));
    Ok(())
}

/// The largest resident memory of this process; `None` where the system does not tell.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Bytes of a model's weight files.
fn weight_file_bytes(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            bytes += path.metadata()?.len();
        }
    }
    Ok(bytes)
}
