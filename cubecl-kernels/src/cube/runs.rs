//! Packed weights as integer codes: sixteen consecutive elements, a *run*, at a time.
//!
//! A unit loads 16 bytes of codes at once. With most formats these hold two runs, which need not be
//! neighbours: the low and the high halves of the bytes. Such a pair is a *chunk* of 32 elements.
//! An element is `scale (code - zero) - min` with an unsigned code of at most eight bits.

use cubecl::prelude::*;

use super::unpack::{Planes, half_to_f32, signed};
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

/// Words that hold the codes of a run, or all but their highest bits.
fn code_words(format: Format) -> u32 {
    if format == Format::Q1_0 { 1 } else { 4 }
}

/// Words that hold the highest bits of its codes.
fn high_words(format: Format) -> u32 {
    match format {
        Format::Q3_K | Format::Q5_K | Format::Q6_K => 4,
        Format::Q5_0 | Format::Q5_1 | Format::TQ1_0 => 1,
        _ => 0,
    }
}

/// Words that hold its scale and minimum.
fn scale_words(format: Format) -> u32 {
    match format {
        Format::Q3_K | Format::IQ4_XS => 3,
        Format::Q2_K | Format::Q4_K | Format::Q5_K | Format::Q6_K => 2,
        _ => 1,
    }
}

/// Words that a run is loaded as.
pub(super) fn run_words(format: Format) -> u32 {
    code_words(format) + high_words(format) + scale_words(format)
}

#[cube]
fn load_vector<N: Size>(vectors: &[Vector<u32, N>], from: u32, raw: &mut Array<u32>, #[comptime] at: u32) {
    let vector = vectors[from as usize];
    #[unroll]
    for i in 0..4u32 {
        raw[comptime!((at + i) as usize)] = vector.extract(comptime!(i as usize));
    }
}

/// Loads a run as it is stored, [`run_words`] from `at` on, and computes nothing: much can be asked for before
/// the first of it is needed. The runs of a chunk share loads.
///
/// `vectors` and `words` are the same buffer; `block` counts the matrix' blocks.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn load_run<N: Size>(
    vectors: &[Vector<u32, N>],
    words: &[u32],
    planes: &Planes,
    block: u32,
    chunk: u32,
    run: u32,
    raw: &mut Array<u32>,
    #[comptime] at: u32,
    #[comptime] format: Format,
) {
    if comptime!(matches!(format, Format::Q1_0)) {
        raw[at as usize] = words[(block * 4 + chunk) as usize];
    } else if comptime!(matches!(format, Format::Q8_0)) {
        load_vector(vectors, block * 2 + run, raw, at);
    } else if comptime!(matches!(format, Format::TQ1_0)) {
        // Runs 0 to 9 lie in bytes 0..32, 10 to 14 in bytes 32..48, the last in the plane beside.
        let index = chunk * 2 + run;
        load_vector(vectors, block * 3 + select(index < 10, index % 2, 2u32), raw, at);
    } else if comptime!(matches!(format, Format::Q2_K | Format::Q3_K | Format::TQ2_0)) {
        load_vector(vectors, block * 4 + chunk % 4, raw, at);
    } else {
        load_vector(vectors, block * comptime!(chunks_per_block(format)) + chunk, raw, at);
    }

    let high = comptime!(at + code_words(format));
    if comptime!(matches!(format, Format::Q3_K | Format::Q5_K)) {
        load_vector(vectors, planes.p1 / 4 + block * 2 + chunk % 2, raw, high);
    } else if comptime!(matches!(format, Format::Q6_K)) {
        load_vector(vectors, planes.p1 / 4 + block * 4 + (chunk / 4) * 2 + chunk % 2, raw, high);
    } else if comptime!(high_words(format) == 1) {
        raw[high as usize] = words[(planes.p1 + block) as usize];
    }

    let scale = comptime!((at + code_words(format) + high_words(format)) as usize);
    if comptime!(matches!(format, Format::Q4_K)) {
        raw[scale] = words[(planes.p1 + block * 4 + chunk / 2) as usize];
        raw[comptime!(scale + 1)] = words[(planes.p2 + block) as usize];
    } else if comptime!(matches!(format, Format::Q5_K)) {
        raw[scale] = words[(planes.p2 + block * 4 + chunk / 2) as usize];
        raw[comptime!(scale + 1)] = words[(planes.p3 + block) as usize];
    } else if comptime!(matches!(format, Format::Q6_K)) {
        raw[scale] = words[(planes.p2 + block * 4 + chunk / 4 * 2 + run) as usize];
        raw[comptime!(scale + 1)] = words[(planes.p3 + block / 2) as usize];
    } else if comptime!(matches!(format, Format::Q2_K)) {
        raw[scale] = words[(planes.p1 + block * 4 + scale_index(chunk, run) / 4) as usize];
        raw[comptime!(scale + 1)] = words[(planes.p2 + block) as usize];
    } else if comptime!(matches!(format, Format::Q3_K)) {
        let base = planes.p2 + block * 3;
        raw[scale] = words[(base + scale_index(chunk, run) % 8 / 4) as usize];
        raw[comptime!(scale + 1)] = words[(base + 2) as usize];
        raw[comptime!(scale + 2)] = words[(planes.p3 + block / 2) as usize];
    } else if comptime!(matches!(format, Format::IQ4_XS)) {
        raw[scale] = words[(planes.p1 + block) as usize];
        raw[comptime!(scale + 1)] = words[(planes.p2 + block / 2) as usize];
        raw[comptime!(scale + 2)] = words[(planes.p3 + block / 2) as usize];
    } else if comptime!(matches!(format, Format::Q4_1)) {
        raw[scale] = words[(planes.p1 + block) as usize];
    } else if comptime!(matches!(format, Format::Q5_1)) {
        raw[scale] = words[(planes.p2 + block) as usize];
    } else if comptime!(matches!(format, Format::MXFP4)) {
        raw[scale] = words[(planes.p1 + block / 4) as usize];
    } else if comptime!(matches!(format, Format::Q5_0 | Format::TQ1_0)) {
        raw[scale] = words[(planes.p2 + block / 2) as usize];
    } else {
        raw[scale] = words[(planes.p1 + block / 2) as usize];
    }
}

/// Which of the sixteen scales of a Q2_K or Q3_K block is a run's.
#[cube]
fn scale_index(chunk: u32, run: u32) -> u32 {
    ((chunk % 4) / 2) * 8 + ((chunk / 4) * 2 + run) * 2 + chunk % 2
}

/// The codes of a run that was loaded from `at` on, four a word.
#[cube]
pub(super) fn run_codes(
    raw: &Array<u32>,
    chunk: u32,
    run: u32,
    out: &mut Array<u32>,
    #[comptime] at: u32,
    #[comptime] format: Format,
) {
    let high = comptime!(at + code_words(format));
    if comptime!(matches!(format, Format::Q1_0)) {
        let bits = raw[at as usize] >> (run * 16);
        #[unroll]
        for i in 0..4u32 {
            out[i as usize] = spread(bits >> (4 * i));
        }
    } else if comptime!(matches!(format, Format::TQ1_0)) {
        let index = chunk * 2 + run;
        let last = index == 15;
        let digit = select(index < 10, index / 2, index - 10);
        let tail = raw[high as usize];
        #[unroll]
        for i in 0..4u32 {
            let word = select(last, tail, raw[comptime!((at + i) as usize)]);
            out[i as usize] = ternary_codes(word, select(last, i, digit));
        }
    } else {
        #[unroll]
        for i in 0..4u32 {
            let word = raw[comptime!((at + i) as usize)];
            let pair = (chunk / 4) * 2 + run;
            let mut code = if comptime!(matches!(format, Format::Q8_0)) {
                word ^ 0x8080_8080
            } else if comptime!(matches!(format, Format::Q2_K | Format::Q3_K | Format::TQ2_0)) {
                (word >> (pair * 2)) & 0x0303_0303
            } else {
                (word >> (run * 4)) & 0x0f0f_0f0f
            };
            if comptime!(matches!(format, Format::Q3_K)) {
                let bit = ((chunk % 4) / 2) * 4 + pair;
                code |= ((raw[comptime!((high + i) as usize)] >> bit) & 0x0101_0101) << 2;
            }
            if comptime!(matches!(format, Format::Q5_K)) {
                let bit = (chunk / 2) * 2 + run;
                code |= ((raw[comptime!((high + i) as usize)] >> bit) & 0x0101_0101) << 4;
            } else if comptime!(matches!(format, Format::Q6_K)) {
                let shift = ((chunk % 4) / 2) * 2 + run * 4;
                code |= ((raw[comptime!((high + i) as usize)] >> shift) & 0x0303_0303) << 4;
            } else if comptime!(matches!(format, Format::Q5_0 | Format::Q5_1)) {
                code |= spread((raw[high as usize] >> (run * 16)) >> (4 * i)) << 4;
            } else if comptime!(matches!(format, Format::IQ4_NL | Format::IQ4_XS)) {
                code = iq4_codes(code);
            } else if comptime!(matches!(format, Format::MXFP4)) {
                code = mxfp4_codes(code);
            }
            out[i as usize] = code;
        }
    }
}

/// Byte `index` of a word.
#[cube]
fn byte_of(word: u32, index: u32) -> u32 {
    (word >> (index * 8)) & 0xff
}

/// The float16 that is half `index % 2` of a word.
#[cube]
fn half_of(word: u32, index: u32, #[comptime] native: bool) -> f32 {
    half_to_f32(word >> (index % 2 * 16), native)
}

/// Scale and minimum of a run of block `block` that was loaded from `at` on.
#[cube]
pub(super) fn run_scale(
    raw: &Array<u32>,
    block: u32,
    chunk: u32,
    run: u32,
    #[comptime] at: u32,
    #[comptime] format: Format,
    #[comptime] native: bool,
) -> (f32, f32) {
    let at = comptime!((at + code_words(format) + high_words(format)) as usize);
    let first = raw[at];
    if comptime!(matches!(format, Format::Q4_K | Format::Q5_K)) {
        // Two scales and two minima of six bits, a byte each.
        let pair = first >> (run * 16);
        let dm = raw[comptime!(at + 1)];
        (
            half_to_f32(dm, native) * f32::cast_from(pair & 0xff),
            half_to_f32(dm >> 16, native) * f32::cast_from((pair >> 8) & 0xff),
        )
    } else if comptime!(matches!(format, Format::Q6_K)) {
        let scale = signed((byte_of(first, chunk % 4) + 128) & 0xff, 128);
        (half_of(raw[comptime!(at + 1)], block, native) * scale, 0.0f32)
    } else if comptime!(matches!(format, Format::Q2_K)) {
        let scale = byte_of(first, scale_index(chunk, run) % 4);
        let dm = raw[comptime!(at + 1)];
        (
            half_to_f32(dm, native) * f32::cast_from(scale & 0xf),
            half_to_f32(dm >> 16, native) * f32::cast_from(scale >> 4),
        )
    } else if comptime!(matches!(format, Format::Q3_K)) {
        let index = scale_index(chunk, run);
        let low = byte_of(first, index % 4) >> ((index / 8) * 4);
        let top = byte_of(raw[comptime!(at + 1)], index % 4) >> ((index / 4) * 2);
        let scale = signed((low & 0xf) | ((top & 3) << 4), 32);
        (half_of(raw[comptime!(at + 2)], block, native) * scale, 0.0f32)
    } else if comptime!(matches!(format, Format::IQ4_XS)) {
        let low = byte_of(first, chunk / 2) >> ((chunk % 2) * 4);
        let high = (raw[comptime!(at + 1)] >> (block % 2 * 16)) >> (chunk * 2);
        let scale = signed((low & 0xf) | ((high & 3) << 4), 32);
        (half_of(raw[comptime!(at + 2)], block, native) * scale, 0.0f32)
    } else if comptime!(matches!(format, Format::Q4_1 | Format::Q5_1)) {
        (half_to_f32(first, native), -half_to_f32(first >> 16, native))
    } else if comptime!(matches!(format, Format::MXFP4)) {
        let e = byte_of(first, block % 4);
        (f32::reinterpret(select(e < 2, 0x0020_0000u32 << e, (e - 1) << 23)), 0.0f32)
    } else if comptime!(matches!(format, Format::Q1_0)) {
        let d = half_of(first, block, native);
        (2.0f32 * d, d)
    } else {
        (half_of(first, block, native), 0.0f32)
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
