use super::{Dots, IOTA, Kernel, LANES, Level, Simd, Unit, Words, exp};
use crate::flex::test_data::Random;

struct Exp(Unit);

impl Kernel for Exp {
    type Output = Unit;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Unit {
        let mut out = [0.0; LANES];
        simd.store(exp(simd, simd.load(&self.0)), &mut out);
        out
    }
}

#[test]
fn exp_is_within_two_ulp() {
    let mut random = Random::new(1);
    for level in Level::available() {
        for _ in 0..2000 {
            let x: Unit = std::array::from_fn(|_| random.normal() * 25.0);
            let found = level.run(Exp(x));
            for (x, found) in x.into_iter().zip(found) {
                let expected = f64::from(x.clamp(-87.336_54, 88.376_26)).exp();
                let error = ((f64::from(found) - expected) / expected).abs();
                assert!(error < 2.5e-7, "{level:?}: exp({x}) is {found}, off by {error}");
            }
        }
        let ends = level.run(Exp(std::array::from_fn(|i| if i == 0 { f32::NAN } else { f32::NEG_INFINITY })));
        assert!(ends[0].is_nan());
        assert!(ends[1] > 0.0 && ends[1] < 2e-38);
    }
}

struct Transpose(Box<[Unit; LANES]>);

impl Kernel for Transpose {
    type Output = Box<[Unit; LANES]>;
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Self::Output {
        let mut rows = self.0.map(|row| simd.load(&row));
        simd.transpose(&mut rows);
        for (row, out) in rows.into_iter().zip(self.0.iter_mut()) {
            simd.store(row, out);
        }
        self.0
    }
}

#[test]
fn transpose_swaps_rows_and_columns() {
    let matrix: [Unit; LANES] = std::array::from_fn(|i| IOTA.map(|j| 16.0 * i as f32 + j));
    for level in Level::available() {
        let found = level.run(Transpose(Box::new(matrix)));
        for (i, row) in found.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                assert_eq!(*value, matrix[j][i], "{level:?} [{i}, {j}]");
            }
        }
    }
}

struct LookUp(Unit, [u8; LANES]);

impl Kernel for LookUp {
    type Output = (Unit, f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut out = [0.0; LANES];
        let table = simd.load(&self.0);
        simd.store(simd.look_up(table, simd.load_u8(&self.1)), &mut out);
        (out, simd.sum(table), simd.max_lane(table))
    }
}

#[test]
fn look_up_reads_the_low_four_bits() {
    let mut random = Random::new(2);
    for level in Level::available() {
        for _ in 0..100 {
            let table: Unit = std::array::from_fn(|_| random.normal());
            let index: [u8; LANES] = std::array::from_fn(|_| random.next() as u8);
            let (found, sum, max) = level.run(LookUp(table, index));
            for (found, index) in found.iter().zip(index) {
                assert_eq!(*found, table[usize::from(index & 15)], "{level:?} {index}");
            }
            assert!((sum - table.iter().sum::<f32>()).abs() < 1e-5, "{level:?}");
            assert_eq!(max, table.iter().copied().fold(f32::MIN, f32::max), "{level:?}");
        }
    }
}

struct Halves([u8; 32]);

impl Kernel for Halves {
    type Output = (Unit, Unit, [Unit; 2]);
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let (mut f16s, mut bf16s) = ([0.0; LANES], [0.0; LANES]);
        simd.store(simd.load_f16(&self.0), &mut f16s);
        simd.store(simd.load_bf16(&self.0), &mut bf16s);
        let mut singles = [[0.0; LANES]; 2];
        simd.store(simd.splat_half([self.0[0], self.0[1]]), &mut singles[0]);
        simd.store(simd.splat_half([self.0[30], self.0[31]]), &mut singles[1]);
        (f16s, bf16s, singles)
    }
}

#[test]
fn every_half_precision_number_widens_exactly() {
    for level in Level::available() {
        for first in (0..=u16::MAX).step_by(LANES) {
            let mut bytes = [0; 32];
            for (i, pair) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *pair = (first + i as u16).to_le_bytes();
            }
            let (f16s, bf16s, singles) = level.run(Halves(bytes));
            for i in 0..LANES {
                let bits = first + i as u16;
                let (f16, bf16) = (half::f16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32());
                assert!(f16s[i] == f16 || f16s[i].is_nan() && f16.is_nan(), "{level:?} f16 {bits:#x}");
                assert!(bf16s[i] == bf16 || bf16s[i].is_nan() && bf16.is_nan(), "{level:?} bf16 {bits:#x}");
            }
            for (single, expected) in singles.iter().zip([f16s[0], f16s[15]]) {
                assert!(single.iter().all(|v| v.to_bits() == expected.to_bits()), "{level:?} {first:#x}");
            }
        }
    }
}

/// Eight words of codes and of activations, and what their products are added to.
struct Pairs<'a>(&'a [Words; 8], &'a [[i8; 4]; 8], i32);

impl Kernel for Pairs<'_> {
    type Output = [Unit; 2];
    #[inline(always)]
    fn run<S: Dots>(self, simd: S) -> Self::Output {
        let sum = simd.splat_i32(self.2);
        let (mut pairs, mut dots) = (simd.begin(sum), sum);
        for (codes, x) in self.0.iter().zip(self.1) {
            pairs = simd.add_pairs(pairs, simd.load_words(codes), *x);
            dots = simd.dot(dots, simd.load_words(codes), *x);
        }
        let mut out = [[0.0; LANES]; 2];
        simd.store(simd.to_f32(simd.finish(pairs, sum)), &mut out[0]);
        simd.store(simd.to_f32(dots), &mut out[1]);
        out
    }
}

#[test]
fn pairs_of_small_codes_do_not_overflow() {
    let mut random = Random::new(7);
    for level in Level::available() {
        for case in 0..200 {
            let extreme = case < 4;
            let codes: [Words; 8] = std::array::from_fn(|_| {
                std::array::from_fn(|_| if extreme { 0x0f0f_0f0f } else { random.next() as u32 & 0x0f0f_0f0f })
            });
            let x: [[i8; 4]; 8] = std::array::from_fn(|_| {
                let end = if case % 2 == 0 { 127 } else { -127 };
                std::array::from_fn(|_| if extreme { end } else { random.below(255) as i8 }.max(-127))
            });
            let found = level.run(Pairs(&codes, &x, -40 + case));
            for lane in 0..LANES {
                let word = |w: usize| codes[w][lane].to_le_bytes().into_iter().zip(x[w]);
                let terms = (0..8).flat_map(|w| word(w).map(|(code, x)| i32::from(code) * i32::from(x)));
                let expected = (-40 + case + terms.sum::<i32>()) as f32;
                assert_eq!([found[0][lane], found[1][lane]], [expected; 2], "{level:?} {case}");
            }
        }
    }
}

struct StorePairs(Unit, Unit);

impl Kernel for StorePairs {
    type Output = Words;
    #[inline(always)]
    fn run<S: Dots>(self, simd: S) -> Words {
        let mut out = [0; LANES];
        simd.store_pairs(simd.load(&self.0), simd.load(&self.1), &mut out);
        out
    }
}

#[test]
fn pairs_are_the_nearest_bfloat16() {
    let mut random = Random::new(8);
    let special = [0x3f80_8000, 0x3f81_8000, 0x7f7f_ffff, 0x0000_8001, 0x8000_0000, 0xff80_0000, 0x3f80_7fff];
    for level in Level::available() {
        for round in 0..100 {
            let mut low: Unit = std::array::from_fn(|_| random.normal());
            let high: Unit = std::array::from_fn(|_| random.normal() * 1e-30);
            if round % 2 == 0 {
                low[..special.len()].copy_from_slice(&special.map(f32::from_bits));
            }
            low[15] = f32::from_bits(0x7fff_e000);
            let found = level.run(StorePairs(low, high));
            for i in 0..15 {
                let expected = [low[i], high[i]].map(|x| half::bf16::from_f32(x).to_bits());
                assert_eq!([found[i] as u16, (found[i] >> 16) as u16], expected, "{level:?}: {} {}", low[i], high[i]);
            }
            assert_eq!(found[15], 0x7fc0_7fc0, "{level:?}");
        }
    }
}
