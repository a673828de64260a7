//! The one-level formats of 32 elements.

use super::{
    Block, Stored, add_scaled, bits, dots, less, minus, shl, signed_dots, small_dots, subtract_min, write,
    write_signed, zeros,
};
use crate::flex::interleaved::columns::Columns;
use crate::flex::interleaved::memory::Line;
use crate::flex::simd::Dots;

/// Four-bit codes in the four words from `first`: the low nibbles, then the high ones.
#[inline(always)]
pub(super) fn nibbles<S: Dots>(simd: S, block: Stored<'_>, first: usize) -> [S::I; 8] {
    let mut codes = [simd.splat_i32(0); 8];
    for w in 0..4 {
        codes[w] = block.bits(simd, first + w, 0, 0x0f);
        codes[4 + w] = block.bits(simd, first + w, 4, 0x0f);
    }
    codes
}

/// Five-bit codes, the fifth bits in the first word.
#[inline(always)]
fn five_bits<S: Dots>(simd: S, block: Stored<'_>) -> [S::I; 8] {
    let (mut codes, high) = (nibbles(simd, block, 1), block.word(simd, 0));
    for w in 0..8 {
        codes[w] = simd.or(codes[w], shl(simd, bits(simd, high, w, 0x01), 4));
    }
    codes
}

#[inline(always)]
fn four_bits<S: Dots>(simd: S, block: Stored<'_>) -> [S::I; 8] {
    nibbles(simd, block, 0)
}

#[inline(always)]
fn eight_bits<S: Dots>(simd: S, block: Stored<'_>) -> [S::I; 8] {
    let mut codes = [simd.splat_i32(0); 8];
    for w in 0..8 {
        codes[w] = block.word(simd, w);
    }
    codes
}

macro_rules! one_level {
    ($name:ident, $words:literal, $offset:literal, $codes:ident, $dots:ident) => {
        #[allow(non_camel_case_types)]
        pub(in crate::flex::interleaved) struct $name;

        impl Block for $name {
            const WORDS: usize = $words;
            const HALVES: usize = 1;
            const SUBS: usize = 1;

            #[inline(always)]
            fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
                let dots = $dots(simd, &x[0].bytes, less(simd, &x[0], 2, $offset), &$codes(simd, block));
                add_scaled(simd, &x[0], block.half(simd, 0), dots, sums);
            }

            #[inline(always)]
            fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
                let scale = block.half(simd, 0);
                write(simd, &$codes(simd, block), [scale; 2], [minus(simd, $offset as f32, scale); 2], out);
            }
        }
    };
    ($name:ident, $words:literal, min, $codes:ident, $dots:ident) => {
        #[allow(non_camel_case_types)]
        pub(in crate::flex::interleaved) struct $name;

        impl Block for $name {
            const WORDS: usize = $words;
            const HALVES: usize = 2;
            const SUBS: usize = 1;

            #[inline(always)]
            fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
                let dots = $dots(simd, &x[0].bytes, zeros(simd), &$codes(simd, block));
                add_scaled(simd, &x[0], block.half(simd, 0), dots, sums);
                let min = simd.sub(simd.splat(0.0), block.half(simd, 1));
                subtract_min(simd, &x[0], min, sums);
            }

            #[inline(always)]
            fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
                write(simd, &$codes(simd, block), [block.half(simd, 0); 2], [block.half(simd, 1); 2], out);
            }
        }
    };
}

one_level!(Q4_0, 4, 8, four_bits, small_dots);
one_level!(Q4_1, 4, min, four_bits, small_dots);
one_level!(Q5_0, 5, 16, five_bits, dots);
one_level!(Q5_1, 5, min, five_bits, dots);

#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct Q8_0;

impl Block for Q8_0 {
    const WORDS: usize = 8;
    const HALVES: usize = 1;
    const SUBS: usize = 1;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        let dots = signed_dots(simd, &x[0], &eight_bits(simd, block));
        add_scaled(simd, &x[0], block.half(simd, 0), dots, sums);
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        write_signed(simd, &eight_bits(simd, block), block.half(simd, 0), out);
    }
}
