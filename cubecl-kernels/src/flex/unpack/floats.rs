//! The plain floats, 32 elements at a time.

use bytemuck::{Pod, Zeroable};

use super::{Block, Sink};
use crate::flex::simd::Simd;

macro_rules! float {
    ($name:ident, $bytes:literal, $load:ident) => {
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(in crate::flex) struct $name {
            elements: [[u8; $bytes]; 2],
        }

        impl Block for $name {
            const UNITS: usize = 2;

            #[inline(always)]
            fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>) {
                sink.put::<0>(simd, 0, simd.$load(&self.elements[0]));
                sink.put::<1>(simd, 1, simd.$load(&self.elements[1]));
            }
        }
    };
}

float!(F32, 64, load_f32);
float!(F16, 32, load_f16);
float!(BF16, 32, load_bf16);
