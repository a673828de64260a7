//! The formats whose four-bit codes index a table of uneven steps.
#![allow(non_camel_case_types)]

use bytemuck::{Pod, Zeroable};

use super::{Block, Sink, put_nibbles, scaled};
use crate::flex::simd::{Simd, Unit};

/// ggml's `kvalues_iq4nl`.
const IQ4: Unit = [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

/// The E2M1 values, doubled (ggml's `kvalues_mxfp4`).
const E2M1: Unit = [0., 1., 2., 3., 4., 6., 8., 12., -0., -1., -2., -3., -4., -6., -8., -12.];

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct IQ4_NL {
    d: [u8; 2],
    qs: [u8; 16],
}

impl Block for IQ4_NL {
    const UNITS: usize = 2;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let table = scaled(simd, &IQ4, simd.splat_half(self.d));
        put_nibbles(simd, &self.qs, table, [0, 1], sink);
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct IQ4_XS {
    d: [u8; 2],
    scales_h: [u8; 2],
    scales_l: [u8; 4],
    qs: [[u8; 16]; 8],
}

impl Block for IQ4_XS {
    const UNITS: usize = 16;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        let d = simd.splat_half(self.d);
        let scales_h = u16::from_le_bytes(self.scales_h);
        for (sub, qs) in self.qs.iter().enumerate() {
            let low = u16::from(self.scales_l[sub / 2] >> (4 * (sub % 2)) & 0xf);
            let high = scales_h >> (2 * sub) & 3;
            let scale = simd.splat(f32::from(low | high << 4) - 32.0);
            let table = scaled(simd, &IQ4, simd.mul(d, scale));
            put_nibbles(simd, qs, table, [2 * sub, 2 * sub + 1], sink);
        }
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::flex) struct MXFP4 {
    e: u8,
    qs: [u8; 16],
}

impl Block for MXFP4 {
    const UNITS: usize = 2;

    #[inline(always)]
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
        // 2^(e - 127) / 2, which makes up for the doubled values; the two smallest are subnormal.
        let bits = if self.e < 2 { 0x0020_0000 << self.e } else { u32::from(self.e - 1) << 23 };
        let table = scaled(simd, &E2M1, simd.splat(f32::from_bits(bits)));
        put_nibbles(simd, &self.qs, table, [0, 1], sink);
    }
}
