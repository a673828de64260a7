//! The k-quants: super-blocks of 256 elements with quantized scales of their sub-blocks.
#![allow(non_camel_case_types)]

use bytemuck::{Pod, Zeroable};

use super::{Block, Sink};
use crate::flex::simd::{IOTA, Simd, Unit};

/// Keeps the compiler from picking lanes out of a register one by one with shuffles, the scarcest
/// instructions here: a broadcast from memory is one load.
#[inline(always)]
fn in_memory(values: Unit) -> Unit {
    std::hint::black_box(values)
}

// The helpers are functions, not closures: only functions can be `inline(always)`.

/// The bits of two vectors of codes that `mask` keeps after a shift to the right.
#[inline(always)]
fn bits<S: Simd>(simd: S, codes: [S::I; 2], shift: S::I, mask: S::I) -> [S::I; 2] {
    [simd.and(simd.shr(codes[0], shift), mask), simd.and(simd.shr(codes[1], shift), mask)]
}

/// `scale * codes - minimum`, each step rounded as in the reference.
#[inline(always)]
fn affine<S: Simd>(simd: S, scale: f32, codes: S::F, minimum: f32) -> S::F {
    simd.sub(simd.mul(simd.splat(scale), codes), simd.splat(minimum))
}

/// `scale * (codes - zero)`.
#[inline(always)]
fn centred<S: Simd>(simd: S, scale: f32, codes: S::I, zero: f32) -> S::F {
    simd.mul(simd.splat(scale), simd.sub(simd.to_f32(codes), simd.splat(zero)))
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q2_K {
    scales: [u8; 16],
    /// Two halves of 128 elements, 32 elements in each bit pair.
    qs: [[[u8; 16]; 2]; 2],
    d: [u8; 2],
    dmin: [u8; 2],
}

impl Block for Q2_K {
    const UNITS: usize = 16;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let scales = simd.load_u8(&self.scales);
        let (nibble, two_bits) = (simd.splat_i32(0xf), simd.splat_i32(3));
        let d = simd.splat_half(self.d);
        let dmin = simd.splat_half(self.dmin);
        let (mut dl, mut ml) = ([0.0; 16], [0.0; 16]);
        simd.store(simd.mul(d, simd.to_f32(simd.and(scales, nibble))), &mut dl);
        simd.store(simd.mul(dmin, simd.to_f32(simd.shr(scales, simd.splat_i32(4)))), &mut ml);
        for (half, qs) in self.qs.iter().enumerate() {
            let codes = [simd.load_u8(&qs[0]), simd.load_u8(&qs[1])];
            for pair in 0..4 {
                let shift = simd.splat_i32(2 * pair as i32);
                let unit = 8 * half + 2 * pair;
                let [first, second] = bits(simd, codes, shift, two_bits);
                let (first, second) = (simd.to_f32(first), simd.to_f32(second));
                sink.put::<0>(simd, unit, affine(simd, dl[unit], first, ml[unit]));
                sink.put::<1>(simd, unit + 1, affine(simd, dl[unit + 1], second, ml[unit + 1]));
            }
        }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q3_K {
    hmask: [[u8; 16]; 2],
    qs: [[[u8; 16]; 2]; 2],
    scales: [u8; 12],
    d: [u8; 2],
}

impl Block for Q3_K {
    const UNITS: usize = 16;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let scales: [u8; 16] = std::array::from_fn(|sub| {
            let low = self.scales[sub % 8] >> (4 * (sub / 8)) & 0xf;
            let high = self.scales[8 + sub % 4] >> (2 * (sub / 4)) & 3;
            low | high << 4
        });
        let mut dl = [0.0; 16];
        let scales = simd.sub(simd.to_f32(simd.load_u8(&scales)), simd.splat(32.0));
        simd.store(simd.mul(simd.splat_half(self.d), scales), &mut dl);
        let (two_bits, third_bit) = (simd.splat_i32(3), simd.splat_i32(4));
        // The mask's bit of a sub-block is brought to place 2, where it means 4.
        let two = simd.splat_i32(2);
        let masks = [simd.shl(simd.load_u8(&self.hmask[0]), two), simd.shl(simd.load_u8(&self.hmask[1]), two)];
        for (half, qs) in self.qs.iter().enumerate() {
            let codes = [simd.load_u8(&qs[0]), simd.load_u8(&qs[1])];
            for pair in 0..4 {
                let shift = simd.splat_i32(2 * pair as i32);
                let mask_shift = simd.splat_i32((4 * half + pair) as i32);
                let unit = 8 * half + 2 * pair;
                let low = bits(simd, codes, shift, two_bits);
                let high = bits(simd, masks, mask_shift, third_bit);
                let (first, second) = (simd.or(low[0], high[0]), simd.or(low[1], high[1]));
                sink.put::<0>(simd, unit, centred(simd, dl[unit], first, 4.0));
                sink.put::<1>(simd, unit + 1, centred(simd, dl[unit + 1], second, 4.0));
            }
        }
    }
}

/// Scales (in lanes 0 to 7) and minima (in lanes 8 to 15 of the second) of a Q4_K or Q5_K block,
/// times `d` and `dmin`. The six-bit fields are sorted four at a time, as bytes of words.
#[inline(always)]
fn scales_and_minima<S: Simd>(simd: S, d: [u8; 2], dmin: [u8; 2], scales: &[u8; 12]) -> (Unit, Unit) {
    let word = |i: usize| u32::from_le_bytes([scales[i], scales[i + 1], scales[i + 2], scales[i + 3]]);
    let (first, second, third) = (word(0), word(4), word(8));
    let words = [
        first & 0x3f3f_3f3f,
        third & 0x0f0f_0f0f | (first >> 6 & 0x0303_0303) << 4,
        second & 0x3f3f_3f3f,
        third >> 4 & 0x0f0f_0f0f | (second >> 6 & 0x0303_0303) << 4,
    ];
    let mut bytes = [0; 16];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    let fields = simd.to_f32(simd.load_u8(&bytes));
    let (mut scales, mut minima) = ([0.0; 16], [0.0; 16]);
    simd.store(simd.mul(simd.splat_half(d), fields), &mut scales);
    simd.store(simd.mul(simd.splat_half(dmin), fields), &mut minima);
    (in_memory(scales), in_memory(minima))
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q4_K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    /// Each 32 bytes hold 64 elements: 32 low nibbles, then 32 high ones.
    qs: [[[u8; 16]; 2]; 4],
}

impl Block for Q4_K {
    const UNITS: usize = 16;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let (scales, minima) = scales_and_minima(simd, self.d, self.dmin, &self.scales);
        let iota = simd.load(&IOTA);
        for (pair, qs) in self.qs.iter().enumerate() {
            // Sixteen codes, so the products with all of them are a table.
            let low = affine(simd, scales[2 * pair], iota, minima[8 + 2 * pair]);
            let high = affine(simd, scales[2 * pair + 1], iota, minima[9 + 2 * pair]);
            let codes = [simd.load_u8(&qs[0]), simd.load_u8(&qs[1])];
            let shift = simd.splat_i32(4);
            sink.put::<0>(simd, 4 * pair, simd.look_up(low, codes[0]));
            sink.put::<1>(simd, 4 * pair + 1, simd.look_up(low, codes[1]));
            sink.put::<0>(simd, 4 * pair + 2, simd.look_up(high, simd.shr(codes[0], shift)));
            sink.put::<1>(simd, 4 * pair + 3, simd.look_up(high, simd.shr(codes[1], shift)));
        }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q5_K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    /// Bit `sub` is the fifth bit of sub-block `sub`.
    qh: [[u8; 16]; 2],
    qs: [[[u8; 16]; 2]; 4],
}

impl Block for Q5_K {
    const UNITS: usize = 16;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let (scales, minima) = scales_and_minima(simd, self.d, self.dmin, &self.scales);
        let (nibble, sixteen) = (simd.splat_i32(0xf), simd.splat_i32(16));
        let four = simd.splat_i32(4);
        let fifths = [simd.shl(simd.load_u8(&self.qh[0]), four), simd.shl(simd.load_u8(&self.qh[1]), four)];
        for (pair, qs) in self.qs.iter().enumerate() {
            let codes = [simd.load_u8(&qs[0]), simd.load_u8(&qs[1])];
            for high in 0..2 {
                let sub = 2 * pair + high;
                let nibbles = bits(simd, codes, simd.splat_i32(4 * high as i32), nibble);
                let fifths = bits(simd, fifths, simd.splat_i32(sub as i32), sixteen);
                let first = simd.to_f32(simd.or(nibbles[0], fifths[0]));
                let second = simd.to_f32(simd.or(nibbles[1], fifths[1]));
                sink.put::<0>(simd, 2 * sub, affine(simd, scales[sub], first, minima[8 + sub]));
                sink.put::<1>(simd, 2 * sub + 1, affine(simd, scales[sub], second, minima[8 + sub]));
            }
        }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q6_K {
    /// Two halves of 128 elements: 64 bytes of nibbles each.
    ql: [[[u8; 16]; 4]; 2],
    /// 32 bytes for each half, a bit pair for each quarter.
    qh: [[[u8; 16]; 2]; 2],
    scales: [u8; 16],
    d: [u8; 2],
}

impl Block for Q6_K {
    const UNITS: usize = 16;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let mut scales = [0.0; 16];
        simd.store(simd.mul(simd.splat_half(self.d), simd.to_f32(simd.load_i8(&self.scales))), &mut scales);
        let (nibble, upper) = (simd.splat_i32(0xf), simd.splat_i32(0x30));
        for (half, (ql, qh)) in self.ql.iter().zip(&self.qh).enumerate() {
            for i in 0..2 {
                // Sixteen of the 32 elements of each quarter.
                let (first, second) = (simd.load_u8(&ql[i]), simd.load_u8(&ql[2 + i]));
                let pairs = simd.load_u8(&qh[i]);
                let (two, four) = (simd.splat_i32(2), simd.splat_i32(4));
                let quarters = [
                    simd.or(simd.and(first, nibble), simd.and(simd.shl(pairs, four), upper)),
                    simd.or(simd.and(second, nibble), simd.and(simd.shl(pairs, two), upper)),
                    simd.or(simd.shr(first, four), simd.and(pairs, upper)),
                    simd.or(simd.shr(second, four), simd.and(simd.shr(pairs, two), upper)),
                ];
                let unit = 8 * half + i;
                sink.put::<0>(simd, unit, centred(simd, scales[unit], quarters[0], 32.0));
                sink.put::<1>(simd, unit + 2, centred(simd, scales[unit + 2], quarters[1], 32.0));
                sink.put::<0>(simd, unit + 4, centred(simd, scales[unit + 4], quarters[2], 32.0));
                sink.put::<1>(simd, unit + 6, centred(simd, scales[unit + 6], quarters[3], 32.0));
            }
        }
    }
}
