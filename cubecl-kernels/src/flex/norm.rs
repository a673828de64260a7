//! RMS normalization.

use super::pool;
use super::simd::{Kernel, LANES, Level, Simd};

/// Elements from which threads share the work.
const PARALLEL: usize = 1 << 16;

/// `x = x * rsqrt(mean(x²) + eps) * weight` over rows of `weight.len()` elements.
pub(crate) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    let level = Level::best();
    let threads = if x.len() < PARALLEL { 1 } else { usize::MAX };
    let mut rows: Vec<_> = x.chunks_exact_mut(weight.len()).collect();
    pool::for_each_on(threads, &mut rows, |_, x| level.run(NormRow { x, weight, eps }));
}

/// `sum += x`, and the norm of each row of it to `norm`.
///
/// # Shapes
/// x, sum and norm `[m, hidden]`, weight `[hidden]`.
pub(crate) fn add_rms_norm(x: &[f32], sum: &mut [f32], weight: &[f32], eps: f32, norm: &mut [f32]) {
    let level = Level::best();
    let hidden = weight.len();
    let row = |_: usize, ((x, sum), norm): &mut ((&[f32], &mut [f32]), &mut [f32])| {
        for ((norm, sum), x) in norm.iter_mut().zip(sum.iter_mut()).zip(*x) {
            *sum += x;
            *norm = *sum;
        }
        level.run(NormRow { x: norm, weight, eps });
    };
    let threads = if x.len() < PARALLEL { 1 } else { usize::MAX };
    let rows = x.chunks_exact(hidden).zip(sum.chunks_exact_mut(hidden)).zip(norm.chunks_exact_mut(hidden));
    pool::for_each_on(threads, &mut rows.collect::<Vec<_>>(), row);
}

/// `sum = (sum + norm of x) * scale`, by rows; x is left normed.
///
/// # Shapes
/// x and sum `[m, hidden]`, weight `[hidden]`.
pub(crate) fn rms_norm_add(x: &mut [f32], sum: &mut [f32], weight: &[f32], eps: f32, scale: f32) {
    rms_norm_in_place(x, weight, eps);
    let threads = if x.len() < PARALLEL { 1 } else { usize::MAX };
    let rows = sum.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len()));
    pool::for_each_on(threads, &mut rows.collect::<Vec<_>>(), |_, (sum, x)| {
        sum.iter_mut().zip(*x).for_each(|(sum, x)| *sum = (*sum + x) * scale);
    });
}

/// Normalizes one row in place.
pub(super) struct NormRow<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
}

impl Kernel for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (units, rest) = self.x.as_chunks::<LANES>();
        let mut squares = simd.splat(0.0);
        for unit in units {
            let x = simd.load(unit);
            squares = simd.fma(x, x, squares);
        }
        let squares = simd.sum(squares) + rest.iter().map(|x| x * x).sum::<f32>();
        let factor = 1.0 / (squares / self.x.len() as f32 + self.eps).sqrt();
        for (x, weight) in self.x.iter_mut().zip(self.weight) {
            *x = *x * factor * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NormRow, add_rms_norm, rms_norm_in_place};
    use crate::flex::simd::Level;
    use crate::flex::test_data::Random;

    fn reference(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
        let mut out = Vec::new();
        for x in x.chunks_exact(weight.len()) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
            let factor = 1.0 / (mean + f64::from(eps)).sqrt();
            out.extend(x.iter().zip(weight).map(|(x, w)| f64::from(*x) * factor * f64::from(*w)));
        }
        out
    }

    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected.abs(), "{found} is not {expected}");
        }
    }

    #[test]
    fn norms_agree_with_the_reference() {
        let mut random = Random::new(10);
        // The last is large enough to be shared by threads.
        for (m, hidden) in [(1, 1), (3, 40), (2, 16), (5, 71), (40, 2048)] {
            let (x, residual) = (random.normals(m * hidden), random.normals(m * hidden));
            let weight = random.normals(hidden);
            let mut found = x.clone();
            rms_norm_in_place(&mut found, &weight, 1e-5);
            assert_close(&found, &reference(&x, &weight, 1e-5));

            let (mut sum, mut norm) = (residual.clone(), vec![f32::NAN; m * hidden]);
            add_rms_norm(&x, &mut sum, &weight, 1e-5, &mut norm);
            let expected: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
            assert_eq!(sum, expected);
            assert_close(&norm, &reference(&expected, &weight, 1e-5));
            for level in Level::available() {
                let mut found = x[..hidden].to_vec();
                level.run(NormRow { x: &mut found, weight: &weight, eps: 1e-5 });
                assert_close(&found, &reference(&x[..hidden], &weight, 1e-5));
            }
        }
    }
}
