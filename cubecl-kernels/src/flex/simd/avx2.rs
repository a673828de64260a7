//! AVX2 with FMA and F16C: two registers per vector.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Dots, Kernel, LANES, PREFETCH, Simd, Unit, Words};

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

macro_rules! on {
    ($intrinsics:expr) => {
        // SAFETY: an `Avx2` exists only where `detect` saw the features; every pointer comes from
        // a reference to at least the bytes that are read or written, unaligned.
        unsafe { $intrinsics }
    };
}

impl Avx2 {
    /// The level, if the processor has it.
    pub(crate) fn detect() -> Option<Self> {
        let present =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }

    /// Runs `kernel` with the level's instructions enabled.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        on!(enabled(self, kernel))
    }
}

/// Sixteen f32: lanes 0 to 7, lanes 8 to 15.
type F = [__m256; 2];
/// Sixteen i32.
type I = [__m256i; 2];

impl Simd for Avx2 {
    type F = F;
    type I = I;
    const TILE_UNITS: usize = 1;

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        on!([_mm256_set1_ps(value); 2])
    }
    #[inline(always)]
    fn load(self, from: &Unit) -> F {
        on!([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())])
    }
    #[inline(always)]
    fn store(self, value: F, to: &mut Unit) {
        on!({
            _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), value[1]);
        })
    }
    #[inline(always)]
    fn load_f32(self, from: &[u8; 64]) -> F {
        on!([_mm256_loadu_ps(from.as_ptr().cast()), _mm256_loadu_ps(from[32..].as_ptr().cast())])
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> F {
        on!([
            _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from[16..].as_ptr().cast())),
        ])
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u8; 32]) -> F {
        on!({
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from[16..].as_ptr().cast()));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high))]
        })
    }
    #[inline(always)]
    fn splat_half(self, bits: [u8; 2]) -> F {
        on!([_mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(bits))); 2])
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        on!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        on!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        on!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        on!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        on!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        on!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        on!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        on!([
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[0]),
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[1]),
        ])
    }
    #[inline(always)]
    fn scale_by_power(self, a: F, n: F) -> F {
        on!({
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias));
            [_mm256_mul_ps(a[0], _mm256_castsi256_ps(low)), _mm256_mul_ps(a[1], _mm256_castsi256_ps(high))]
        })
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        on!({
            let eight = _mm256_add_ps(a[0], a[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }
    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        on!({
            let eight = _mm256_max_ps(a[0], a[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> I {
        on!([_mm256_set1_epi32(value); 2])
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> I {
        on!([
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.as_ptr().cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from[8..].as_ptr().cast())),
        ])
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> I {
        on!([
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from[8..].as_ptr().cast())),
        ])
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        on!([_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        on!([_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn shl(self, a: I, n: I) -> I {
        on!([_mm256_sllv_epi32(a[0], n[0]), _mm256_sllv_epi32(a[1], n[1])])
    }
    #[inline(always)]
    fn shr(self, a: I, n: I) -> I {
        on!([_mm256_srlv_epi32(a[0], n[0]), _mm256_srlv_epi32(a[1], n[1])])
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        on!([_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
    }
    #[inline(always)]
    fn look_up(self, table: F, index: I) -> F {
        [eight_of_table(table, index[0]), eight_of_table(table, index[1])]
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [F; LANES]) {
        let from = *rows;
        for (i, half) in [0, 8].into_iter().enumerate() {
            for (j, other) in [0, 8].into_iter().enumerate() {
                let block: [__m256; 8] = std::array::from_fn(|r| from[half + r][j]);
                let block = transpose_8x8(block);
                for (r, row) in block.into_iter().enumerate() {
                    rows[other + r][i] = row;
                }
            }
        }
    }
}

#[inline(always)]
fn eight_of_table(table: F, index: __m256i) -> __m256 {
    on!({
        // Each half of the table by the low three bits, then bit 3 chooses the half.
        let low = _mm256_permutevar8x32_ps(table[0], index);
        let high = _mm256_permutevar8x32_ps(table[1], index);
        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
    })
}

#[inline(always)]
fn transpose_8x8(rows: [__m256; 8]) -> [__m256; 8] {
    on!({
        let mut quarters = rows;
        for i in 0..2 {
            let [a, b, c, d] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
            let ab_low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
            let ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
            let cd_low = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
            let cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
            quarters[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab_low, cd_low));
            quarters[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab_low, cd_low));
            quarters[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high));
            quarters[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high));
        }
        let mut columns = quarters;
        for j in 0..4 {
            columns[j] = _mm256_permute2f128_ps::<0x20>(quarters[j], quarters[4 + j]);
            columns[4 + j] = _mm256_permute2f128_ps::<0x31>(quarters[j], quarters[4 + j]);
        }
        columns
    })
}

impl Dots for Avx2 {
    /// Thirty-two i16.
    type Pairs = I;

    const SIGNED_BIAS: i32 = 0;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn prefetch(self, line: &Words) {
        on!(_mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH).cast()))
    }
    #[inline(always)]
    fn load_words(self, from: &Words) -> I {
        on!([_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from[8..].as_ptr().cast())])
    }
    #[inline(always)]
    fn bits_as_f32(self, bits: I) -> F {
        on!([_mm256_castsi256_ps(bits[0]), _mm256_castsi256_ps(bits[1])])
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        on!([_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])])
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> I {
        on!([
            _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast())),
            _mm256_cvtepu16_epi32(_mm_loadu_si128(from[8..].as_ptr().cast())),
        ])
    }
    #[inline(always)]
    fn shr_signed(self, a: I, n: I) -> I {
        on!([_mm256_srav_epi32(a[0], n[0]), _mm256_srav_epi32(a[1], n[1])])
    }
    #[inline(always)]
    fn dot(self, sum: I, codes: I, x: [i8; 4]) -> I {
        on!({
            let x = _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
            [dot_eight(sum[0], codes[0], x), dot_eight(sum[1], codes[1], x)]
        })
    }
    #[inline(always)]
    fn begin(self, _: I) -> I {
        on!([_mm256_setzero_si256(); 2])
    }
    #[inline(always)]
    fn add_pairs(self, pairs: I, codes: I, x: [i8; 4]) -> I {
        on!({
            let x = _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
            let half = |pairs, codes| _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes, x));
            [half(pairs[0], codes[0]), half(pairs[1], codes[1])]
        })
    }
    #[inline(always)]
    fn finish(self, pairs: I, sum: I) -> I {
        on!({
            let ones = _mm256_set1_epi16(1);
            let half = |pairs, sum| _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
            [half(pairs[0], sum[0]), half(pairs[1], sum[1])]
        })
    }
    #[inline(always)]
    fn dot_signed(self, sum: I, codes: I, x: [i8; 4]) -> I {
        on!({
            // |code| and the sign moved to x: a pair of products stays within 16 bits.
            let x = _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
            let half = |sum, codes| dot_eight(sum, _mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
            [half(sum[0], codes[0]), half(sum[1], codes[1])]
        })
    }
    #[inline(always)]
    fn look_up_bytes(self, table: &[u8; 16], index: I) -> I {
        on!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, index[0]), _mm256_shuffle_epi8(table, index[1])]
        })
    }
    #[inline(always)]
    fn to_bytes(self, a: F) -> [i8; LANES] {
        let mut out = [0; LANES];
        on!({
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1]));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        });
        out
    }
}

/// Eight words' products of unsigned codes up to 128 with signed bytes.
#[inline(always)]
fn dot_eight(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    on!(_mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1))))
}
