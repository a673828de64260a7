//! Products with interleaved bfloat16.
#![allow(clippy::needless_range_loop)]

use super::layout::Interleaved;
use super::memory::Line;
use super::pairs::with_pairs;
use super::product::{NARROW, WIDE, store};
use super::twelve_bits::{Rows, TwelveBits};
use crate::flex::pool;
use crate::flex::simd::{Bf16, Dots, Kernel, LANES, Level, Unit};

/// All rows of `x` in panels, the last filled up with zeros: element `[panel][column][row]`.
pub(super) enum Activations<'a> {
    /// A single row of float32.
    One(Vec<[f32; 1]>),
    /// Float32.
    Wide(Vec<[f32; WIDE]>),
    /// Float32, for few registers.
    Narrow(Vec<[f32; NARROW]>),
    /// Pairs of columns as bfloat16, for a processor that multiplies them.
    Pairs(Bf16, Vec<[u32; WIDE]>),
    /// Few rows for weights in twelve bits.
    Few(&'a TwelveBits, Few<'a>),
}

/// Few rows, as many as their name says at most.
pub(super) enum Few<'a> {
    One(Rows<'a, 1>),
    Two(Rows<'a, 2>),
    Four(Rows<'a, 4>),
    Eight(Rows<'a, WIDE>),
}

impl<'a> Activations<'a> {
    /// # Shapes
    /// x `[m, cols]`, `cols` those of `matrix`.
    pub(super) fn new(level: Level, matrix: &'a Interleaved, x: &'a [f32], m: usize) -> Self {
        let cols = matrix.cols();
        if let (Some(proof), Some(twelve_bits)) = (level.bf16(), matrix.twelve_bits())
            && m <= WIDE
        {
            let few = match m {
                ..=1 => Few::One(Rows::new(proof, x, cols)),
                2 => Few::Two(Rows::new(proof, x, cols)),
                3..=4 => Few::Four(Rows::new(proof, x, cols)),
                _ => Few::Eight(Rows::new(proof, x, cols)),
            };
            return Self::Few(twelve_bits, few);
        }
        if m == 1 {
            return Self::One(bytemuck::cast_slice(x).to_vec());
        }
        if m > WIDE
            && let Some(proof) = level.bf16().filter(|proof| proof.outruns_float32())
        {
            let pair = |x: &[f32], at: usize| bf16_bits(x[2 * at]) | bf16_bits(x[2 * at + 1]) << 16;
            return Self::Pairs(proof, panels(x, cols, cols / 2, pair));
        }
        if level.many_registers() {
            Self::Wide(panels(x, cols, cols, |x, at| x[at]))
        } else {
            Self::Narrow(panels(x, cols, cols, |x, at| x[at]))
        }
    }

    /// Writes the products with as many groups from the `first` as `out` has rows for.
    pub(super) fn multiply(&self, level: Level, matrix: &Interleaved, first: usize, out: &mut [&mut [f32]]) {
        let rows = out.first().map_or(0, |out| out.len());
        let starts = (0..rows).step_by(LANES);
        match self {
            Self::One(x) => {
                with_pairs(level, matrix, first, rows, |groups| level.run(Panel { groups, x, from_memory: true, out }))
            }
            Self::Wide(x) => with_pairs(level, matrix, first, rows, |groups| each(level, groups, x, out)),
            Self::Narrow(x) => with_pairs(level, matrix, first, rows, |groups| each(level, groups, x, out)),
            Self::Pairs(proof, x) => with_pairs(level, matrix, first, rows, |groups| {
                for (x, out) in x.chunks_exact(matrix.cols() / 2).zip(out.chunks_mut(WIDE)) {
                    for (start, group) in starts.clone().zip(groups) {
                        store(out, start, &proof.product(group, x));
                    }
                }
            }),
            Self::Few(weights, few) => {
                for start in starts {
                    let group = first + start / LANES;
                    let lines = matrix.group(group);
                    match few {
                        Few::One(x) => store(out, start, &weights.product(group, lines, x)),
                        Few::Two(x) => store(out, start, &weights.product(group, lines, x)),
                        Few::Four(x) => store(out, start, &weights.product(group, lines, x)),
                        Few::Eight(x) => store(out, start, &weights.product(group, lines, x)),
                    }
                }
            }
        }
    }
}

/// The products of some groups with all panels.
fn each<const N: usize>(level: Level, groups: &[&[Line]], x: &[[f32; N]], out: &mut [&mut [f32]]) {
    let cols = groups.first().map_or(1, |group| 2 * group.len());
    for (i, (x, out)) in x.chunks_exact(cols).zip(out.chunks_mut(N)).enumerate() {
        level.run(Panel { groups, x, from_memory: i == 0, out });
    }
}

/// The bits of the nearest bfloat16, ties to even, without a branch.
fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}

/// Panels `[length, N]` of `element(row, i)`.
fn panels<T: Copy + Default + Send + Sync, const N: usize>(
    x: &[f32],
    cols: usize,
    length: usize,
    element: impl Fn(&[f32], usize) -> T + Sync,
) -> Vec<[T; N]> {
    let mut out = vec![[T::default(); N]; x.len().div_ceil(N * cols) * length];
    let mut work: Vec<_> = out.chunks_exact_mut(length).zip(x.chunks(N * cols)).collect();
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
    groups: &'a [&'a [Line]],
    /// `[cols, N]`
    x: &'a [[f32; N]],
    /// Whether nobody has read the groups yet.
    from_memory: bool,
    out: &'a mut [&'b mut [f32]],
}

impl<const N: usize> Kernel for Panel<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) {
        for (i, group) in self.groups.iter().enumerate() {
            store(self.out, i * LANES, &product(simd, group, self.x, self.from_memory));
        }
    }
}

/// The products of sixteen rows; each is summed in four parts for a single row of `x`, else in two if registers
/// hold them.
#[inline(always)]
fn product<S: Dots, const N: usize>(simd: S, words: &[Line], x: &[[f32; N]], from_memory: bool) -> [Unit; N] {
    let mut sums = [[simd.splat(0.0); N]; 4];
    let high = simd.splat_i32(0xffff_0000_u32.cast_signed());
    for (words, x) in words.as_chunks::<2>().0.iter().zip(x.as_chunks::<4>().0) {
        if from_memory {
            words.iter().for_each(|line| simd.prefetch(line));
        }
        for i in 0..2 {
            let pair = simd.load_words(&words[i]);
            let low = simd.bits_as_f32(simd.shl(pair, simd.splat_i32(16)));
            let high = simd.bits_as_f32(simd.and(pair, high));
            let even = if N == 1 { 2 * i } else { 0 };
            let odd = if N == 1 || S::MANY_REGISTERS { even + 1 } else { even };
            for n in 0..N {
                sums[even][n] = simd.fma(low, simd.splat(x[2 * i][n]), sums[even][n]);
            }
            for n in 0..N {
                sums[odd][n] = simd.fma(high, simd.splat(x[2 * i + 1][n]), sums[odd][n]);
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
