//! Packed weights as integer codes: sixteen consecutive elements, a *run*, at a time.
//!
//! A unit loads 16 bytes of codes at once. With most formats these hold two runs, which need not be
//! neighbours: the low and the high halves of the bytes. Such a pair is a *chunk* of 32 elements.
//! An element is `scale (code - zero) - min` with an unsigned code of at most eight bits.

use cubecl::prelude::*;

use super::unpack::{Planes, byte, half_to_f32, half_word, signed};
use crate::formats::Format;

/// Elements of a run.
pub(super) const RUN: u32 = 16;
/// Elements of a chunk.
pub(super) const CHUNK: u32 = 32;

/// The code that stands for zero.
pub(super) fn zero(format: Format) -> u32 {
    match format {
        Format::Q4_0 => 8,
        Format::Q5_0 => 16,
        Format::Q8_0 | Format::IQ4_NL | Format::IQ4_XS | Format::MXFP4 => 128,
        Format::Q6_K => 32,
        Format::Q3_K => 4,
        Format::TQ1_0 | Format::TQ2_0 => 1,
        _ => 0,
    }
}

/// Whether elements have a minimum beside their scale.
pub(super) fn has_min(format: Format) -> bool {
    matches!(format, Format::Q4_1 | Format::Q5_1 | Format::Q2_K | Format::Q4_K | Format::Q5_K | Format::Q1_0)
}

/// Chunks of a block.
pub(super) fn chunks_per_block(format: Format) -> u32 {
    format.block_len() as u32 / CHUNK
}

/// Where run `run` of chunk `chunk` starts in its block, in elements.
#[cube]
pub(super) fn run_start(chunk: u32, run: u32, #[comptime] format: Format) -> u32 {
    if comptime!(matches!(format, Format::Q4_K | Format::Q5_K)) {
        (chunk / 2) * 64 + run * 32 + (chunk % 2) * 16
    } else if comptime!(matches!(format, Format::Q6_K)) {
        (chunk / 4) * 128 + run * 64 + (chunk % 4) * 16
    } else if comptime!(matches!(format, Format::Q2_K | Format::Q3_K | Format::TQ2_0)) {
        ((chunk % 4) / 2) * 128 + (chunk / 4) * 64 + run * 32 + (chunk % 2) * 16
    } else {
        chunk * 32 + run * 16
    }
}

/// Chunk and run of the `index`-th sixteen elements of a block: what [`run_start`] is the inverse of.
#[cube]
pub(super) fn run_of(index: u32, #[comptime] format: Format) -> (u32, u32) {
    if comptime!(matches!(format, Format::Q4_K | Format::Q5_K)) {
        (index / 4 * 2 + index % 2, index / 2 % 2)
    } else if comptime!(matches!(format, Format::Q6_K)) {
        (index / 8 * 4 + index % 4, index / 4 % 2)
    } else if comptime!(matches!(format, Format::Q2_K | Format::Q3_K | Format::TQ2_0)) {
        (index / 4 % 2 * 4 + index / 8 * 2 + index % 2, index / 2 % 2)
    } else {
        (index / 2, index % 2)
    }
}

/// One where the byte is above zero bits `count` wide, for the four low bits of `bits`.
#[cube]
fn spread(bits: u32) -> u32 {
    ((bits & 0xf) * 0x0020_4081) & 0x0101_0101
}

/// ggml's `kvalues_iq4nl` of four nibbles, offset by 128.
#[cube]
fn iq4_codes(nibbles: u32) -> u32 {
    let mut out = 0u32;
    #[unroll]
    for j in 0..4u32 {
        let q = (nibbles >> (8 * j)) & 0xf;
        let low = select(q < 4, 0x3f2d_1801u32, 0x766a_5d4fu32);
        let high = select(q < 12, 0xa699_8d81u32, 0xf1d9_c5b5u32);
        let word = select(q < 8, low, high);
        out |= ((word >> ((q % 4) * 8)) & 0xff) << (8 * j);
    }
    out
}

/// ggml's `kvalues_mxfp4` (twice the E2M1 value) of four nibbles, offset by 128.
#[cube]
fn mxfp4_codes(nibbles: u32) -> u32 {
    let mut out = 0u32;
    #[unroll]
    for j in 0..4u32 {
        let q = (nibbles >> (8 * j)) & 0xf;
        let word = select((q & 7) < 4, 0x0302_0100u32, 0x0c08_0604u32);
        let magnitude = (word >> ((q % 4) * 8)) & 0xff;
        out |= select(q < 8, 128 + magnitude, 128 - magnitude) << (8 * j);
    }
    out
}

/// Digit `digit` of four bytes of five ternary digits each.
#[cube]
fn ternary_codes(bytes: u32, digit: u32) -> u32 {
    let low = select(digit == 0, 1u32, select(digit == 1, 3u32, 9u32));
    let power = select(digit < 3, low, select(digit == 3, 27u32, 81u32));
    let mut out = 0u32;
    #[unroll]
    for j in 0..4u32 {
        let q = (((bytes >> (8 * j)) & 0xff) * power) & 0xff;
        out |= ((q * 3) >> 8) << (8 * j);
    }
    out
}

/// The codes of a run, four a word.
///
/// `vectors` and `words` are the same buffer; `block` counts the matrix' blocks.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn run_codes<N: Size>(
    vectors: &[Vector<u32, N>],
    words: &[u32],
    planes: &Planes,
    block: u32,
    chunk: u32,
    run: u32,
    out: &mut Array<u32>,
    #[comptime] format: Format,
) {
    if comptime!(matches!(format, Format::Q8_0)) {
        let codes = vectors[(block * 2 + run) as usize];
        #[unroll]
        for i in 0..4usize {
            out[i] = codes.extract(i) ^ 0x8080_8080;
        }
    } else if comptime!(matches!(format, Format::Q1_0)) {
        let bits = words[(block * 4 + chunk) as usize] >> (run * 16);
        #[unroll]
        for i in 0..4u32 {
            out[i as usize] = spread(bits >> (4 * i));
        }
    } else if comptime!(matches!(format, Format::TQ1_0)) {
        // Runs 0 to 9 lie in bytes 0..32, 10 to 14 in bytes 32..48, the last in the plane beside.
        let index = chunk * 2 + run;
        let body = index < 10;
        let part = select(body, index % 2, 2u32);
        let codes = vectors[(block * 3 + part) as usize];
        let tail = words[(planes.p1 + block) as usize];
        let last = index == 15;
        let digit = select(body, index / 2, index - 10);
        #[unroll]
        for i in 0..4u32 {
            out[i as usize] =
                ternary_codes(select(last, tail, codes.extract(comptime!(i as usize))), select(last, i, digit));
        }
    } else if comptime!(matches!(format, Format::Q2_K | Format::Q3_K | Format::TQ2_0)) {
        let codes = vectors[(block * 4 + chunk % 4) as usize];
        let pair = (chunk / 4) * 2 + run;
        #[unroll]
        for i in 0..4usize {
            out[i] = (codes.extract(i) >> (pair * 2)) & 0x0303_0303;
        }
        if comptime!(matches!(format, Format::Q3_K)) {
            let high = vectors[(planes.p1 / 4 + block * 2 + chunk % 2) as usize];
            let bit = ((chunk % 4) / 2) * 4 + pair;
            #[unroll]
            for i in 0..4usize {
                out[i] |= ((high.extract(i) >> bit) & 0x0101_0101) << 2;
            }
        }
    } else {
        let codes = vectors[(block * comptime!(chunks_per_block(format)) + chunk) as usize];
        #[unroll]
        for i in 0..4usize {
            out[i] = (codes.extract(i) >> (run * 4)) & 0x0f0f_0f0f;
        }
        if comptime!(matches!(format, Format::Q5_K)) {
            let high = vectors[(planes.p1 / 4 + block * 2 + chunk % 2) as usize];
            let bit = (chunk / 2) * 2 + run;
            #[unroll]
            for i in 0..4usize {
                out[i] |= ((high.extract(i) >> bit) & 0x0101_0101) << 4;
            }
        } else if comptime!(matches!(format, Format::Q6_K)) {
            let high = vectors[(planes.p1 / 4 + block * 4 + (chunk / 4) * 2 + chunk % 2) as usize];
            let shift = ((chunk % 4) / 2) * 2 + run * 4;
            #[unroll]
            for i in 0..4usize {
                out[i] |= ((high.extract(i) >> shift) & 0x0303_0303) << 4;
            }
        } else if comptime!(matches!(format, Format::Q5_0 | Format::Q5_1)) {
            let bits = words[(planes.p1 + block) as usize] >> (run * 16);
            #[unroll]
            for i in 0..4u32 {
                out[i as usize] |= spread(bits >> (4 * i)) << 4;
            }
        } else if comptime!(matches!(format, Format::IQ4_NL | Format::IQ4_XS)) {
            #[unroll]
            for i in 0..4usize {
                out[i] = iq4_codes(out[i]);
            }
        } else if comptime!(matches!(format, Format::MXFP4)) {
            #[unroll]
            for i in 0..4usize {
                out[i] = mxfp4_codes(out[i]);
            }
        }
    }
}

/// Scale and minimum of a run.
#[cube]
pub(super) fn run_scale(
    words: &[u32],
    planes: &Planes,
    block: u32,
    chunk: u32,
    run: u32,
    #[comptime] format: Format,
    #[comptime] native: bool,
) -> (f32, f32) {
    if comptime!(matches!(format, Format::Q4_K | Format::Q5_K)) {
        let q4 = comptime!(matches!(format, Format::Q4_K));
        let scale_plane = if comptime!(q4) { planes.p1 } else { planes.p2 };
        let dm_plane = if comptime!(q4) { planes.p2 } else { planes.p3 };
        // Two scales and two minima of six bits, a byte each.
        let pair = words[(scale_plane + block * 4 + chunk / 2) as usize] >> (run * 16);
        let dm = words[(dm_plane + block) as usize];
        (
            half_to_f32(dm, native) * f32::cast_from(pair & 0xff),
            half_to_f32(dm >> 16, native) * f32::cast_from((pair >> 8) & 0xff),
        )
    } else if comptime!(matches!(format, Format::Q6_K)) {
        let index = (chunk / 4) * 8 + run * 4 + chunk % 4;
        let scale = signed((byte(words, planes.p2, block * 16 + index) + 128) & 0xff, 128);
        (half_to_f32(half_word(words, planes.p3, block), native) * scale, 0.0f32)
    } else if comptime!(matches!(format, Format::Q2_K)) {
        let index = ((chunk % 4) / 2) * 8 + ((chunk / 4) * 2 + run) * 2 + chunk % 2;
        let scale = byte(words, planes.p1, block * 16 + index);
        let dm = words[(planes.p2 + block) as usize];
        (
            half_to_f32(dm, native) * f32::cast_from(scale & 0xf),
            half_to_f32(dm >> 16, native) * f32::cast_from(scale >> 4),
        )
    } else if comptime!(matches!(format, Format::Q3_K)) {
        let index = ((chunk % 4) / 2) * 8 + ((chunk / 4) * 2 + run) * 2 + chunk % 2;
        let base = block * 12;
        let low = byte(words, planes.p2, base + index % 8) >> ((index / 8) * 4);
        let top = byte(words, planes.p2, base + 8 + index % 4) >> ((index / 4) * 2);
        (half_to_f32(half_word(words, planes.p3, block), native) * signed((low & 0xf) | ((top & 3) << 4), 32), 0.0f32)
    } else if comptime!(matches!(format, Format::IQ4_XS)) {
        let low = byte(words, planes.p1, block * 4 + chunk / 2) >> ((chunk % 2) * 4);
        let high = half_word(words, planes.p2, block) >> (chunk * 2);
        (half_to_f32(half_word(words, planes.p3, block), native) * signed((low & 0xf) | ((high & 3) << 4), 32), 0.0f32)
    } else if comptime!(matches!(format, Format::Q4_1)) {
        let dm = words[(planes.p1 + block) as usize];
        (half_to_f32(dm, native), -half_to_f32(dm >> 16, native))
    } else if comptime!(matches!(format, Format::Q5_1)) {
        let dm = words[(planes.p2 + block) as usize];
        (half_to_f32(dm, native), -half_to_f32(dm >> 16, native))
    } else if comptime!(matches!(format, Format::MXFP4)) {
        let e = byte(words, planes.p1, block);
        (f32::reinterpret(select(e < 2, 0x0020_0000u32 << e, (e - 1) << 23)), 0.0f32)
    } else if comptime!(matches!(format, Format::Q1_0)) {
        let d = half_to_f32(half_word(words, planes.p1, block), native);
        (2.0f32 * d, d)
    } else if comptime!(matches!(format, Format::Q5_0 | Format::TQ1_0)) {
        (half_to_f32(half_word(words, planes.p2, block), native), 0.0f32)
    } else {
        (half_to_f32(half_word(words, planes.p1, block), native), 0.0f32)
    }
}

/// Bits that hold every code of a format: 4, 6 or 8.
pub(super) fn code_bits(format: Format) -> u32 {
    match format {
        Format::Q8_0 | Format::IQ4_NL | Format::IQ4_XS | Format::MXFP4 => 8,
        Format::Q5_0 | Format::Q5_1 | Format::Q5_K | Format::Q6_K => 6,
        _ => 4,
    }
}

/// What [`code_float`] adds to a code: the least power of two that no code reaches, so that sums
/// lose as little as they can to it.
pub(super) fn code_offset(format: Format) -> f32 {
    (1u32 << code_bits(format)) as f32
}

/// The exponent field of a float between the offset and twice it. Kernels take it as an argument: a
/// mask and an exponent that are both constants cannot share one instruction.
pub(super) fn code_exponent(format: Format) -> u32 {
    code_offset(format).to_bits()
}

/// [`code_offset`] plus byte `at` of `word`, without a conversion, which takes four times a plain
/// instruction.
#[cube]
pub(super) fn code_float(word: u32, exponent: u32, #[comptime] at: u32, #[comptime] format: Format) -> f32 {
    // The code becomes the top of the mantissa of a float that has the offset's exponent.
    let bits = comptime!(code_bits(format));
    let shift = comptime!(23 - bits as i32 - 8 * at as i32);
    let moved =
        if comptime!(shift >= 0) { word << comptime!(shift as u32) } else { word >> comptime!((-shift) as u32) };
    let mask = comptime!(((1u32 << bits) - 1) << (23 - bits));
    f32::reinterpret((moved & mask) | exponent)
}
