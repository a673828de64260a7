//! Key-value caches on the CPU; [`crate::ops::kv_cache`] says how they lie.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::simd::{LANES, Simd};
use crate::ops::kv_cache::is_q8;
use crate::ops::{Q8_BLOCK, Q8_LARGEST, Q8_MIDDLE};

/// A cache `[slots, kv_heads, capacity, width]`.
#[derive(Clone, Copy)]
pub(crate) struct Cache<'a> {
    pub(crate) elements: Elements<'a>,
    pub(crate) capacity: usize,
    /// Elements of a position's head, or the words of a cache of eight bits.
    pub(crate) width: usize,
    pub(crate) head_dim: usize,
}

/// The elements of a cache.
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

/// One head of one slot, `[capacity, head_dim]`.
#[derive(Clone, Copy)]
pub(crate) enum Head<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Q8 { codes: &'a [u8], scales: &'a [f32] },
}

impl<'a> Cache<'a> {
    /// Heads of all slots.
    pub(crate) fn heads(&self) -> usize {
        let elements = match self.elements {
            Elements::F32(elements) => elements.len(),
            Elements::F16(elements) => elements.len(),
        };
        elements / (self.capacity * self.width).max(1)
    }

    /// Head `index` of all slots'.
    pub(crate) fn head(&self, index: usize) -> Head<'a> {
        let range = index * self.capacity * self.width..(index + 1) * self.capacity * self.width;
        match self.elements {
            Elements::F16(elements) => Head::F16(&elements[range]),
            Elements::F32(elements) if is_q8(self.width, self.head_dim) => {
                let (codes, scales) = elements[range].split_at(self.capacity * self.head_dim / 4);
                Head::Q8 { codes: bytemuck::cast_slice(codes), scales }
            }
            Elements::F32(elements) => Head::F32(&elements[range]),
        }
    }
}

impl<'a> Head<'a> {
    /// The elements of `positions`, in `scratch` where they are not float32 as they are.
    #[inline(always)]
    pub(crate) fn rows<'b, S: Simd>(
        self,
        simd: S,
        positions: Range<usize>,
        head_dim: usize,
        scratch: &'b mut Vec<f32>,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        let range = positions.start * head_dim..positions.end * head_dim;
        match self {
            Self::F32(elements) => return &elements[range],
            Self::F16(elements) => {
                scratch.resize(range.len(), 0.0);
                let (units, rest) = elements[range].as_chunks::<LANES>();
                let (out, out_rest) = scratch.as_chunks_mut::<LANES>();
                for (unit, out) in units.iter().zip(out) {
                    simd.store(simd.load_f16(bytemuck::cast_ref(unit)), out);
                }
                rest.convert_to_f32_slice(out_rest);
            }
            Self::Q8 { codes, scales } => {
                scratch.clear();
                let scales = &scales[range.start / Q8_BLOCK..];
                for (codes, scale) in codes[range].chunks_exact(Q8_BLOCK).zip(scales) {
                    scratch.extend(codes.iter().map(|code| (f32::from(*code) - Q8_MIDDLE) * scale));
                }
            }
        }
        scratch
    }
}

/// A cache that is written.
pub(crate) struct CacheMut<'a> {
    pub(crate) elements: ElementsMut<'a>,
    pub(crate) capacity: usize,
    /// As of [`Cache`].
    pub(crate) width: usize,
}

/// The elements of a cache that is written.
pub(crate) enum ElementsMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
}

/// One head of one slot of a cache that is written.
pub(crate) enum HeadMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Q8 { codes: &'a mut [u8], scales: &'a mut [f32] },
}

impl<'a> CacheMut<'a> {
    /// The heads of all slots.
    pub(crate) fn heads(self, head_dim: usize) -> Vec<HeadMut<'a>> {
        let length = (self.capacity * self.width).max(1);
        match self.elements {
            ElementsMut::F16(elements) => elements.chunks_exact_mut(length).map(HeadMut::F16).collect(),
            ElementsMut::F32(elements) if is_q8(self.width, head_dim) => {
                let head = |head: &'a mut [f32]| {
                    let (codes, scales) = head.split_at_mut(self.capacity * head_dim / 4);
                    HeadMut::Q8 { codes: bytemuck::cast_slice_mut(codes), scales }
                };
                elements.chunks_exact_mut(length).map(head).collect()
            }
            ElementsMut::F32(elements) => elements.chunks_exact_mut(length).map(HeadMut::F32).collect(),
        }
    }
}

impl HeadMut<'_> {
    /// Writes a position within the capacity.
    pub(crate) fn write(&mut self, position: usize, values: &[f32]) {
        let at = position * values.len();
        match self {
            Self::F16(elements) => elements[at..][..values.len()].convert_from_f32_slice(values),
            Self::F32(elements) => elements[at..][..values.len()].copy_from_slice(values),
            Self::Q8 { codes, scales } => {
                let blocks = codes[at..].chunks_exact_mut(Q8_BLOCK).zip(values.chunks_exact(Q8_BLOCK));
                for ((codes, values), scale) in blocks.zip(&mut scales[at / Q8_BLOCK..]) {
                    *scale = q8_block(values, codes);
                }
            }
        }
    }
}

/// One block as a scale and codes.
fn q8_block(values: &[f32], codes: &mut [u8]) -> f32 {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / Q8_LARGEST;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value * inverse + (Q8_MIDDLE + 0.5)).floor() as u8;
    }
    scale
}
