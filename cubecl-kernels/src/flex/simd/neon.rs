//! NEON: four registers per vector.
#![allow(unsafe_code, unused_unsafe)]

use std::arch::aarch64::*;
use std::array::from_fn;

use super::{Dots, LANES, Simd, Unit, Words, dots::pairs_are_sums};

/// NEON, which every 64-bit ARM processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

macro_rules! on {
    ($intrinsics:expr) => {
        // SAFETY: NEON belongs to the target's baseline; every pointer comes from a reference to
        // at least the bytes that are read or written, unaligned.
        unsafe { $intrinsics }
    };
}

impl Neon {
    /// The level.
    pub(crate) fn detect() -> Self {
        Self(())
    }
}

/// Sixteen f32, four to a register.
type F = [float32x4_t; 4];
/// Sixteen i32, four to a register.
type I = [int32x4_t; 4];

/// f16 bits in the low half of each lane, widened to f32.
#[inline(always)]
fn widen_f16(bits: uint32x4_t) -> float32x4_t {
    on!({
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let magnitude = vandq_u32(bits, vdupq_n_u32(0x7fff));
        // Moving the fields into place divides by 2^112, which also makes subnormals right.
        let shifted = vreinterpretq_f32_u32(vshlq_n_u32::<13>(magnitude));
        let scaled = vreinterpretq_u32_f32(vmulq_f32(shifted, vdupq_n_f32(f32::from_bits(0x7780_0000))));
        let not_finite = vcgeq_u32(magnitude, vdupq_n_u32(0x7c00));
        let exponent = vandq_u32(not_finite, vdupq_n_u32(0x7f80_0000));
        vreinterpretq_f32_u32(vorrq_u32(vorrq_u32(scaled, exponent), sign))
    })
}

/// Sixteen little-endian u16, widened to u32.
#[inline(always)]
fn load_u16(from: &[u8; 32]) -> [uint32x4_t; 4] {
    on!({
        let low = vreinterpretq_u16_u8(vld1q_u8(from.as_ptr()));
        let high = vreinterpretq_u16_u8(vld1q_u8(from[16..].as_ptr()));
        [
            vmovl_u16(vget_low_u16(low)),
            vmovl_u16(vget_high_u16(low)),
            vmovl_u16(vget_low_u16(high)),
            vmovl_u16(vget_high_u16(high)),
        ]
    })
}

impl Simd for Neon {
    type F = F;
    type I = I;
    const TILE_UNITS: usize = 1;

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        on!([vdupq_n_f32(value); 4])
    }
    #[inline(always)]
    fn load(self, from: &Unit) -> F {
        on!(from_fn(|i| vld1q_f32(from[4 * i..].as_ptr())))
    }
    #[inline(always)]
    fn store(self, value: F, to: &mut Unit) {
        let (quarters, _) = to.as_chunks_mut::<4>();
        for (quarter, value) in quarters.iter_mut().zip(value) {
            on!(vst1q_f32(quarter.as_mut_ptr(), value));
        }
    }
    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> F {
        on!(from_fn(|i| vreinterpretq_f32_u8(vld1q_u8(from[16 * i..].as_ptr()))))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> F {
        load_u16(from).map(widen_f16)
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> F {
        load_u16(from).map(|bits| on!(vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits))))
    }
    #[inline(always)]
    fn splat_half(self, bits: [u8; 2]) -> F {
        let bits = u32::from(u16::from_le_bytes(bits));
        [widen_f16(on!(vdupq_n_u32(bits))); 4]
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        on!(from_fn(|i| vaddq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        on!(from_fn(|i| vsubq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        on!(from_fn(|i| vmulq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        on!(from_fn(|i| vdivq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        on!(from_fn(|i| vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i])))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        on!(from_fn(|i| vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i])))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        on!(from_fn(|i| vfmaq_f32(c[i], a[i], b[i])))
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        on!(a.map(|a| vrndnq_f32(a)))
    }
    #[inline(always)]
    fn scale_by_power(self, a: F, n: F) -> F {
        on!(from_fn(|i| {
            let exponent = vaddq_s32(vcvtq_s32_f32(n[i]), vdupq_n_s32(127));
            vmulq_f32(a[i], vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        }))
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        on!(vaddvq_f32(vaddq_f32(vaddq_f32(a[0], a[1]), vaddq_f32(a[2], a[3]))))
    }
    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        on!(vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a[0], a[1]), vmaxnmq_f32(a[2], a[3]))))
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> I {
        on!([vdupq_n_s32(value); 4])
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> I {
        on!({
            let bytes = vld1q_u8(from.as_ptr());
            let low = vmovl_u8(vget_low_u8(bytes));
            let high = vmovl_u8(vget_high_u8(bytes));
            [
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
                vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
                vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high))),
            ]
        })
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> I {
        on!({
            let bytes = vreinterpretq_s8_u8(vld1q_u8(from.as_ptr()));
            let low = vmovl_s8(vget_low_s8(bytes));
            let high = vmovl_s8(vget_high_s8(bytes));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_s16(vget_high_s16(low)),
                vmovl_s16(vget_low_s16(high)),
                vmovl_s16(vget_high_s16(high)),
            ]
        })
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        on!(from_fn(|i| vandq_s32(a[i], b[i])))
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        on!(from_fn(|i| vorrq_s32(a[i], b[i])))
    }
    #[inline(always)]
    fn shl(self, a: I, n: I) -> I {
        on!(from_fn(|i| vshlq_s32(a[i], n[i])))
    }
    #[inline(always)]
    fn shr(self, a: I, n: I) -> I {
        on!(from_fn(|i| vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[i]), vnegq_s32(n[i])))))
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        on!(a.map(|a| vcvtq_f32_s32(a)))
    }
    #[inline(always)]
    fn look_up(self, table: F, index: I) -> F {
        on!({
            let bytes = uint8x16x4_t(
                vreinterpretq_u8_f32(table[0]),
                vreinterpretq_u8_f32(table[1]),
                vreinterpretq_u8_f32(table[2]),
                vreinterpretq_u8_f32(table[3]),
            );
            index.map(|index| {
                // Entry i is the bytes 4i to 4i + 3.
                let index = vandq_u32(vreinterpretq_u32_s32(index), vdupq_n_u32(15));
                let places = vmlaq_u32(vdupq_n_u32(0x0302_0100), index, vdupq_n_u32(0x0404_0404));
                vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_u32(places)))
            })
        })
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [F; LANES]) {
        let from = *rows;
        for i in 0..4 {
            for j in 0..4 {
                let block = transpose_4x4(from_fn(|r| from[4 * i + r][j]));
                for (r, row) in block.into_iter().enumerate() {
                    rows[4 * j + r][i] = row;
                }
            }
        }
    }
}

#[inline(always)]
fn transpose_4x4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    on!({
        let ab_even = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
        let ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
        let cd_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
        let cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
        [
            vreinterpretq_f32_f64(vzip1q_f64(ab_even, cd_even)),
            vreinterpretq_f32_f64(vzip1q_f64(ab_odd, cd_odd)),
            vreinterpretq_f32_f64(vzip2q_f64(ab_even, cd_even)),
            vreinterpretq_f32_f64(vzip2q_f64(ab_odd, cd_odd)),
        ]
    })
}

impl Dots for Neon {
    pairs_are_sums!();

    const SIGNED_BIAS: i32 = 0;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn load_words(self, from: &Words) -> I {
        on!(from_fn(|i| vreinterpretq_s32_u32(vld1q_u32(from[4 * i..].as_ptr()))))
    }
    #[inline(always)]
    fn bits_as_f32(self, bits: I) -> F {
        on!(from_fn(|i| vreinterpretq_f32_s32(bits[i])))
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        on!(from_fn(|i| vaddq_s32(a[i], b[i])))
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> I {
        on!(from_fn(|i| vreinterpretq_s32_u32(vmovl_u16(vld1_u16(from[4 * i..].as_ptr())))))
    }
    #[inline(always)]
    fn shr_signed(self, a: I, n: I) -> I {
        on!(from_fn(|i| vshlq_s32(a[i], vnegq_s32(n[i]))))
    }
    #[inline(always)]
    fn dot(self, sum: I, codes: I, x: [i8; 4]) -> I {
        self.dot_signed(sum, codes, x)
    }
    #[inline(always)]
    fn dot_signed(self, sum: I, codes: I, x: [i8; 4]) -> I {
        on!({
            let x = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(x.map(i8::cast_unsigned))));
            from_fn(|i| {
                let codes = vreinterpretq_s8_s32(codes[i]);
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(x)));
                let high = vpaddlq_s16(vmull_high_s8(codes, x));
                vaddq_s32(sum[i], vpaddq_s32(low, high))
            })
        })
    }
    #[inline(always)]
    fn look_up_bytes(self, table: &[u8; 16], index: I) -> I {
        on!({
            let table = vld1q_u8(table.as_ptr());
            index.map(|index| vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_s32(index))))
        })
    }
    #[inline(always)]
    fn to_bytes(self, a: F) -> [i8; LANES] {
        let mut out = [0; LANES];
        on!({
            let a = a.map(|a| vqmovn_s32(vcvtnq_s32_f32(a)));
            let low = vqmovn_s16(vcombine_s16(a[0], a[1]));
            let high = vqmovn_s16(vcombine_s16(a[2], a[3]));
            vst1q_s8(out.as_mut_ptr(), vcombine_s8(low, high));
        });
        out
    }
}
