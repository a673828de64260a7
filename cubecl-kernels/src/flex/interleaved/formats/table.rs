//! Four-bit codes into a table of 16 uneven steps.

use super::legacy::nibbles;
use super::{Block, Stored, add_scaled, bits, shl, signed_dots, write_signed};
use crate::flex::interleaved::columns::Columns;
use crate::flex::interleaved::memory::Line;
use crate::flex::simd::Dots;

/// ggml's `kvalues_iq4nl`.
const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of the codes that start at word `first`.
#[inline(always)]
fn values<S: Dots>(simd: S, block: Stored<'_>, first: usize) -> [S::I; 8] {
    let mut codes = nibbles(simd, block, first);
    for w in 0..8 {
        codes[w] = simd.look_up_bytes(bytemuck::cast_ref(&VALUES), codes[w]);
    }
    codes
}

#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct IQ4_NL;

impl Block for IQ4_NL {
    const WORDS: usize = 4;
    const HALVES: usize = 1;
    const SUBS: usize = 1;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        let dots = signed_dots(simd, &x[0], &values(simd, block, 0));
        add_scaled(simd, &x[0], block.half(simd, 0), dots, sums);
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        write_signed(simd, &values(simd, block, 0), block.half(simd, 0), out);
    }
}

/// Words: low nibbles of the scales, then codes. Halves: scale, high bits of the scales.
#[allow(non_camel_case_types)]
pub(in crate::flex::interleaved) struct IQ4_XS;

impl Block for IQ4_XS {
    const WORDS: usize = 33;
    const HALVES: usize = 2;
    const SUBS: usize = 8;

    #[inline(always)]
    fn add<S: Dots, const N: usize>(simd: S, block: Stored<'_>, x: &[Columns<N>], sums: &mut [S::F; N]) {
        for (sub, x) in x[..8].iter().enumerate() {
            let dots = signed_dots(simd, x, &values(simd, block, 1 + 4 * sub));
            add_scaled(simd, x, scale(simd, block, sub), dots, sums);
        }
    }

    #[inline(always)]
    fn unpack<S: Dots>(simd: S, block: Stored<'_>, out: &mut [Line]) {
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            write_signed(simd, &values(simd, block, 1 + 4 * sub), scale(simd, block, sub), out);
        }
    }
}

/// The scale of a sub-block of `IQ4_XS`.
#[inline(always)]
fn scale<S: Dots>(simd: S, block: Stored<'_>, sub: usize) -> S::F {
    let (low, high) = (block.word(simd, 0), simd.load_u16(&block.halves[1]));
    let low = simd.and(simd.shr(low, simd.splat_i32(4 * sub as i32)), simd.splat_i32(15));
    let high = bits(simd, high, 2 * sub, 3);
    let high = shl(simd, simd.and(high, simd.splat_i32(3)), 4);
    let code = simd.sub(simd.to_f32(simd.or(low, high)), simd.splat(32.0));
    simd.mul(block.half(simd, 0), code)
}
