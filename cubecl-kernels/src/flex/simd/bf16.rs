//! Products of bfloat16 pairs: AVX-512 BF16.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::{LANES, PREFETCH};
use super::{Unit, Words};

/// Proof that the processor multiplies bfloat16 pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bf16(());

impl Bf16 {
    /// The proof, if it does.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let present = false;
        present.then_some(Self(()))
    }

    /// Whether as many products take less time than in float32. Intel's processors begin one such instruction in two
    /// cycles and two multiply-adds of float32 in each (measured: 219 and 345 Gop/s of two Xeon cores); AMD's one of
    /// the former in each cycle.
    pub(crate) fn outruns_float32(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            static INTEL: OnceLock<bool> = OnceLock::new();
            !*INTEL.get_or_init(|| {
                let id = __cpuid(0);
                [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
            })
        }
        #[cfg(not(target_arch = "x86_64"))]
        true
    }

    /// `out[n][r] = Σ_w words[w][r] · x[w][n]`, each word a pair of bfloat16.
    pub(crate) fn product<const N: usize>(self, words: &[Words], x: &[[u32; N]]) -> [Unit; N] {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where `detect` saw the features.
        return unsafe { product(words, x) };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no proof without the instructions: {} words, {} columns", words.len(), x.len())
    }

    /// The products of sixteen rows in twelve bits a weight (`interleaved/twelve_bits.rs`): blocks of a line of
    /// exponents and two of signs and mantissas, eight columns each, with as many pairs of bfloat16 of `N` rows
    /// of activations. Exponents are the codes.
    pub(crate) fn twelve_bits<const N: usize>(self, lines: &[Words], x: &[[[u32; N]; 4]]) -> [Unit; N] {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where `detect` saw the features.
        return unsafe { twelve_bits(lines, x) };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no proof without the instructions: {} lines, {} columns", lines.len(), x.len())
    }

    /// The largest magnitude in `x`; at least infinity where a NaN is.
    pub(crate) fn largest(self, x: &[f32]) -> f32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where `detect` saw the features.
        return unsafe { largest(x) };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no proof without the instructions: {} elements", x.len())
    }

    /// Writes `factor x` as pairs of the nearest bfloat16, ties to even, 32 elements to as many of `out` as there are.
    pub(crate) fn round(self, x: &[f32], factor: f32, out: &mut [Words]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where `detect` saw the features.
        return unsafe { round(x, factor, out) };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no proof without the instructions: {}, {factor}, {}", x.len(), out.len())
    }

    /// Blocks of twelve bits a weight as pairs of bfloat16, `[columns / 2]` words; `base` is added to codes
    /// other than 0.
    pub(crate) fn unpack_twelve_bits(self, lines: &[Words], base: u32, out: &mut [Words]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where `detect` saw the features.
        return unsafe { unpack_twelve_bits(lines, base, out) };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no proof without the instructions: {} lines, {base}, {}", lines.len(), out.len())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn product<const N: usize>(words: &[Words], x: &[[u32; N]]) -> [Unit; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for (words, x) in words.iter().zip(x) {
        // SAFETY: sixteen words, read unaligned; both vector types are 64 plain bytes.
        let words: __m512bh = unsafe { std::mem::transmute(_mm512_loadu_si512(words.as_ptr().cast())) };
        for n in 0..N {
            // SAFETY: as above.
            let x: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(x[n].cast_signed())) };
            sums[n] = _mm512_dpbf16_ps(sums[n], words, x);
        }
    }
    let mut out = [[0.0; LANES]; N];
    for n in 0..N {
        // SAFETY: sixteen floats, written unaligned.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), sums[n]) };
    }
    out
}

/// The same bits.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn as_bf16(words: __m512i) -> __m512bh {
    // SAFETY: both vector types are 64 plain bytes.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
}

/// Both halves of a word.
#[cfg(target_arch = "x86_64")]
const fn both(half: u32) -> i32 {
    (half | half << 16).cast_signed()
}

/// Asks for what lies [`PREFETCH`] words after a block.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(lines: &[Words; 3]) {
    for line in lines {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH).cast());
    }
}

/// Four pairs of columns of a block, with codes as exponents.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pairs(lines: &[Words; 3]) -> [__m512i; 4] {
    // SAFETY: sixteen words each, read unaligned.
    let [codes, first, second] = lines.each_ref().map(|line| unsafe { _mm512_loadu_si512(line.as_ptr().cast()) });
    let (sign, mantissa, exponent) =
        (_mm512_set1_epi32(both(0x8000)), _mm512_set1_epi32(both(0x7f)), _mm512_set1_epi32(both(0xf << 7)));
    let pair = |high: __m512i, low: __m512i, codes: __m512i| {
        let bits = _mm512_or_si512(_mm512_and_si512(high, sign), _mm512_and_si512(low, mantissa));
        _mm512_or_si512(bits, _mm512_and_si512(codes, exponent))
    };
    [
        pair(_mm512_slli_epi32::<8>(first), first, _mm512_slli_epi32::<7>(codes)),
        pair(first, _mm512_srli_epi32::<8>(first), _mm512_slli_epi32::<3>(codes)),
        pair(_mm512_slli_epi32::<8>(second), second, _mm512_srli_epi32::<1>(codes)),
        pair(second, _mm512_srli_epi32::<8>(second), _mm512_srli_epi32::<5>(codes)),
    ]
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn twelve_bits<const N: usize>(lines: &[Words], x: &[[[u32; N]; 4]]) -> [Unit; N] {
    // A sum would wait for itself: there are up to four.
    let mut sums = [[_mm512_setzero_ps(); N]; 4];
    let parts = (8 / N).clamp(1, 4);
    for (lines, x) in lines.as_chunks::<3>().0.iter().zip(x) {
        prefetch(lines);
        let pairs = pairs(lines);
        for i in 0..4 {
            for n in 0..N {
                let x = _mm512_set1_epi32(x[i][n].cast_signed());
                sums[i % parts][n] = _mm512_dpbf16_ps(sums[i % parts][n], as_bf16(pairs[i]), as_bf16(x));
            }
        }
    }
    let mut out = [[0.0; LANES]; N];
    for n in 0..N {
        let sum = _mm512_add_ps(_mm512_add_ps(sums[0][n], sums[1][n]), _mm512_add_ps(sums[2][n], sums[3][n]));
        // SAFETY: sixteen floats, written unaligned.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), sum) };
    }
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn largest(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().map(|x| x.to_bits() & !(1 << 31)).max().unwrap_or_default())
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round(x: &[f32], factor: f32, out: &mut [Words]) {
    let factor = _mm512_set1_ps(factor);
    for (x, out) in x.as_chunks::<{ 2 * LANES }>().0.iter().zip(out) {
        // SAFETY: 32 floats, read unaligned, and sixteen words, written unaligned.
        unsafe {
            let first = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), factor);
            let second = _mm512_mul_ps(_mm512_loadu_ps(x[LANES..].as_ptr()), factor);
            let pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), pairs);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn unpack_twelve_bits(lines: &[Words], base: u32, out: &mut [Words]) {
    let (base, exponent) = (_mm512_set1_epi32(both(base << 7)), _mm512_set1_epi32(both(0xf << 7)));
    for (lines, out) in lines.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<4>().0) {
        prefetch(lines);
        for (pair, out) in pairs(lines).into_iter().zip(out) {
            let coded = _mm512_test_epi16_mask(pair, exponent);
            let pair = _mm512_mask_add_epi16(pair, coded, pair, base);
            // SAFETY: sixteen words, written unaligned.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), pair) };
        }
    }
}
