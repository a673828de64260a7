//! The register-tiled product that prefill and attention are made of.

use super::simd::{LANES, Simd, Unit};

/// Rows of `a` in a register tile.
pub(super) const TILE_ROWS: usize = 6;

/// `c[r][u] += Σ_k a[r][k] b[k][u]`.
///
/// # Shapes
/// a `[rows, a_stride]`, of which the first `depth` elements of a row count; b `[depth, b_stride]`
/// and c `[rows, c_stride]` in vectors, of which the first `units` of a row count.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) units: usize,
    pub(super) a: &'a [f32],
    pub(super) a_stride: usize,
    pub(super) b: &'a [Unit],
    pub(super) b_stride: usize,
}

impl Product<'_> {
    /// Adds the product to `c`.
    #[inline(always)]
    pub(super) fn add_to<S: Simd>(self, simd: S, c: &mut [Unit], c_stride: usize) {
        let mut row = 0;
        while row < self.rows {
            row += match self.rows - row {
                TILE_ROWS.. => self.across::<S, TILE_ROWS>(simd, row, c, c_stride),
                4.. => self.across::<S, 4>(simd, row, c, c_stride),
                2.. => self.across::<S, 2>(simd, row, c, c_stride),
                _ => self.across::<S, 1>(simd, row, c, c_stride),
            };
        }
    }

    /// `R` rows; returns `R`.
    #[inline(always)]
    fn across<S: Simd, const R: usize>(self, simd: S, row: usize, c: &mut [Unit], c_stride: usize) -> usize {
        let mut unit = 0;
        while unit < self.units {
            let left = self.units - unit;
            unit += if left >= 4 && S::TILE_UNITS >= 4 {
                self.tile::<S, R, 4>(simd, row, unit, c, c_stride)
            } else if left >= 2 && S::TILE_UNITS >= 2 {
                self.tile::<S, R, 2>(simd, row, unit, c, c_stride)
            } else {
                self.tile::<S, R, 1>(simd, row, unit, c, c_stride)
            };
        }
        R
    }

    /// `R` rows and `U` vectors, summed in registers; returns `U`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const U: usize>(
        self,
        simd: S,
        row: usize,
        unit: usize,
        c: &mut [Unit],
        c_stride: usize,
    ) -> usize {
        let a: [&[f32]; R] = std::array::from_fn(|r| &self.a[(row + r) * self.a_stride..][..self.depth]);
        let mut sums = [[simd.splat(0.0); U]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            let c = &c[(row + r) * c_stride + unit..][..U];
            for (sum, c) in sums.iter_mut().zip(c) {
                *sum = simd.load(c);
            }
        }
        for k in 0..self.depth {
            let b = &self.b[k * self.b_stride + unit..][..U];
            let mut columns = [simd.splat(0.0); U];
            for (column, b) in columns.iter_mut().zip(b) {
                *column = simd.load(b);
            }
            for (sums, a) in sums.iter_mut().zip(&a) {
                let a = simd.splat(a[k]);
                for (sum, column) in sums.iter_mut().zip(&columns) {
                    *sum = simd.fma(a, *column, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let c = &mut c[(row + r) * c_stride + unit..][..U];
            for (sum, c) in sums.iter().zip(c) {
                simd.store(*sum, c);
            }
        }
        U
    }
}

/// Writes up to sixteen rows of `width` elements as the columns of `to`: element `j` of row `i`
/// goes to lane `i` of `to[j * to_stride]`; the lanes without a row become zero.
#[inline(always)]
pub(super) fn transpose_rows<'a, S: Simd>(
    simd: S,
    rows: &(impl ExactSizeIterator<Item = &'a [f32]> + Clone),
    width: usize,
    to: &mut [Unit],
    to_stride: usize,
) {
    debug_assert!(rows.len() <= LANES);
    for start in (0..width).step_by(LANES) {
        let used = (width - start).min(LANES);
        let mut block = [simd.splat(0.0); LANES];
        for (row, from) in block.iter_mut().zip(rows.clone()) {
            *row = match from[start..].first_chunk::<LANES>() {
                Some(unit) => simd.load(unit),
                None => {
                    let mut unit = [0.0; LANES];
                    unit[..used].copy_from_slice(&from[start..start + used]);
                    simd.load(&unit)
                }
            };
        }
        simd.transpose(&mut block);
        for (j, column) in block.iter().take(used).enumerate() {
            simd.store(*column, &mut to[(start + j) * to_stride]);
        }
    }
}
