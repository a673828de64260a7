//! Sixteen lanes of f32 on every processor: AVX-512, AVX2 with FMA, NEON, or plain Rust.
//!
//! Kernels are written once against [`Simd`] and compiled once per instruction set. A value of a
//! level proves that the processor has its instructions, so the operations are safe to call; the
//! `unsafe` stays in the files below this one.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
mod dots;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod tiles;

use std::sync::OnceLock;

pub(crate) use bf16::Bf16;
use dots::PREFETCH;
pub(crate) use dots::{Dots, Words};
pub(crate) use tiles::{Sums, Tile, Tiles, scatter};

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// One vector's worth of memory.
pub(crate) type Unit = [f32; LANES];

/// The lane numbers.
pub(crate) const IOTA: Unit = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// Operations on vectors of sixteen f32 (`F`) and sixteen i32 (`I`).
///
/// Everything is `inline(always)` in the implementations: only then does it compile to single
/// instructions inside [`Level::run`].
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Vectors across one register tile of a matrix product.
    const TILE_UNITS: usize;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F;
    /// Reads sixteen f32.
    fn load(self, from: &Unit) -> Self::F;
    /// Writes sixteen f32.
    fn store(self, value: Self::F, to: &mut Unit);
    /// Reads sixteen little-endian f32 of any alignment.
    fn load_f32(self, from: &[u8; 64]) -> Self::F;
    /// Reads sixteen little-endian f16.
    fn load_f16(self, from: &[u8; 32]) -> Self::F;
    /// Reads sixteen little-endian bf16.
    fn load_bf16(self, from: &[u8; 32]) -> Self::F;
    /// One little-endian f16 in every lane.
    fn splat_half(self, bits: [u8; 2]) -> Self::F;

    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger of each pair; `b` where one is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller of each pair; `b` where one is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The nearest integers, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a * 2^n` for integral `n` in `-126..=127`.
    fn scale_by_power(self, a: Self::F, n: Self::F) -> Self::F;
    /// The sum of all lanes.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane.
    fn max_lane(self, a: Self::F) -> f32;

    /// `value` in every lane.
    fn splat_i32(self, value: i32) -> Self::I;
    /// Reads sixteen bytes, zero-extended.
    fn load_u8(self, from: &[u8; 16]) -> Self::I;
    /// Reads sixteen bytes, sign-extended.
    fn load_i8(self, from: &[u8; 16]) -> Self::I;
    /// `a & b`.
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a | b`.
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a << n`, lane by lane, `n` in `0..32`.
    fn shl(self, a: Self::I, n: Self::I) -> Self::I;
    /// `a >> n` with zeros shifted in, lane by lane, `n` in `0..32`.
    fn shr(self, a: Self::I, n: Self::I) -> Self::I;
    /// The lanes as f32.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// `table[index & 15]` for each lane.
    fn look_up(self, table: Self::F, index: Self::I) -> Self::F;

    /// Swaps rows and columns of a 16 x 16 matrix.
    #[inline(always)]
    fn transpose(self, rows: &mut [Self::F; LANES]) {
        let mut from = [[0.0; LANES]; LANES];
        for (unit, row) in from.iter_mut().zip(rows.iter()) {
            self.store(*row, unit);
        }
        for (i, row) in rows.iter_mut().enumerate() {
            let column: Unit = std::array::from_fn(|j| from[j][i]);
            *row = self.load(&column);
        }
    }
}

/// e to the power of each lane, to within 2 ulp; saturates at the ends of the normal range.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    let x = simd.max(simd.splat(-87.336_54), simd.min(simd.splat(88.376_26), x));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, so that the reduction keeps its low bits (Cephes, expf).
    let r = simd.fma(n, simd.splat(-0.693_359_4), x);
    let r = simd.fma(n, simd.splat(2.121_944_4e-4), r);
    let mut p = simd.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = simd.fma(p, r, simd.splat(c));
    }
    let y = simd.fma(p, simd.mul(r, r), simd.add(r, simd.splat(1.0)));
    simd.scale_by_power(y, n)
}

/// A computation compiled for every level.
pub(crate) trait Kernel {
    /// Its result.
    type Output;
    /// Runs it; implementations are `inline(always)`.
    fn run<S: Dots>(self, simd: S) -> Self::Output;
}

/// An instruction set that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    /// Whatever the target's baseline offers.
    Scalar(scalar::Scalar),
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    /// The same with products of bfloat16, of pairs and of tiles.
    #[cfg(target_arch = "x86_64")]
    Amx(avx512::Avx512, Bf16, Tiles),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Level {
    /// Every level of this processor, the plainest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Self::Scalar(scalar::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(avx2::Avx2::detect().map(Self::Avx2));
            levels.extend(avx512::Avx512::detect().map(Self::Avx512));
            if let (Some(simd), Some(pairs), Some(tiles)) = (avx512::Avx512::detect(), Bf16::detect(), Tiles::detect())
            {
                levels.push(Self::Amx(simd, pairs, tiles));
            }
        }
        #[cfg(target_arch = "aarch64")]
        levels.push(Self::Neon(neon::Neon::detect()));
        levels
    }

    /// The widest level of this processor.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().last().copied().unwrap_or(Self::Scalar(scalar::Scalar)))
    }

    /// [`Dots::MANY_REGISTERS`] of this level.
    pub(crate) fn many_registers(self) -> bool {
        struct Many;
        impl Kernel for Many {
            type Output = bool;
            #[inline(always)]
            fn run<S: Dots>(self, _: S) -> bool {
                S::MANY_REGISTERS
            }
        }
        self.run(Many)
    }

    /// Products of bfloat16 pairs, where this level has them.
    pub(crate) fn bf16(self) -> Option<Bf16> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Bf16::detect(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_, pairs, _) => Some(pairs),
            _ => None,
        }
    }

    /// Products of bfloat16 tiles, where this level has them.
    pub(crate) fn tiles(self) -> Option<Tiles> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_, _, tiles) => Some(tiles),
            _ => None,
        }
    }

    /// Runs `kernel` compiled for this level.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Scalar(simd) => kernel.run(simd),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) | Self::Amx(simd, ..) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => kernel.run(simd),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
