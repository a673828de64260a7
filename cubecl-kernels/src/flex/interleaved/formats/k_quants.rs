//! The k-quants: super-blocks of 256 columns.

use super::{
    Block, Stored, add_halves, add_scaled, begin, bits, byte, dots, finish, less, mask, minus, shl, signed_byte,
    small_dots, subtract_min, write, zeros,
};
use crate::flex::interleaved::columns::Columns;
use crate::flex::interleaved::memory::Line;
use crate::flex::simd::Dots;

/// Words: scales, then codes of two bits. Halves: scale of the scales, of the minima.
#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct Q2_K;

impl Block for Q2_K {
    const WORDS: usize = 20;
    const HALVES: usize = 2;
    const SUBS: usize = 8;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        // The sums of bytes are stored times -8.
        let (d, min) = (block.half(simd, 0), simd.mul(block.half(simd, 1), simd.splat(0.125)));
        for (sub, x) in x[..8].iter().enumerate() {
            let codes = two_bits(simd, block, 4, sub);
            let low = small_dots(simd, &x.bytes[..4], zeros(simd), &codes[..4]);
            let high = small_dots(simd, &x.bytes[4..], zeros(simd), &codes[4..]);
            let (scales, minima) = (block.bits(simd, sub / 2, 0, 0x0f), block.bits(simd, sub / 2, 4, 0x0f));
            add_halves(simd, x, two_fields(simd, scales, sub, d), [low, high], sums);
            let offsets = [less(simd, x, 0, 8), less(simd, x, 1, 8)];
            add_halves(simd, x, two_fields(simd, minima, sub, min), offsets, sums);
        }
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        let (d, min) = (block.half(simd, 0), minus(simd, 1.0, block.half(simd, 1)));
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (scales, minima) = (block.bits(simd, sub / 2, 0, 0x0f), block.bits(simd, sub / 2, 4, 0x0f));
            let (scales, offsets) = (two_fields(simd, scales, sub, d), two_fields(simd, minima, sub, min));
            write(simd, &two_bits(simd, block, 4, sub), scales, offsets, out);
        }
    }
}

/// The codes of two bits of a sub-block, in words from `first`.
#[inline(always)]
fn two_bits<S: Dots>(simd: S, block: Stored<'_>, first: usize, sub: usize) -> [S::I; 8] {
    let mut codes = [simd.splat_i32(0); 8];
    for w in 0..8 {
        codes[w] = block.bits(simd, first + 8 * (sub / 4) + w, 2 * (sub % 4), 3);
    }
    codes
}

/// The bytes of an even or odd sub-block's halves, times `size`.
#[inline(always)]
fn two_fields<S: Dots>(simd: S, words: S::I, sub: usize, size: S::F) -> [S::F; 2] {
    let at = 2 * (sub % 2);
    [simd.mul(size, simd.to_f32(byte(simd, words, at))), simd.mul(size, simd.to_f32(byte(simd, words, at + 1)))]
}

/// Words: high bits, codes of two bits, scales. Halves: scale.
#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct Q3_K;

impl Block for Q3_K {
    const WORDS: usize = 27;
    const HALVES: usize = 1;
    const SUBS: usize = 8;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        for (sub, x) in x[..8].iter().enumerate() {
            let codes = three_bits(simd, block, sub);
            let low = small_dots(simd, &x.bytes[..4], less(simd, x, 0, 4), &codes[..4]);
            let high = small_dots(simd, &x.bytes[4..], less(simd, x, 1, 4), &codes[4..]);
            add_halves(simd, x, scales_less_32(simd, block, sub), [low, high], sums);
        }
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scales = scales_less_32(simd, block, sub);
            let offsets = [minus(simd, 4.0, scales[0]), minus(simd, 4.0, scales[1])];
            write(simd, &three_bits(simd, block, sub), scales, offsets, out);
        }
    }
}

/// The codes of a sub-block of `Q3_K`.
#[inline(always)]
fn three_bits<S: Dots>(simd: S, block: Stored<'_>, sub: usize) -> [S::I; 8] {
    let mut codes = two_bits(simd, block, 8, sub);
    for w in 0..8 {
        codes[w] = simd.or(codes[w], shl(simd, block.bits(simd, w, sub, 1), 2));
    }
    codes
}

/// The scales of a sub-block's halves of `Q3_K`.
#[inline(always)]
fn scales_less_32<S: Dots>(simd: S, block: Stored<'_>, sub: usize) -> [S::F; 2] {
    // Scale `i` of 16: byte `i % 4`, low nibbles in two words, high bits in the third.
    let scale = block.bits(simd, 24 + sub / 2 % 2, 4 * (sub / 4), 0x0f);
    let scale = simd.or(scale, shl(simd, block.bits(simd, 26, 2 * (sub / 2), 0x03), 4));
    let [first, second] = two_fields(simd, scale, sub, simd.splat(1.0));
    let (d, offset) = (block.half(simd, 0), simd.splat(32.0));
    [simd.mul(d, simd.sub(first, offset)), simd.mul(d, simd.sub(second, offset))]
}

/// Bits 6 and 7 of each byte, as bits 4 and 5.
#[inline(always)]
fn top_bits<S: Dots>(simd: S, words: S::I) -> S::I {
    shl(simd, bits(simd, words, 6, 0x03), 4)
}

/// Six-bit scales of sub-blocks 0 to 3 and 4 to 7, then their minima: ggml's `get_scale_min_k4` on
/// whole words.
#[inline(always)]
fn scales_and_minima<S: Dots>(simd: S, block: Stored<'_>) -> [[S::I; 2]; 2] {
    let (a, b, c) = (block.word(simd, 0), block.word(simd, 1), block.word(simd, 2));
    [
        [bits(simd, a, 0, 0x3f), simd.or(bits(simd, c, 0, 0x0f), top_bits(simd, a))],
        [bits(simd, b, 0, 0x3f), simd.or(bits(simd, c, 4, 0x0f), top_bits(simd, b))],
    ]
}

/// `Q4_K` and `Q5_K`: the nibbles from word `first` and, where there are any, fifth bits from word 3.
///
/// Everything is shifted by constants: by a variable it takes several instructions.
#[inline(always)]
fn add_with_minima<S: Dots, const N: usize, const FIVE: bool>(
    simd: S,
    block: Stored<'_>,
    x: &[Columns<N>],
    sums: &mut [S::F; N],
) {
    let first = if FIVE { 11 } else { 3 };
    let (d, min) = (block.half(simd, 0), block.half(simd, 1));
    let [scales, minima] = scales_and_minima(simd, block);
    let mut fifth = [simd.splat_i32(0); 8];
    if FIVE {
        for w in 0..8 {
            fifth[w] = block.word(simd, 3 + w);
        }
    }
    for part in 0..2 {
        let (mut scales, mut minima) = (scales[part], minima[part]);
        for pair in 0..2 {
            let words = &block.words[first + 8 * (2 * part + pair)..][..8];
            let x = &x[4 * part + 2 * pair..][..2];
            // Each word is read once: memory is fastest when it is read in order.
            let mut products = [zeros::<S, N>(simd); 2];
            let mut pairs = [begin(simd, &products[0]); 2];
            for w in 0..8 {
                let both = simd.load_words(&words[w]);
                for high in 0..2 {
                    let mut codes = bits(simd, both, 4 * high, 0x0f);
                    if FIVE {
                        let bit = simd.shr(fifth[w], simd.splat_i32(high as i32));
                        codes = simd.or(codes, simd.and(shl(simd, bit, 4), mask(simd, 0x10)));
                    }
                    for n in 0..N {
                        if FIVE {
                            products[high][n] = simd.dot(products[high][n], codes, x[high].bytes[w][n]);
                        } else {
                            pairs[high][n] = simd.add_pairs(pairs[high][n], codes, x[high].bytes[w][n]);
                        }
                    }
                }
                if FIVE {
                    fifth[w] = simd.shr(fifth[w], simd.splat_i32(2));
                }
            }
            if !FIVE {
                finish(simd, pairs[0], &mut products[0]);
                finish(simd, pairs[1], &mut products[1]);
            }
            for (x, products) in x.iter().zip(products) {
                add_scaled(simd, x, simd.mul(d, simd.to_f32(byte(simd, scales, 0))), products, sums);
                subtract_min(simd, x, simd.mul(min, simd.to_f32(byte(simd, minima, 0))), sums);
                scales = simd.shr(scales, simd.splat_i32(8));
                minima = simd.shr(minima, simd.splat_i32(8));
            }
        }
    }
}

/// [`Block::unpack`] of what [`add_with_minima`] multiplies.
#[inline(always)]
fn unpack_with_minima<S: Dots, const FIVE: bool>(simd: S, block: Stored<'_>, out: &mut [Line]) {
    let first = if FIVE { 11 } else { 3 };
    let (d, min) = (block.half(simd, 0), minus(simd, 1.0, block.half(simd, 1)));
    let [scales, minima] = scales_and_minima(simd, block);
    for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let mut codes = zeros::<S, 8>(simd);
        for w in 0..8 {
            codes[w] = block.bits(simd, first + 8 * (sub / 2) + w, 4 * (sub % 2), 0x0f);
            if FIVE {
                codes[w] = simd.or(codes[w], shl(simd, block.bits(simd, 3 + w, sub, 1), 4));
            }
        }
        let scale = simd.mul(d, simd.to_f32(byte(simd, scales[sub / 4], sub % 4)));
        let offset = simd.mul(min, simd.to_f32(byte(simd, minima[sub / 4], sub % 4)));
        write(simd, &codes, [scale; 2], [offset; 2], out);
    }
}

/// Words: scales and minima, then codes. Halves: scale of the scales, of the minima.
#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct Q4_K;

impl Block for Q4_K {
    const WORDS: usize = 35;
    const HALVES: usize = 2;
    const SUBS: usize = 8;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        add_with_minima::<S, N, false>(simd, block, x, sums);
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        unpack_with_minima::<S, false>(simd, block, out);
    }
}

/// Words: scales and minima, fifth bits, codes. Halves: scale of the scales, of the minima.
#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct Q5_K;

impl Block for Q5_K {
    const WORDS: usize = 43;
    const HALVES: usize = 2;
    const SUBS: usize = 8;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        add_with_minima::<S, N, true>(simd, block, x, sums);
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        unpack_with_minima::<S, true>(simd, block, out);
    }
}

/// Words: scales; then, for either half and each of eight words, the low nibbles of quarters 0 and
/// 2, of 1 and 3, and the high bits of all four. Halves: scale of the scales.
#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct Q6_K;

impl Block for Q6_K {
    const WORDS: usize = 52;
    const HALVES: usize = 1;
    const SUBS: usize = 8;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        for (part, x) in x[..8].as_chunks::<4>().0.iter().enumerate() {
            if N <= 4 {
                six_bits_in_order(simd, block, part, x, 0, sums);
                six_bits_in_order(simd, block, part, x, 1, sums);
            } else {
                six_bits::<S, N, 0>(simd, block, part, &x[0], sums);
                six_bits::<S, N, 1>(simd, block, part, &x[1], sums);
                six_bits::<S, N, 2>(simd, block, part, &x[2], sums);
                six_bits::<S, N, 3>(simd, block, part, &x[3], sums);
            }
        }
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (part, quarter) = (sub / 4, sub % 4);
            let mut codes = zeros::<S, 8>(simd);
            for w in 0..8 {
                codes[w] = six_bit_codes(simd, block, part, quarter, w);
            }
            let scales = six_bit_scales(simd, block, part, quarter);
            let offsets = [minus(simd, 32.0, scales[0]), minus(simd, 32.0, scales[1])];
            write(simd, &codes, scales, offsets, out);
        }
    }
}

/// The scales of the halves of a quarter of half a block.
#[inline(always)]
fn six_bit_scales<S: Dots>(simd: S, block: Stored<'_>, part: usize, quarter: usize) -> [S::F; 2] {
    let (d, scales) = (block.half(simd, 0), block.word(simd, 2 * part + quarter / 2));
    let at = 2 * (quarter % 2);
    [
        simd.mul(d, simd.to_f32(signed_byte(simd, scales, at))),
        simd.mul(d, simd.to_f32(signed_byte(simd, scales, at + 1))),
    ]
}

/// One half of the words of all four quarters, each word read once.
#[inline(always)]
fn six_bits_in_order<S: Dots, const N: usize>(
    simd: S,
    block: Stored<'_>,
    part: usize,
    x: &[Columns<N>; 4],
    half: usize,
    sums: &mut [S::F; N],
) {
    let mut products = [zeros::<S, N>(simd); 4];
    for quarter in 0..4 {
        products[quarter] = less(simd, &x[quarter], half, 32);
    }
    for w in 4 * half..4 * half + 4 {
        for quarter in 0..4 {
            let codes = six_bit_codes(simd, block, part, quarter, w);
            for n in 0..N {
                products[quarter][n] = simd.dot(products[quarter][n], codes, x[quarter].bytes[w][n]);
            }
        }
    }
    let d = block.half(simd, 0);
    for quarter in 0..4 {
        let scale = signed_byte(simd, block.word(simd, 2 * part + quarter / 2), 2 * (quarter % 2) + half);
        add_scaled(simd, &x[quarter], simd.mul(d, simd.to_f32(scale)), products[quarter], sums);
    }
}

/// The codes of word `w` of a quarter of half a block.
#[inline(always)]
fn six_bit_codes<S: Dots>(simd: S, block: Stored<'_>, part: usize, quarter: usize, w: usize) -> S::I {
    let at = 4 + 24 * part + 3 * w;
    let low = block.bits(simd, at + quarter % 2, 4 * (quarter / 2), 0x0f);
    let high = block.word(simd, at + 2);
    let high = match quarter {
        0 => shl(simd, high, 4),
        1 => shl(simd, high, 2),
        2 => high,
        _ => simd.shr(high, simd.splat_i32(2)),
    };
    simd.or(low, simd.and(high, mask(simd, 0x30)))
}

/// Sub-block `QUARTER` of half a block; constant, so that shifts are.
#[inline(always)]
fn six_bits<S: Dots, const N: usize, const QUARTER: usize>(
    simd: S,
    block: Stored<'_>,
    part: usize,
    x: &Columns<N>,
    sums: &mut [S::F; N],
) {
    let mut codes = [simd.splat_i32(0); 8];
    for w in 0..8 {
        codes[w] = six_bit_codes(simd, block, part, QUARTER, w);
    }
    let low = dots(simd, &x.bytes[..4], less(simd, x, 0, 32), &codes[..4]);
    let high = dots(simd, &x.bytes[4..], less(simd, x, 1, 32), &codes[4..]);
    add_halves(simd, x, six_bit_scales(simd, block, part, QUARTER), [low, high], sums);
}
