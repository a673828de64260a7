//! Measures the parts that a user's tokens per second are made of: kernels, decode steps, prompts,
//! loading.
//!
//! ```sh
//! cargo build --release --features vulkan,cuda
//! target/release/atelico-benches kernels --device cuda --formats Q4_K,BF16
//! target/release/atelico-benches decode model.gguf --device cuda --peer "c128 x1=788"
//! ```

mod decode;
mod kernels;
mod load;
mod prefill;
mod prompts;
mod table;
mod timing;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a benchmark may fail with.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measure kernels, decode, prompts and loading
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Products with weights of every format: time, bytes, share of the memory bandwidth, FLOP/s
    Kernels(kernels::KernelArgs),
    /// Decode steps of a model at several contexts and numbers of streams
    Decode(decode::DecodeArgs),
    /// Prompts of several lengths and numbers of streams
    Prefill(prefill::PrefillArgs),
    /// Time to load and to the first token, and the process's largest memory
    Load(load::LoadArgs),
    /// What `load` runs in a process of its own
    #[command(hide = true)]
    LoadOnce(load::OnceArgs),
}

fn main() -> ExitCode {
    let result = match Args::parse().part {
        Part::Kernels(args) => kernels::run(&args),
        Part::Decode(args) => decode::run(&args),
        Part::Prefill(args) => prefill::run(&args),
        Part::Load(args) => load::run(&args),
        Part::LoadOnce(args) => load::run_once(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
