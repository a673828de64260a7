//! Activations as bytes.

use crate::flex::pool;
use crate::flex::simd::{Dots, Kernel, LANES, Level};

/// Columns of a sub-block.
pub(super) const SUB: usize = 32;

/// 32 columns of `N` rows of activations.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Columns<const N: usize> {
    /// The bytes in words of four columns.
    pub(super) bytes: [[[i8; 4]; N]; SUB / 4],
    /// What a byte stands for.
    pub(super) scales: [f32; N],
    /// The sums of the 32 columns, negated, as they were.
    pub(super) minus_sums: [f32; N],
    /// The sums of the bytes times -8: of the first half, of the second, of all.
    pub(super) minus_eight: [[i32; N]; 3],
}

/// All rows, in panels of `N`, `[panels, cols / 32]`; the last is filled up with zeros.
pub(super) fn quantize<const N: usize>(level: Level, x: &[f32], cols: usize) -> Vec<Columns<N>> {
    let subs = cols / SUB;
    let zero = Columns { bytes: [[[0; 4]; N]; 8], scales: [0.0; N], minus_sums: [0.0; N], minus_eight: [[0; N]; 3] };
    let mut panels = vec![zero; (x.len() / cols).div_ceil(N) * subs];
    let threads = if x.len() < 1 << 14 { 1 } else { usize::MAX };
    let mut work: Vec<_> = x.chunks(N * cols).zip(panels.chunks_exact_mut(subs)).collect();
    pool::for_each_on(threads, &mut work, |_, (rows, panel)| {
        for (n, row) in rows.chunks_exact(cols).enumerate() {
            level.run(Quantize { row, panel, n });
        }
    });
    panels
}

struct Quantize<'a, const N: usize> {
    row: &'a [f32],
    panel: &'a mut [Columns<N>],
    n: usize,
}

impl<const N: usize> Kernel for Quantize<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) {
        let n = self.n;
        let (units, _) = self.row.as_chunks::<LANES>();
        let (subs, _) = units.as_chunks::<2>();
        for (sub, to) in subs.iter().zip(self.panel) {
            let (low, high) = (simd.load(&sub[0]), simd.load(&sub[1]));
            let zero = simd.splat(0.0);
            let most = simd.max(simd.max(low, high), simd.sub(zero, simd.min(low, high)));
            let largest = simd.max_lane(most);
            let scale = largest / 127.0;
            // A scale so small that its inverse overflows, or none at all, leaves zeros.
            let inverse = 1.0 / scale;
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            let mut total = 0;
            for (half, values) in [low, high].into_iter().enumerate() {
                let bytes = simd.to_bytes(simd.mul(values, simd.splat(inverse)));
                for (word, bytes) in bytes.as_chunks::<4>().0.iter().enumerate() {
                    to.bytes[4 * half + word][n] = *bytes;
                }
                let sum: i32 = bytes.iter().map(|b| i32::from(*b)).sum();
                to.minus_eight[half][n] = -8 * sum;
                total += sum;
            }
            to.minus_eight[2][n] = -8 * total;
            to.scales[n] = scale;
            to.minus_sums[n] = -scale * total as f32;
        }
    }
}

/// The rows as the bytes stand for them, for tests.
#[cfg(test)]
pub(super) fn dequantized(x: &[f32], cols: usize) -> Vec<f32> {
    let panels = quantize::<1>(Level::best(), x, cols);
    let mut out = Vec::new();
    for sub in &panels {
        out.extend(sub.bytes.as_flattened().as_flattened().iter().map(|b| f32::from(*b) * sub.scales[0]));
    }
    out
}
