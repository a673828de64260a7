//! Products with interleaved bfloat16.
#![allow(clippy::needless_range_loop)]

use super::layout::Interleaved;
use super::memory::Line;
use super::product::{WIDE, store};
use crate::flex::pool;
use crate::flex::simd::{Bf16, Dots, Kernel, LANES, Level, Unit};

/// All rows of `x` in panels, the last filled up with zeros: element `[panel][column][row]`.
pub(super) enum Activations {
    /// A single row of float32.
    One(Vec<[f32; 1]>),
    /// Float32.
    Wide(Vec<[f32; WIDE]>),
    /// Pairs of columns as bfloat16, for a processor that multiplies them.
    Pairs(Bf16, Vec<[u32; WIDE]>),
}

impl Activations {
    /// # Shapes
    /// x `[m, cols]`, `cols` even.
    pub(super) fn new(level: Level, x: &[f32], cols: usize, m: usize) -> Self {
        if m == 1 {
            return Self::One(bytemuck::cast_slice(x).to_vec());
        }
        if m > WIDE
            && let Some(proof) = level.bf16()
        {
            let pair = |x: &[f32], at: usize| bf16_bits(x[2 * at]) | bf16_bits(x[2 * at + 1]) << 16;
            return Self::Pairs(proof, panels(x, cols, cols / 2, pair));
        }
        Self::Wide(panels(x, cols, cols, |x, at| x[at]))
    }

    /// Writes the products with as many groups from the `first` as `out` has rows for.
    pub(super) fn multiply(&self, level: Level, matrix: &Interleaved, first: usize, out: &mut [&mut [f32]]) {
        match self {
            Self::One(x) => level.run(Panel { matrix, first, x, out }),
            Self::Wide(x) => {
                for (x, out) in x.chunks_exact(matrix.cols()).zip(out.chunks_mut(WIDE)) {
                    level.run(Panel { matrix, first, x, out });
                }
            }
            Self::Pairs(proof, x) => {
                for (x, out) in x.chunks_exact(matrix.cols() / 2).zip(out.chunks_mut(WIDE)) {
                    let rows = out.first().map_or(0, |out| out.len());
                    for start in (0..rows).step_by(LANES) {
                        let sums = proof.product(matrix.group(first + start / LANES), x);
                        store(out, start, &sums);
                    }
                }
            }
        }
    }
}

/// The bits of the nearest bfloat16, ties to even, without a branch.
fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}

/// Panels `[length, WIDE]` of `element(row, i)`.
fn panels<T: Copy + Default + Send + Sync>(
    x: &[f32],
    cols: usize,
    length: usize,
    element: impl Fn(&[f32], usize) -> T + Sync,
) -> Vec<[T; WIDE]> {
    let mut out = vec![[T::default(); WIDE]; x.len().div_ceil(WIDE * cols) * length];
    let mut work: Vec<_> = out.chunks_exact_mut(length).zip(x.chunks(WIDE * cols)).collect();
    pool::for_each(&mut work, |_, (panel, rows)| {
        for (n, row) in rows.chunks_exact(cols).enumerate() {
            for (at, out) in panel.iter_mut().enumerate() {
                out[n] = element(row, at);
            }
        }
    });
    out
}

/// Some groups and one panel, in float32.
struct Panel<'a, 'b, const N: usize> {
    matrix: &'a Interleaved,
    first: usize,
    /// `[cols, N]`
    x: &'a [[f32; N]],
    out: &'a mut [&'b mut [f32]],
}

impl<const N: usize> Kernel for Panel<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) {
        let rows = self.out.first().map_or(0, |out| out.len());
        for start in (0..rows).step_by(LANES) {
            let group = self.matrix.group(self.first + start / LANES);
            store(self.out, start, &product(simd, group, self.x));
        }
    }
}

/// The products of sixteen rows; each is summed in four parts for a single row of `x`, in two else.
#[inline(always)]
fn product<S: Dots, const N: usize>(simd: S, words: &[Line], x: &[[f32; N]]) -> [Unit; N] {
    let mut sums = [[simd.splat(0.0); N]; 4];
    let high = simd.splat_i32(0xffff_0000_u32.cast_signed());
    for (words, x) in words.as_chunks::<2>().0.iter().zip(x.as_chunks::<4>().0) {
        for i in 0..2 {
            let pair = simd.load_words(&words[i]);
            let low = simd.bits_as_f32(simd.shl(pair, simd.splat_i32(16)));
            let high = simd.bits_as_f32(simd.and(pair, high));
            let part = if N == 1 { 2 * i } else { 0 };
            for n in 0..N {
                sums[part][n] = simd.fma(low, simd.splat(x[2 * i][n]), sums[part][n]);
                sums[part + 1][n] = simd.fma(high, simd.splat(x[2 * i + 1][n]), sums[part + 1][n]);
            }
        }
    }
    let mut out = [[0.0; LANES]; N];
    for n in 0..N {
        let mut sum = simd.add(sums[0][n], sums[1][n]);
        if N == 1 {
            sum = simd.add(sum, simd.add(sums[2][n], sums[3][n]));
        }
        simd.store(sum, &mut out[n]);
    }
    out
}
