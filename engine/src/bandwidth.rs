//! The memory bandwidth that a decode step is measured against.

use std::fmt;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use atelico_kernels::ReadBuffer;
use burn::tensor::{DType, Device, Tensor};
use serde_json::Value;

use crate::device::{DeviceKind, OpenDevice};
use crate::generate::graph;
use crate::weights::Checkpoint;

/// Bytes that the CPU reads in a pass: far beyond any cache.
const BYTES: usize = 256 << 20;
/// Bytes of a buffer that a GPU copies, which every device can bind whole.
const BUFFER: usize = 128 << 20;
/// Buffers that it copies in turn: together far beyond any cache.
const BUFFERS: usize = 4;
/// Passes, of which the best counts.
const PASSES: usize = 4;
/// How long a pass over a GPU's memory takes, so that starting it does not count.
const PASS: Duration = Duration::from_millis(20);

/// A device's measured memory bandwidth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Gigabytes (10⁹ bytes) per second.
    pub gb_per_second: f64,
    /// What was timed.
    pub traffic: Traffic,
}

/// What moved while a bandwidth was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A buffer was read.
    Read,
    /// A buffer was copied: bytes read and bytes written both count.
    Copy,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Copy => "copy",
        })
    }
}

/// Measures the rate at which the CPU reads its memory, or at which another device copies within
/// its own, the best of a few passes over 256 MiB (CPU) or 512 MiB; `None` where the device has no
/// room for that, or fails.
pub fn measure(opened: &OpenDevice) -> Option<Bandwidth> {
    if opened.kind == DeviceKind::Cpu {
        return Some(Bandwidth { gb_per_second: cpu_read(), traffic: Traffic::Read });
    }
    let _working = graph::working();
    // Burn reports an allocation that fails by a panic.
    let gb_per_second = catch_unwind(AssertUnwindSafe(|| device_copy(&opened.device))).ok().flatten()?;
    Some(Bandwidth { gb_per_second, traffic: Traffic::Copy })
}

/// Bytes of weights that a decode step of one token reads: of an embedding table one row, which does
/// not count, of the experts those that are chosen, and nothing of what only other inputs or
/// multi-token prediction use.
pub fn bytes_per_token(checkpoint: &Checkpoint) -> u64 {
    let tensors = checkpoint.summaries().map(|tensor| (tensor.name, tensor.bytes));
    read_bytes(tensors.collect::<Vec<_>>().as_slice(), expert_share(checkpoint.config()))
}

fn read_bytes(tensors: &[(&str, u64)], expert_share: f64) -> u64 {
    const UNUSED: [&str; 4] = ["mtp.", "visual.", "vision_tower.", "embed_tokens_per_layer."];
    const EMBEDDINGS: [&str; 2] = ["embed_tokens.weight", "embeddings.weight"];
    let untied = tensors.iter().any(|(name, _)| name.ends_with("lm_head.weight"));
    let read = |&(name, bytes): &(&str, u64)| match name {
        name if UNUSED.iter().any(|part| name.contains(part)) => 0,
        name if untied && EMBEDDINGS.iter().any(|end| name.ends_with(end)) => 0,
        name if name.contains(".experts.") => (bytes as f64 * expert_share) as u64,
        _ => bytes,
    };
    tensors.iter().map(read).sum()
}

/// The share of its experts that a token is sent to; 1 without experts.
fn expert_share(config: &Value) -> f64 {
    let config = config.get("text_config").unwrap_or(config);
    let number = |keys: &[&str]| keys.iter().find_map(|key| config.get(key)?.as_f64());
    let all = number(&["num_experts", "num_local_experts", "n_routed_experts"]).filter(|&all| all > 0.0);
    let chosen = number(&["num_experts_per_tok", "top_k_experts"]);
    chosen.zip(all).map_or(1.0, |(chosen, all)| (chosen / all).clamp(0.0, 1.0))
}

fn device_copy(device: &Device) -> Option<f64> {
    const ELEMENTS: usize = BUFFER / size_of::<f32>();
    let buffer = || Tensor::<1>::zeros([ELEMENTS], (device, DType::F32));
    let sources = (0..BUFFERS).map(|_| buffer()).collect::<Vec<_>>();
    // Reads every element and writes it elsewhere. The sum costs what a copy does: memory.
    let copy = |source: &Tensor<1>| source.clone().add_scalar(1.0);
    let copies = |count: usize| -> Option<Duration> {
        let start = Instant::now();
        for _ in 0..count {
            for source in &sources {
                drop(copy(source));
            }
        }
        device.sync().ok()?;
        Some(start.elapsed())
    };
    // Builds the kernel, allocates, and tells whether the device does what it is asked to.
    let last = copy(sources.first()?).narrow(0, ELEMENTS - 1, 1).try_into_data().ok()?;
    if last.try_to_vec::<f32>().ok()? != [1.0] {
        return None;
    }
    copies(1)?;
    // How many fill a pass.
    let one = copies(1)?;
    let count = (PASS.as_nanos() / one.as_nanos().max(1)).clamp(1, 1000) as usize;
    let mut best = Duration::MAX;
    for _ in 0..PASSES {
        best = best.min(copies(count)?);
    }
    drop(sources);
    device.memory_cleanup();
    Some((2 * BUFFER * BUFFERS * count) as f64 / best.as_nanos() as f64)
}

fn cpu_read() -> f64 {
    let buffer = ReadBuffer::new(BYTES);
    let pass = || {
        let start = Instant::now();
        black_box(buffer.read());
        buffer.bytes() as f64 / start.elapsed().as_nanos() as f64
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_its_experts_and_no_table() {
        let tensors = [
            ("model.embed_tokens.weight", 1000),
            ("model.layers.0.mlp.experts.up_proj", 800),
            ("model.layers.0.mlp.shared_experts.up_proj.weight", 30),
            ("mtp.layers.0.q_proj.weight", 7),
        ];
        let config = serde_json::json!({"text_config": {"num_experts": 8, "num_experts_per_tok": 2}});
        assert_eq!(expert_share(&config), 0.25);
        assert_eq!(expert_share(&Value::Null), 1.0);
        assert_eq!(read_bytes(&tensors, 0.25), 1000 + 200 + 30);
        let untied = [&tensors[..], &[("lm_head.weight", 500)]].concat();
        assert_eq!(read_bytes(&untied, 0.25), 500 + 200 + 30);
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn the_cpu_reads() {
        let cpu = crate::device::DeviceSpec::Kind(DeviceKind::Cpu, 0).open().unwrap();
        let bandwidth = measure(&cpu).unwrap();
        assert_eq!(bandwidth.traffic, Traffic::Read);
        assert!(bandwidth.gb_per_second > 0.1);
    }
}
