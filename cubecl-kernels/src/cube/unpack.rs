//! Stored weights to float32 inside a kernel: eight consecutive elements at a time.
//!
//! Weights lie in planes (`Format::to_planes`): each field of all blocks stored apart, as u32
//! words. The arithmetic is that of ggml's `dequantize_row_*`.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind, UIntKind};
use cubecl::prelude::*;

use crate::formats::Format;

/// Word offsets of a matrix' second, third and fourth plane; the first starts at 0.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Planes {
    pub p1: u32,
    pub p2: u32,
    pub p3: u32,
}

/// The plane offsets of a matrix of `blocks` blocks as launch arguments.
pub(super) fn planes(format: Format, blocks: usize) -> PlanesLaunch {
    let offsets = format.plane_word_offsets(blocks);
    PlanesLaunch::new(offsets[1] as u32, offsets[2] as u32, offsets[3] as u32)
}

#[cube]
fn byte(words: &[u32], plane: u32, index: u32) -> u32 {
    (words[(plane + index / 4) as usize] >> ((index % 4) * 8)) & 0xff
}

#[cube]
fn half_word(words: &[u32], plane: u32, index: u32) -> u32 {
    (words[(plane + index / 2) as usize] >> ((index % 2) * 16)) & 0xffff
}

/// float16 bits to float32, exact for every value on devices without float16 too.
#[cube]
pub(super) fn f16_to_f32(bits: u32) -> f32 {
    let sign = (bits & 0x8000) << 16;
    let magnitude = bits & 0x7fff;
    let exponent = magnitude >> 10;
    let normal = (magnitude << 13) + (112u32 << 23);
    let special = 0x7f80_0000u32 | ((magnitude & 0x3ff) << 13);
    let small = u32::reinterpret(f32::cast_from(magnitude) * (1.0f32 / 16_777_216.0f32));
    let value = select(exponent == 0, small, select(exponent == 31, special, normal));
    f32::reinterpret(value | sign)
}

/// [`f16_to_f32`], in one instruction on devices that have float16.
#[cube]
pub(super) fn half_to_f32(bits: u32, #[comptime] native: bool) -> f32 {
    if comptime!(native) {
        f32::cast_from(half::f16::reinterpret(u16::cast_from(bits & 0xffff)))
    } else {
        f16_to_f32(bits & 0xffff)
    }
}

/// Whether kernels on the device of `tensor` may use float16.
pub(super) fn native_half(tensor: &CubeTensor) -> bool {
    let properties = tensor.client.properties();
    properties.supports_type(ElemType::Float(FloatKind::F16)) && properties.supports_type(ElemType::UInt(UIntKind::U16))
}

/// Sign-extends the low `bits` of a value offset by half its range.
#[cube]
pub(super) fn signed(value: u32, offset: u32) -> f32 {
    f32::cast_from(i32::cast_from(value) - i32::cast_from(offset))
}

/// The int8 in the low byte.
#[cube]
fn int8(value: u32) -> f32 {
    signed((value + 128) & 0xff, 128)
}

/// ggml's `kvalues_iq4nl`, a byte each, offset by 128.
#[cube]
fn iq4_value(q: u32) -> f32 {
    let low = select(q < 4, 0x3f2d_1801u32, 0x766a_5d4fu32);
    let high = select(q < 12, 0xa699_8d81u32, 0xf1d9_c5b5u32);
    let word = select(q < 8, low, high);
    signed((word >> ((q % 4) * 8)) & 0xff, 128)
}

/// ggml's `kvalues_mxfp4`: twice the E2M1 value.
#[cube]
fn mxfp4_value(q: u32) -> f32 {
    let word = select((q & 7) < 4, 0x0302_0100u32, 0x0c08_0604u32);
    let magnitude = f32::cast_from((word >> ((q % 4) * 8)) & 0xff);
    select(q < 8, magnitude, -magnitude)
}

/// Scale and minimum number `sub` of a Q4_K or Q5_K block; [`Format::to_planes`] gives each a byte.
#[cube]
fn k4_scale_min(words: &[u32], plane: u32, block: u32, sub: u32) -> (f32, f32) {
    let pair = words[(plane + block * 4 + sub / 2) as usize] >> ((sub % 2) * 16);
    (f32::cast_from(pair & 0xff), f32::cast_from((pair >> 8) & 0xff))
}

/// Elements `8 group ..` of block `block`; float formats count blocks of eight.
#[cube]
#[allow(clippy::too_many_lines)]
pub(super) fn unpack8(
    words: &[u32],
    planes: &Planes,
    block: u32,
    group: u32,
    out: &mut Array<f32>,
    #[comptime] format: Format,
) {
    if comptime!(matches!(format, Format::F32)) {
        #[unroll]
        for j in 0..8u32 {
            out[j as usize] = f32::reinterpret(words[(block * 8 + j) as usize]);
        }
    } else if comptime!(matches!(format, Format::BF16)) {
        #[unroll]
        for j in 0..4u32 {
            let word = words[(block * 4 + j) as usize];
            out[(2 * j) as usize] = f32::reinterpret(word << 16);
            out[(2 * j + 1) as usize] = f32::reinterpret(word & 0xffff_0000);
        }
    } else if comptime!(matches!(format, Format::F16)) {
        #[unroll]
        for j in 0..4u32 {
            let word = words[(block * 4 + j) as usize];
            out[(2 * j) as usize] = f16_to_f32(word & 0xffff);
            out[(2 * j + 1) as usize] = f16_to_f32(word >> 16);
        }
    } else if comptime!(matches!(
        format,
        Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::IQ4_NL | Format::MXFP4
    )) {
        unpack_legacy(words, planes, block, group, out, format);
    } else if comptime!(matches!(format, Format::Q8_0)) {
        let d = f16_to_f32(half_word(words, planes.p1, block));
        #[unroll]
        for i in 0..2u32 {
            let word = words[(block * 8 + group * 2 + i) as usize];
            #[unroll]
            for j in 0..4u32 {
                out[(4 * i + j) as usize] = int8(word >> (j * 8)) * d;
            }
        }
    } else if comptime!(matches!(format, Format::Q4_K | Format::Q5_K)) {
        let sub = group / 4;
        let at = block * 32 + (group / 8) * 8 + (group % 4) * 2;
        let shift = (sub % 2) * 4;
        let dm_plane = if comptime!(matches!(format, Format::Q4_K)) { planes.p2 } else { planes.p3 };
        let scale_plane = if comptime!(matches!(format, Format::Q4_K)) { planes.p1 } else { planes.p2 };
        let dm = words[(dm_plane + block) as usize];
        let (scale, min) = k4_scale_min(words, scale_plane, block, sub);
        let d = f16_to_f32(dm & 0xffff) * scale;
        let m = f16_to_f32(dm >> 16) * min;
        #[unroll]
        for i in 0..2u32 {
            let low = words[(at + i) as usize] >> shift;
            #[unroll]
            for j in 0..4u32 {
                let q = (low >> (j * 8)) & 0xf;
                if comptime!(matches!(format, Format::Q5_K)) {
                    let bits = words[(planes.p1 + block * 8 + (group % 4) * 2 + i) as usize];
                    let high = (bits >> (j * 8 + sub)) & 1;
                    out[(4 * i + j) as usize] = d * f32::cast_from(q | (high << 4)) - m;
                } else {
                    out[(4 * i + j) as usize] = d * f32::cast_from(q) - m;
                }
            }
        }
    } else if comptime!(matches!(format, Format::Q6_K)) {
        let side = group / 16;
        let quarter = (group % 16) / 4;
        let lane = (group % 4) * 2;
        let scale = int8(byte(words, planes.p2, block * 16 + group / 2));
        let d = f16_to_f32(half_word(words, planes.p3, block)) * scale;
        #[unroll]
        for i in 0..2u32 {
            let low = words[(block * 32 + side * 16 + (quarter % 2) * 8 + lane + i) as usize] >> ((quarter / 2) * 4);
            let high = words[(planes.p1 + block * 16 + side * 8 + lane + i) as usize] >> (quarter * 2);
            #[unroll]
            for j in 0..4u32 {
                let q = ((low >> (j * 8)) & 0xf) | (((high >> (j * 8)) & 3) << 4);
                out[(4 * i + j) as usize] = d * signed(q, 32);
            }
        }
    } else if comptime!(matches!(format, Format::Q2_K)) {
        let side = group / 16;
        let pair = (group % 16) / 4;
        let lane = (group % 4) * 2;
        let scale = byte(words, planes.p1, block * 16 + group / 2);
        let dm = words[(planes.p2 + block) as usize];
        let d = f16_to_f32(dm & 0xffff) * f32::cast_from(scale & 0xf);
        let m = f16_to_f32(dm >> 16) * f32::cast_from(scale >> 4);
        #[unroll]
        for i in 0..2u32 {
            let word = words[(block * 16 + side * 8 + lane + i) as usize] >> (pair * 2);
            #[unroll]
            for j in 0..4u32 {
                out[(4 * i + j) as usize] = d * f32::cast_from((word >> (j * 8)) & 3) - m;
            }
        }
    } else if comptime!(matches!(format, Format::Q3_K)) {
        let side = group / 16;
        let pair = (group % 16) / 4;
        let lane = (group % 4) * 2;
        let index = group / 2;
        let base = block * 12;
        let low = byte(words, planes.p2, base + index % 8) >> ((index / 8) * 4);
        let top = byte(words, planes.p2, base + 8 + index % 4) >> ((index / 4) * 2);
        let d = f16_to_f32(half_word(words, planes.p3, block)) * signed((low & 0xf) | ((top & 3) << 4), 32);
        #[unroll]
        for i in 0..2u32 {
            let word = words[(block * 16 + side * 8 + lane + i) as usize] >> (pair * 2);
            let mask = words[(planes.p1 + block * 8 + lane + i) as usize] >> (side * 4 + pair);
            #[unroll]
            for j in 0..4u32 {
                let q = ((word >> (j * 8)) & 3) | (((mask >> (j * 8)) & 1) << 2);
                out[(4 * i + j) as usize] = d * signed(q, 4);
            }
        }
    } else if comptime!(matches!(format, Format::IQ4_XS)) {
        let sub = group / 4;
        let low = byte(words, planes.p1, block * 4 + sub / 2) >> ((sub % 2) * 4);
        let high = half_word(words, planes.p2, block) >> (sub * 2);
        let d = f16_to_f32(half_word(words, planes.p3, block)) * signed((low & 0xf) | ((high & 3) << 4), 32);
        let shift = ((group % 4) / 2) * 4;
        #[unroll]
        for i in 0..2u32 {
            let word = words[(block * 32 + sub * 4 + (group % 2) * 2 + i) as usize] >> shift;
            #[unroll]
            for j in 0..4u32 {
                out[(4 * i + j) as usize] = d * iq4_value((word >> (j * 8)) & 0xf);
            }
        }
    } else if comptime!(matches!(format, Format::Q1_0)) {
        let d = f16_to_f32(half_word(words, planes.p1, block));
        let bits = byte(words, 0, block * 16 + group);
        #[unroll]
        for j in 0..8u32 {
            out[j as usize] = select((bits >> j) & 1 == 1, d, -d);
        }
    } else if comptime!(matches!(format, Format::TQ2_0)) {
        let d = f16_to_f32(half_word(words, planes.p1, block));
        let side = group / 16;
        let shift = ((group % 16) / 4) * 2;
        #[unroll]
        for i in 0..2u32 {
            let word = words[(block * 16 + side * 8 + (group % 4) * 2 + i) as usize] >> shift;
            #[unroll]
            for j in 0..4u32 {
                out[(4 * i + j) as usize] = signed((word >> (j * 8)) & 3, 1) * d;
            }
        }
    } else {
        unpack_tq1_0(words, planes, block, group, out);
    }
}

/// The 32-element blocks of nibbles: elements 0..16 in the low halves, 16..32 in the high ones.
#[cube]
fn unpack_legacy(
    words: &[u32],
    planes: &Planes,
    block: u32,
    group: u32,
    out: &mut Array<f32>,
    #[comptime] format: Format,
) {
    let shift = (group / 2) * 4;
    let at = block * 4 + (group % 2) * 2;
    #[unroll]
    for i in 0..2u32 {
        let word = words[(at + i) as usize] >> shift;
        #[unroll]
        for j in 0..4u32 {
            let q = (word >> (j * 8)) & 0xf;
            let index = (4 * i + j) as usize;
            if comptime!(matches!(format, Format::Q4_0)) {
                out[index] = signed(q, 8) * f16_to_f32(half_word(words, planes.p1, block));
            } else if comptime!(matches!(format, Format::Q4_1)) {
                let dm = words[(planes.p1 + block) as usize];
                out[index] = f32::cast_from(q) * f16_to_f32(dm & 0xffff) + f16_to_f32(dm >> 16);
            } else if comptime!(matches!(format, Format::IQ4_NL)) {
                out[index] = iq4_value(q) * f16_to_f32(half_word(words, planes.p1, block));
            } else if comptime!(matches!(format, Format::MXFP4)) {
                let e = byte(words, planes.p1, block);
                let d = f32::reinterpret(select(e < 2, 0x0020_0000u32 << e, (e - 1) << 23));
                out[index] = mxfp4_value(q) * d;
            } else {
                let high = (words[(planes.p1 + block) as usize] >> (group * 8 + 4 * i + j)) & 1;
                let q = q | (high << 4);
                if comptime!(matches!(format, Format::Q5_0)) {
                    out[index] = signed(q, 16) * f16_to_f32(half_word(words, planes.p2, block));
                } else {
                    let dm = words[(planes.p2 + block) as usize];
                    out[index] = f32::cast_from(q) * f16_to_f32(dm & 0xffff) + f16_to_f32(dm >> 16);
                }
            }
        }
    }
}

/// Five ternary digits a byte, in base 3.
#[cube]
fn unpack_tq1_0(words: &[u32], planes: &Planes, block: u32, group: u32, out: &mut Array<f32>) {
    let d = f16_to_f32(half_word(words, planes.p2, block));
    #[unroll]
    for j in 0..8u32 {
        let e = group * 8 + j;
        let body = e < 160;
        let middle = e < 240;
        let digit = select(body, e / 32, select(middle, (e - 160) / 16, (e - 240) / 4));
        let at = select(body, e % 32, 32 + e % 16);
        let packed = if middle { byte(words, 0, block * 48 + at) } else { byte(words, planes.p1, block * 4 + e % 4) };
        let low = select(digit == 0, 1u32, select(digit == 1, 3u32, 9u32));
        let power = select(digit < 3, low, select(digit == 3, 27u32, 81u32));
        let q = (packed * power) & 0xff;
        out[j as usize] = signed((q * 3) >> 8, 1) * d;
    }
}

/// One element of a float matrix, for rows that eight does not divide.
#[cube]
pub(super) fn unpack1(words: &[u32], index: u32, #[comptime] format: Format) -> f32 {
    if comptime!(matches!(format, Format::F32)) {
        f32::reinterpret(words[index as usize])
    } else if comptime!(matches!(format, Format::BF16)) {
        f32::reinterpret(half_word(words, 0, index) << 16)
    } else {
        f16_to_f32(half_word(words, 0, index))
    }
}

/// Groups of eight in a block; float formats count one.
pub(super) fn groups_per_block(format: Format) -> u32 {
    if format.block_len() == 1 { 1 } else { (format.block_len() / 8) as u32 }
}

/// Blocks as [`unpack8`] counts them in a matrix of `elements`.
pub(super) fn blocks(format: Format, elements: usize) -> usize {
    elements / format.block_len()
}
