//! The one-level formats of 32 elements.
#![allow(non_camel_case_types)]

use bytemuck::{Pod, Zeroable};

use super::{Block, Sink, put_nibbles, scaled};
use crate::flex::simd::{IOTA, Simd, Unit};

/// The codes of `_0` formats count from -8.
const CENTRED: Unit = [-8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.];

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q4_0 {
    d: [u8; 2],
    qs: [u8; 16],
}

impl Block for Q4_0 {
    const UNITS: usize = 2;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let table = scaled(simd, &CENTRED, simd.splat_half(self.d));
        put_nibbles(simd, &self.qs, table, [0, 1], sink);
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q4_1 {
    d: [u8; 2],
    m: [u8; 2],
    qs: [u8; 16],
}

impl Block for Q4_1 {
    const UNITS: usize = 2;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let table = scaled(simd, &IOTA, simd.splat_half(self.d));
        let table = simd.add(table, simd.splat_half(self.m));
        put_nibbles(simd, &self.qs, table, [0, 1], sink);
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q5_0 {
    d: [u8; 2],
    qh: [u8; 4],
    qs: [u8; 16],
}

impl Block for Q5_0 {
    const UNITS: usize = 2;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let d = simd.splat_half(self.d);
        let [low, high] = five_bits(simd, &self.qs, self.qh);
        sink.put::<0>(simd, 0, simd.mul(d, simd.sub(low, simd.splat(16.0))));
        sink.put::<1>(simd, 1, simd.mul(d, simd.sub(high, simd.splat(16.0))));
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q5_1 {
    d: [u8; 2],
    m: [u8; 2],
    qh: [u8; 4],
    qs: [u8; 16],
}

impl Block for Q5_1 {
    const UNITS: usize = 2;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let (d, m) = (simd.splat_half(self.d), simd.splat_half(self.m));
        let [low, high] = five_bits(simd, &self.qs, self.qh);
        sink.put::<0>(simd, 0, simd.add(simd.mul(d, low), m));
        sink.put::<1>(simd, 1, simd.add(simd.mul(d, high), m));
    }
}

/// The codes of a five-bit block: nibbles from `qs`, the fifth bit of element `j` in bit `j` of
/// `qh`.
#[inline(always)]
fn five_bits<S: Simd>(simd: S, qs: &[u8; 16], qh: [u8; 4]) -> [S::F; 2] {
    const LANE_NUMBERS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let nibble = simd.splat_i32(0xf);
    let codes = simd.load_u8(qs);
    let qh = i32::from_le_bytes(qh);
    let lanes = simd.load_u8(&LANE_NUMBERS);
    let low = simd.or(simd.and(codes, nibble), fifth_bits(simd, qh, lanes));
    let high = simd.or(simd.shr(codes, simd.splat_i32(4)), fifth_bits(simd, qh >> 16, lanes));
    [simd.to_f32(low), simd.to_f32(high)]
}

/// Bit `lane` of `bits` in each lane, at place 4.
#[inline(always)]
fn fifth_bits<S: Simd>(simd: S, bits: i32, lanes: S::I) -> S::I {
    let shifted = simd.shr(simd.splat_i32(bits), lanes);
    simd.and(simd.shl(shifted, simd.splat_i32(4)), simd.splat_i32(16))
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct Q8_0 {
    d: [u8; 2],
    qs: [[u8; 16]; 2],
}

impl Block for Q8_0 {
    const UNITS: usize = 2;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let d = simd.splat_half(self.d);
        sink.put::<0>(simd, 0, simd.mul(d, simd.to_f32(simd.load_i8(&self.qs[0]))));
        sink.put::<1>(simd, 1, simd.mul(d, simd.to_f32(simd.load_i8(&self.qs[1]))));
    }
}
