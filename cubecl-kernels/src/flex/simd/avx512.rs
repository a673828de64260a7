//! AVX-512: one register per vector.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Dots, Kernel, LANES, PREFETCH, Simd, Unit, Words, dots::pairs_are_sums};

/// Proof that the processor has AVX-512 F, BW, DQ, VL, VNNI, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

macro_rules! on {
    ($intrinsics:expr) => {
        // SAFETY: an `Avx512` exists only where `detect` saw the features; every pointer comes
        // from a reference to at least the bytes that are read or written, unaligned.
        unsafe { $intrinsics }
    };
}

impl Avx512 {
    /// The level, if the processor has it.
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }

    /// Runs `kernel` with the level's instructions enabled.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
        fn enabled<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        on!(enabled(self, kernel))
    }
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    const TILE_UNITS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        on!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    fn load(self, from: &Unit) -> __m512 {
        on!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn store(self, value: __m512, to: &mut Unit) {
        on!(_mm512_storeu_ps(to.as_mut_ptr(), value))
    }
    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> __m512 {
        on!(_mm512_loadu_ps(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> __m512 {
        on!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> __m512 {
        on!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }
    #[inline(always)]
    fn splat_half(self, bits: [u8; 2]) -> __m512 {
        // Converting every lane lets the compiler load with a broadcast; for a single one it
        // inserts into a register, and waits for that register's old value.
        on!(_mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(bits))))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        on!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        on!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        on!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale_by_power(self, a: __m512, n: __m512) -> __m512 {
        on!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        on!(_mm512_reduce_add_ps(a))
    }
    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        on!(_mm512_reduce_max_ps(a))
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m512i {
        on!(_mm512_set1_epi32(value))
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> __m512i {
        on!(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> __m512i {
        on!(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn shl(self, a: __m512i, n: __m512i) -> __m512i {
        on!(_mm512_sllv_epi32(a, n))
    }
    #[inline(always)]
    fn shr(self, a: __m512i, n: __m512i) -> __m512i {
        on!(_mm512_srlv_epi32(a, n))
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        on!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn look_up(self, table: __m512, index: __m512i) -> __m512 {
        on!(_mm512_permutexvar_ps(index, table))
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [__m512; LANES]) {
        on!({
            // Four rows at a time: 4 x 4 transposed within each 128-bit quarter.
            let mut quarters = *rows;
            for i in 0..4 {
                let [a, b, c, d] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
                let ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                quarters[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low));
                quarters[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low));
                quarters[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high));
                quarters[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high));
            }
            // Then the quarters themselves are transposed as a 4 x 4 matrix.
            for j in 0..4 {
                let [a, b, c, d] = [quarters[j], quarters[4 + j], quarters[8 + j], quarters[12 + j]];
                let ab_low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
                let ab_high = _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b);
                let cd_low = _mm512_shuffle_f32x4::<0b01_00_01_00>(c, d);
                let cd_high = _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d);
                rows[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_low, cd_low);
                rows[4 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_low, cd_low);
                rows[8 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, cd_high);
                rows[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, cd_high);
            }
        })
    }
}

impl Dots for Avx512 {
    pairs_are_sums!();

    /// The first operand of `vpdpbusd` is unsigned.
    const SIGNED_BIAS: i32 = 128;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn prefetch(self, line: &Words) {
        on!(_mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH).cast()))
    }
    #[inline(always)]
    fn load_words(self, from: &Words) -> __m512i {
        on!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn bits_as_f32(self, bits: __m512i) -> __m512 {
        on!(_mm512_castsi512_ps(bits))
    }
    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> __m512i {
        on!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn shr_signed(self, a: __m512i, n: __m512i) -> __m512i {
        on!(_mm512_srav_epi32(a, n))
    }
    #[inline(always)]
    fn dot(self, sum: __m512i, codes: __m512i, x: [i8; 4]) -> __m512i {
        on!(_mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)))))
    }
    #[inline(always)]
    fn dot_signed(self, sum: __m512i, codes: __m512i, x: [i8; 4]) -> __m512i {
        self.dot(sum, on!(_mm512_xor_si512(codes, _mm512_set1_epi8(-128))), x)
    }
    #[inline(always)]
    fn look_up_bytes(self, table: &[u8; 16], index: __m512i) -> __m512i {
        on!(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), index))
    }
    #[inline(always)]
    fn store_pairs(self, low: __m512, high: __m512, to: &mut Words) {
        on!({
            let (low_bits, high_bits) = (_mm512_castps_si512(low), _mm512_castps_si512(high));
            let (half, one) = (_mm512_set1_epi32(0x7fff), _mm512_set1_epi32(1));
            // Half of the last place less its lowest bit, plus the bit above: ties go to even.
            let low_odd = _mm512_and_si512(_mm512_srli_epi32::<16>(low_bits), one);
            let high_odd = _mm512_and_si512(_mm512_srli_epi32::<16>(high_bits), one);
            let low_bits = _mm512_add_epi32(low_bits, _mm512_add_epi32(half, low_odd));
            let high_bits = _mm512_add_epi32(high_bits, _mm512_add_epi32(half, high_odd));
            let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            let pairs = _mm512_or_si512(_mm512_srli_epi32::<16>(low_bits), _mm512_and_si512(high_bits, upper));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(low, high);
            let pairs = _mm512_mask_mov_epi32(pairs, nan, _mm512_set1_epi32(0x7fc0_7fc0));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        })
    }
    #[inline(always)]
    fn to_bytes(self, a: __m512) -> [i8; LANES] {
        let mut out = [0; LANES];
        on!(_mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a))));
        out
    }
}
