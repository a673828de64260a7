//! The memory bandwidth that a decode step is measured against.

use std::hint::black_box;
use std::time::Instant;

/// Bytes read per pass: far beyond any cache.
const BYTES: usize = 256 << 20;
const PASSES: usize = 4;
/// Two threads saturate the memory of most desktop processors; more only add noise.
const THREADS: usize = 2;

/// Bytes per nanosecond (GB/s) that `device` reads from its memory, the best of a few passes;
/// `None` where there is no measurement for that device.
pub(crate) fn measure(device: &str) -> Option<f64> {
    (device == "cpu").then(measure_cpu)
}

fn measure_cpu() -> f64 {
    let words = vec![1u64; BYTES / size_of::<u64>()];
    let part = words.len().div_ceil(THREADS);
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for words in words.chunks(part) {
                scope.spawn(move || black_box(sum(words)));
            }
        });
        BYTES as f64 / start.elapsed().as_nanos() as f64
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}

/// Sums in independent lanes so that memory, not the addition, is what takes the time.
fn sum(words: &[u64]) -> u64 {
    const LANES: usize = 32;
    let (blocks, rest) = words.as_chunks::<LANES>();
    let mut lanes = [0u64; LANES];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().chain(rest).fold(0, |total, word| total.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_takes_every_word() {
        let words: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&words), 499_500);
    }

    #[test]
    fn only_known_devices_are_measured() {
        assert!(measure("cpu").is_some_and(|rate| rate > 0.1));
        assert_eq!(measure("no-such-device"), None);
    }
}
