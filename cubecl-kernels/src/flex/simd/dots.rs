//! Products of bytes: what the interleaved matrices are multiplied with.

use half::bf16;

use super::{LANES, Simd};

/// Sixteen little-endian words: one of each of sixteen rows.
pub(crate) type Words = [u32; LANES];

/// How far ahead of what is multiplied memory is asked for, in words.
///
/// Server processors of Intel read 30 GB/s with two threads without it, 40 with 512 to 1,024 bytes, and again 30
/// from 4,096 on.
pub(crate) const PREFETCH: usize = 256;

/// Operations on vectors of sixteen words of four bytes.
pub(crate) trait Dots: Simd {
    /// Sums of [`Dots::add_pairs`] on their way.
    type Pairs: Copy;

    /// What [`Dots::dot_signed`] adds to each code.
    const SIGNED_BIAS: i32;
    /// Whether sixteen vectors and some more stay in registers.
    const MANY_REGISTERS: bool;

    /// Asks for what lies [`PREFETCH`] words after `line`, whatever that is.
    #[inline(always)]
    fn prefetch(self, line: &Words) {
        // Most processors see by themselves that memory is read in order.
        let _ = line;
    }
    /// Reads sixteen words.
    fn load_words(self, from: &Words) -> Self::I;
    /// The bits of f32 as such.
    fn bits_as_f32(self, bits: Self::I) -> Self::F;
    /// Lane by lane sum.
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// Reads sixteen u16, zero-extended.
    fn load_u16(self, from: &[u16; LANES]) -> Self::I;
    /// `a >> n` with copies of the sign shifted in, lane by lane, `n` in `0..32`.
    fn shr_signed(self, a: Self::I, n: Self::I) -> Self::I;
    /// `sum + Σ codes[i] x[i]` over each word's four bytes; codes in `0..=127`, x in `-127..=127`.
    fn dot(self, sum: Self::I, codes: Self::I, x: [i8; 4]) -> Self::I;
    /// Sums that begin with `sum`.
    fn begin(self, sum: Self::I) -> Self::Pairs;
    /// Adds what [`Dots::dot`] does, of codes in `0..=15` and at most eight words between `begin` and `finish`: two
    /// products each may be summed in sixteen bits.
    fn add_pairs(self, pairs: Self::Pairs, codes: Self::I, x: [i8; 4]) -> Self::Pairs;
    /// The sums, where `sum` is what they began with.
    fn finish(self, pairs: Self::Pairs, sum: Self::I) -> Self::I;
    /// `sum + Σ (codes[i] + SIGNED_BIAS) x[i]` for codes in `-128..=127`.
    fn dot_signed(self, sum: Self::I, codes: Self::I, x: [i8; 4]) -> Self::I;
    /// `table[index]` for every byte, each in `0..16`.
    fn look_up_bytes(self, table: &[u8; 16], index: Self::I) -> Self::I;
    /// Writes pairs of the nearest bfloat16, ties to even, `low` in the lower halves; both are NaN where one is.
    #[inline(always)]
    fn store_pairs(self, low: Self::F, high: Self::F, to: &mut Words) {
        let (mut lows, mut highs) = ([0.0; LANES], [0.0; LANES]);
        self.store(low, &mut lows);
        self.store(high, &mut highs);
        for ((to, low), high) in to.iter_mut().zip(lows).zip(highs) {
            let pair = u32::from(bf16::from_f32(low).to_bits()) | u32::from(bf16::from_f32(high).to_bits()) << 16;
            *to = if low.is_nan() || high.is_nan() { 0x7fc0_7fc0 } else { pair };
        }
    }
    /// Sixteen f32 in `-127..=127` as the nearest integers.
    fn to_bytes(self, a: Self::F) -> [i8; LANES];
}

/// [`Dots::Pairs`] of a level whose products are summed in 32 bits by the instructions that make them.
macro_rules! pairs_are_sums {
    () => {
        type Pairs = Self::I;

        #[inline(always)]
        fn begin(self, sum: Self::I) -> Self::I {
            sum
        }
        #[inline(always)]
        fn add_pairs(self, pairs: Self::I, codes: Self::I, x: [i8; 4]) -> Self::I {
            self.dot(pairs, codes, x)
        }
        #[inline(always)]
        fn finish(self, pairs: Self::I, _: Self::I) -> Self::I {
            pairs
        }
    };
}
pub(super) use pairs_are_sums;
