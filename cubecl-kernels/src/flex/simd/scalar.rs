//! The level of plain Rust, which the compiler vectorizes for the target's baseline.

use std::array::from_fn;

use half::{bf16, f16};

use super::{Dots, LANES, Simd, Unit, Words, dots::pairs_are_sums};

/// Plain Rust.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

impl Simd for Scalar {
    type F = Unit;
    type I = [i32; LANES];
    const TILE_UNITS: usize = 1;

    #[inline(always)]
    fn splat(self, value: f32) -> Unit {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &Unit) -> Unit {
        *from
    }
    #[inline(always)]
    fn store(self, value: Unit, to: &mut Unit) {
        *to = value;
    }
    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> Unit {
        let (elements, _) = from.as_chunks::<4>();
        from_fn(|i| f32::from_le_bytes(elements[i]))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> Unit {
        let (elements, _) = from.as_chunks::<2>();
        from_fn(|i| f16::from_le_bytes(elements[i]).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> Unit {
        let (elements, _) = from.as_chunks::<2>();
        from_fn(|i| bf16::from_le_bytes(elements[i]).to_f32())
    }
    #[inline(always)]
    fn splat_half(self, bits: [u8; 2]) -> Unit {
        [f16::from_le_bytes(bits).to_f32(); LANES]
    }

    #[inline(always)]
    fn add(self, a: Unit, b: Unit) -> Unit {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Unit, b: Unit) -> Unit {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Unit, b: Unit) -> Unit {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Unit, b: Unit) -> Unit {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn max(self, a: Unit, b: Unit) -> Unit {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Unit, b: Unit) -> Unit {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    // `f32::mul_add` is a library call where the baseline has no FMA.
    #[inline(always)]
    fn fma(self, a: Unit, b: Unit, c: Unit) -> Unit {
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn round(self, a: Unit) -> Unit {
        from_fn(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn scale_by_power(self, a: Unit, n: Unit) -> Unit {
        from_fn(|i| a[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn sum(self, a: Unit) -> f32 {
        a.iter().sum()
    }
    #[inline(always)]
    fn max_lane(self, a: Unit) -> f32 {
        a.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::I {
        [value; LANES]
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> Self::I {
        from_fn(|i| i32::from(from[i]))
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> Self::I {
        from_fn(|i| i32::from(from[i] as i8))
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shl(self, a: Self::I, n: Self::I) -> Self::I {
        from_fn(|i| a[i] << (n[i] & 31))
    }
    #[inline(always)]
    fn shr(self, a: Self::I, n: Self::I) -> Self::I {
        from_fn(|i| (a[i] as u32 >> (n[i] & 31)) as i32)
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Unit {
        from_fn(|i| a[i] as f32)
    }
    #[inline(always)]
    fn look_up(self, table: Unit, index: Self::I) -> Unit {
        from_fn(|i| table[(index[i] & 15) as usize])
    }
}

impl Dots for Scalar {
    pairs_are_sums!();

    const SIGNED_BIAS: i32 = 0;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn load_words(self, from: &Words) -> Self::I {
        from.map(u32::cast_signed)
    }
    #[inline(always)]
    fn bits_as_f32(self, bits: Self::I) -> Unit {
        from_fn(|i| f32::from_bits(bits[i].cast_unsigned()))
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> Self::I {
        from.map(i32::from)
    }
    #[inline(always)]
    fn shr_signed(self, a: Self::I, n: Self::I) -> Self::I {
        from_fn(|i| a[i] >> (n[i] & 31))
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, codes: Self::I, x: [i8; 4]) -> Self::I {
        self.dot_signed(sum, codes, x)
    }
    #[inline(always)]
    fn dot_signed(self, sum: Self::I, codes: Self::I, x: [i8; 4]) -> Self::I {
        let word = |codes: i32| -> i32 {
            let codes = codes.to_le_bytes().map(u8::cast_signed);
            codes.iter().zip(x).map(|(code, x)| i32::from(*code) * i32::from(x)).sum()
        };
        from_fn(|i| sum[i] + word(codes[i]))
    }
    #[inline(always)]
    fn look_up_bytes(self, table: &[u8; 16], index: Self::I) -> Self::I {
        index.map(|index| i32::from_le_bytes(index.to_le_bytes().map(|i| table[usize::from(i & 15)])))
    }
    #[inline(always)]
    fn to_bytes(self, a: Unit) -> [i8; LANES] {
        a.map(|a| a.round_ties_even() as i8)
    }
}
