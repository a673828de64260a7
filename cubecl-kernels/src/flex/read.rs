//! How fast memory is read.

use super::interleaved::{Line, Lines};
use super::pool;
use super::simd::{Dots, Kernel, LANES, Level};

/// Lines of a task.
const TASK: usize = 1 << 14;

/// Memory to read as a decode step reads its weights: on huge pages, in order, by all threads.
#[derive(Debug)]
pub struct ReadBuffer(Lines);

impl ReadBuffer {
    /// At least `bytes` of ones.
    pub fn new(bytes: usize) -> Self {
        let mut lines = Lines::zeros(bytes.div_ceil(size_of::<Line>()));
        lines.lines_mut().fill([1; LANES]);
        Self(lines)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(self.0.lines())
    }

    /// Reads all of it once; returns how many words it holds, summed up from them.
    pub fn read(&self) -> u64 {
        let mut tasks: Vec<_> = self.0.lines().chunks(TASK).map(|lines| (lines, 0)).collect();
        let level = Level::best();
        pool::for_each(&mut tasks, |_, (lines, sum)| *sum = level.run(Sum(lines)));
        tasks.iter().map(|(_, sum)| sum).sum()
    }
}

struct Sum<'a>(&'a [Line]);

impl Kernel for Sum<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) -> u64 {
        // A sum would wait for itself.
        let mut sums = [simd.splat_i32(0); 4];
        let (blocks, rest) = self.0.as_chunks::<4>();
        for block in blocks {
            for (sum, line) in sums.iter_mut().zip(block) {
                simd.prefetch(line);
                *sum = simd.add_i32(*sum, simd.load_words(line));
            }
        }
        let mut total: u64 = rest.as_flattened().iter().map(|word| u64::from(*word)).sum();
        for sum in sums {
            let mut lanes = [0.0; LANES];
            simd.store(simd.to_f32(sum), &mut lanes);
            total += lanes.iter().map(|lane| *lane as u64).sum::<u64>();
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::ReadBuffer;

    #[test]
    fn every_word_is_read_once() {
        for bytes in [0, 1, 64 * 7, 5 << 20] {
            let buffer = ReadBuffer::new(bytes);
            assert!(buffer.bytes() >= bytes && buffer.bytes() < bytes + 64);
            assert_eq!(buffer.read(), buffer.bytes() as u64 / 4);
        }
    }
}
