use super::{block_len, store};
use crate::flex::simd::{Kernel, LANES, Level, Simd};
use crate::flex::test_data::{Random, random_blocks};
use crate::formats::Format;

struct StoreRow<'a> {
    format: Format,
    row: &'a [u8],
    cols: usize,
}

impl Kernel for StoreRow<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let units = self.cols.next_multiple_of(block_len(self.format)) / LANES;
        let mut out = vec![[f32::NAN; LANES]; units];
        with_block!(self.format, B => store::<S, B>(simd, self.row, &mut out), else panic!("{}", self.format));
        out.as_flattened()[..self.cols].to_vec()
    }
}

#[test]
fn every_level_unpacks_the_reference_values() {
    let mut random = Random::new(7);
    for format in Format::ALL {
        if matches!(format, Format::Q1_0 | Format::TQ1_0 | Format::TQ2_0) {
            continue;
        }
        for cols in if format.is_float() { vec![1, 15, 32, 71] } else { vec![format.block_len(), 768] } {
            let row = random_blocks(&mut random, format, cols);
            let mut expected = vec![0.0; cols];
            format.dequantize(&row, &mut expected);
            for level in Level::available() {
                let found = level.run(StoreRow { format, row: &row, cols });
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    // Equal as numbers: 0 and -0 are the same weight.
                    assert!(found == expected, "{format} {level:?} element {i}: {found} is not {expected}");
                }
            }
        }
    }
}

#[test]
fn scales_that_are_not_finite_stay_so() {
    let mut random = Random::new(8);
    for (format, at) in [(Format::Q4_0, 0), (Format::Q8_0, 0), (Format::Q4_K, 0), (Format::Q6_K, 208)] {
        let mut row = random_blocks(&mut random, format, format.block_len());
        row[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
        for level in Level::available() {
            let found = level.run(StoreRow { format, row: &row, cols: format.block_len() });
            assert!(found.iter().all(|v| v.is_nan()), "{format} {level:?}: {found:?}");
        }
    }
}
