//! The products of one block of sixteen rows, format by format.
#![allow(clippy::needless_range_loop)]

mod k_quants;
mod legacy;
mod table;

use super::columns::Columns;
use super::memory::Line;
use crate::flex::simd::{Dots, LANES};

pub(super) use k_quants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub(super) use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(super) use table::{IQ4_NL, IQ4_XS};

/// A format's blocks, interleaved.
pub(super) trait Block {
    /// Words of a row's block.
    const WORDS: usize;
    /// Halves of a row's block.
    const HALVES: usize;
    /// Sub-blocks of 32 columns.
    const SUBS: usize;

    /// Adds the products of a block with `N` rows of activations; lane `r` of `sums[n]` is row `r`.
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]);

    /// Writes the weights as pairs of columns in the nearest bfloat16, `[16 SUBS]` lines.
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]);
}

/// `body` with the type `block` as the format's [`Block`].
macro_rules! with_block {
    ($format:expr, $block:ident => $body:expr) => {
        with_block!($format, $block => $body, Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS)
    };
    ($format:expr, $block:ident => $body:expr, $($name:ident)*) => {
        match $format {
            $(Format::$name => {
                type $block = super::formats::$name;
                $body
            })*
            format => unreachable!("{format} is not interleaved in blocks"),
        }
    };
}
pub(super) use with_block;

/// The words and halves of a block.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) words: &'a [Line],
    pub(super) halves: &'a [[u16; LANES]],
}

impl Stored<'_> {
    #[inline(always)]
    fn word<S: Dots>(self, simd: S, at: usize) -> S::I {
        simd.load_words(&self.words[at])
    }

    /// A field of half-precision numbers.
    #[inline(always)]
    fn half<S: Dots>(self, simd: S, at: usize) -> S::F {
        simd.load_f16(bytemuck::cast_ref(&self.halves[at]))
    }

    /// Word `at` shifted right, and what `mask` leaves of each byte.
    #[inline(always)]
    fn bits<S: Dots>(self, simd: S, at: usize, shift: usize, mask: u8) -> S::I {
        bits(simd, self.word(simd, at), shift, mask)
    }
}

/// `words` shifted right, and what `mask` leaves of each byte.
#[inline(always)]
fn bits<S: Dots>(simd: S, words: S::I, shift: usize, mask: u8) -> S::I {
    simd.and(simd.shr(words, simd.splat_i32(shift as i32)), self::mask(simd, mask))
}

/// `mask` in every byte.
#[inline(always)]
fn mask<S: Dots>(simd: S, mask: u8) -> S::I {
    simd.splat_i32(i32::from_le_bytes([mask; 4]))
}

/// Byte `at` of each word.
#[inline(always)]
fn byte<S: Dots>(simd: S, words: S::I, at: usize) -> S::I {
    simd.and(simd.shr(words, simd.splat_i32(8 * at as i32)), simd.splat_i32(0xff))
}

/// Byte `at` of each word, signed.
#[inline(always)]
fn signed_byte<S: Dots>(simd: S, words: S::I, at: usize) -> S::I {
    simd.shr_signed(shl(simd, words, 24 - 8 * at), simd.splat_i32(24))
}

#[inline(always)]
fn shl<S: Dots>(simd: S, words: S::I, bits: usize) -> S::I {
    simd.shl(words, simd.splat_i32(bits as i32))
}

#[inline(always)]
fn zeros<S: Dots, const N: usize>(simd: S) -> [S::I; N] {
    [simd.splat_i32(0); N]
}

// What follows is plain functions and loops: a closure that is not inlined would be compiled
// without the level's instructions.

/// `-offset Σ x` over a half (0, 1) or all (2) of the columns: sums of products with
/// `code - offset` start there.
#[inline(always)]
fn less<S: Dots, const N: usize>(simd: S, x: &Columns<N>, part: usize, offset: i32) -> [S::I; N] {
    let mut out = zeros(simd);
    for n in 0..N {
        let sum = simd.splat_i32(x.minus_eight[part][n]);
        out[n] = match offset {
            0 => simd.splat_i32(0),
            4 => simd.shr_signed(sum, simd.splat_i32(1)),
            8 => sum,
            _ => shl(simd, sum, offset.ilog2() as usize - 3),
        };
    }
    out
}

/// Adds the products of `codes` with the words `x`.
#[inline(always)]
fn dots<S: Dots, const N: usize>(simd: S, x: &[[[i8; 4]; N]], mut sums: [S::I; N], codes: &[S::I]) -> [S::I; N] {
    if N == 1 {
        // A single sum would wait for itself.
        let mut odd = zeros::<S, N>(simd);
        for (codes, x) in codes.as_chunks::<2>().0.iter().zip(x.as_chunks::<2>().0) {
            sums[0] = simd.dot(sums[0], codes[0], x[0][0]);
            odd[0] = simd.dot(odd[0], codes[1], x[1][0]);
        }
        sums[0] = simd.add_i32(sums[0], odd[0]);
        return sums;
    }
    for (codes, x) in codes.iter().zip(x) {
        for n in 0..N {
            sums[n] = simd.dot(sums[n], *codes, x[n]);
        }
    }
    sums
}

/// [`dots`] of codes of four bits at most, eight words or fewer.
#[inline(always)]
fn small_dots<S: Dots, const N: usize>(simd: S, x: &[[[i8; 4]; N]], mut sums: [S::I; N], codes: &[S::I]) -> [S::I; N] {
    if N == 1 && S::MANY_REGISTERS {
        return dots(simd, x, sums, codes);
    }
    let mut pairs = begin(simd, &sums);
    for (codes, x) in codes.iter().zip(x) {
        for n in 0..N {
            pairs[n] = simd.add_pairs(pairs[n], *codes, x[n]);
        }
    }
    finish(simd, pairs, &mut sums);
    sums
}

#[inline(always)]
fn begin<S: Dots, const N: usize>(simd: S, sums: &[S::I; N]) -> [S::Pairs; N] {
    let mut pairs = [simd.begin(sums[0]); N];
    for n in 1..N {
        pairs[n] = simd.begin(sums[n]);
    }
    pairs
}

#[inline(always)]
fn finish<S: Dots, const N: usize>(simd: S, pairs: [S::Pairs; N], sums: &mut [S::I; N]) {
    for n in 0..N {
        sums[n] = simd.finish(pairs[n], sums[n]);
    }
}

/// The products of signed `codes` with all 32 columns.
#[inline(always)]
fn signed_dots<S: Dots, const N: usize>(simd: S, x: &Columns<N>, codes: &[S::I; 8]) -> [S::I; N] {
    let mut sums = less(simd, x, 2, S::SIGNED_BIAS);
    for (codes, x) in codes.iter().zip(&x.bytes) {
        for n in 0..N {
            sums[n] = simd.dot_signed(sums[n], *codes, x[n]);
        }
    }
    sums
}

/// `sums += scale * dots`, with the activations' scales.
#[inline(always)]
fn add_scaled<S: Dots, const N: usize>(simd: S, x: &Columns<N>, scale: S::F, dots: [S::I; N], sums: &mut [S::F; N]) {
    for n in 0..N {
        sums[n] = simd.fma(simd.to_f32(dots[n]), simd.mul(scale, simd.splat(x.scales[n])), sums[n]);
    }
}

/// `sums += scale_0 * dots_0 + scale_1 * dots_1`, with the activations' scales.
#[inline(always)]
fn add_halves<S: Dots, const N: usize>(
    simd: S,
    x: &Columns<N>,
    scales: [S::F; 2],
    dots: [[S::I; N]; 2],
    sums: &mut [S::F; N],
) {
    for n in 0..N {
        let low = simd.mul(simd.to_f32(dots[0][n]), scales[0]);
        let both = simd.fma(simd.to_f32(dots[1][n]), scales[1], low);
        sums[n] = simd.fma(both, simd.splat(x.scales[n]), sums[n]);
    }
}

/// `sums -= min Σ x`.
#[inline(always)]
fn subtract_min<S: Dots, const N: usize>(simd: S, x: &Columns<N>, min: S::F, sums: &mut [S::F; N]) {
    for n in 0..N {
        sums[n] = simd.fma(min, simd.splat(x.minus_sums[n]), sums[n]);
    }
}

/// Writes the 32 columns `scale code + offset` of a sub-block, with a scale and an offset for either half.
#[inline(always)]
fn write<S: Dots>(simd: S, codes: &[S::I; 8], scales: [S::F; 2], offsets: [S::F; 2], out: &mut [Line]) {
    for (w, out) in out[..16].as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let (scale, offset) = (scales[w / 4], offsets[w / 4]);
        for pair in 0..2 {
            let low = simd.to_f32(byte(simd, codes[w], 2 * pair));
            let high = simd.to_f32(byte(simd, codes[w], 2 * pair + 1));
            simd.store_pairs(simd.fma(low, scale, offset), simd.fma(high, scale, offset), &mut out[pair]);
        }
    }
}

/// [`write`] of signed codes, without an offset.
#[inline(always)]
fn write_signed<S: Dots>(simd: S, codes: &[S::I; 8], scale: S::F, out: &mut [Line]) {
    for (w, out) in out[..16].as_chunks_mut::<2>().0.iter_mut().enumerate() {
        for pair in 0..2 {
            let low = simd.to_f32(signed_byte(simd, codes[w], 2 * pair));
            let high = simd.to_f32(signed_byte(simd, codes[w], 2 * pair + 1));
            simd.store_pairs(simd.mul(low, scale), simd.mul(high, scale), &mut out[pair]);
        }
    }
}

/// `-factor a`.
#[inline(always)]
fn minus<S: Dots>(simd: S, factor: f32, a: S::F) -> S::F {
    simd.mul(simd.splat(-factor), a)
}
