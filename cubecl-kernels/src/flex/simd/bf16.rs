//! Products of bfloat16 pairs: AVX-512 BF16.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::LANES;
use super::{Unit, Words};

/// Proof that the processor multiplies bfloat16 pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bf16(());

impl Bf16 {
    /// The proof, if it does.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let present = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let present = false;
        present.then_some(Self(()))
    }

    /// `out[n][r] = Σ_w words[w][r] · x[w][n]`, each word a pair of bfloat16.
    pub(crate) fn product<const N: usize>(self, words: &[Words], x: &[[u32; N]]) -> [Unit; N] {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where `detect` saw the features.
        return unsafe { product(words, x) };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no proof without the instructions: {} words, {} columns", words.len(), x.len())
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
