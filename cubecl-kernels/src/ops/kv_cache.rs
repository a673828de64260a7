//! How keys and values lie in a cache.
//!
//! A cache of floats is `[slots, kv_heads, capacity, head_dim]`. One of eight bits ("Q8_0") is
//! `[slots, kv_heads, capacity, q8_width(head_dim)]` words in a float32 tensor that nothing but the
//! attention operations reads: for each slot and head first the codes of all positions,
//! `[capacity, head_dim]` bytes, each the value over its block's scale, rounded, plus 128; then the
//! scales, `[capacity, head_dim / 32]` float32.

use std::ops::Range;

/// Elements that share a scale.
pub const Q8_BLOCK: usize = 32;

/// Largest code above or below the middle.
pub(crate) const Q8_LARGEST: f32 = 127.0;
/// The code of zero.
pub(crate) const Q8_MIDDLE: f32 = 128.0;

/// Words of a position's key or value head in a cache of eight bits; `None` where the head does not
/// divide into blocks.
pub fn q8_width(head_dim: usize) -> Option<usize> {
    head_dim.is_multiple_of(Q8_BLOCK).then(|| head_dim / 4 + head_dim / Q8_BLOCK)
}

/// Whether a cache whose last axis is `width` holds heads of `head_dim` elements in eight bits.
pub(crate) fn is_q8(width: usize, head_dim: usize) -> bool {
    width != head_dim
}

/// The rows of one head in a cache, `[capacity, head_dim]`.
#[derive(Clone, Copy)]
pub(crate) enum Head<'a> {
    Floats(&'a [f32]),
    Q8 { codes: &'a [u8], scales: &'a [f32] },
}

impl<'a> Head<'a> {
    /// Head `index` of all slots' in a cache whose last axis is `width`.
    pub(crate) fn of(cache: &'a [f32], index: usize, capacity: usize, width: usize, head_dim: usize) -> Self {
        let held = &cache[index * capacity * width..][..capacity * width];
        if !is_q8(width, head_dim) {
            return Self::Floats(held);
        }
        let (codes, scales) = held.split_at(capacity * head_dim / 4);
        Self::Q8 { codes: bytemuck::cast_slice(codes), scales }
    }

    /// The elements of `positions`, from `scratch` where they had to be computed.
    pub(crate) fn rows<'b>(self, positions: Range<usize>, head_dim: usize, scratch: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let elements = positions.start * head_dim..positions.end * head_dim;
        match self {
            Self::Floats(held) => &held[elements],
            Self::Q8 { codes, scales } => {
                scratch.clear();
                let scales = &scales[elements.start / Q8_BLOCK..];
                for (codes, scale) in codes[elements].chunks_exact(Q8_BLOCK).zip(scales) {
                    scratch.extend(codes.iter().map(|code| (f32::from(*code) - Q8_MIDDLE) * scale));
                }
                scratch
            }
        }
    }
}

/// Writes a position of head `index` of all slots'; outside the cache nothing.
pub(crate) fn write(cache: &mut [f32], index: usize, capacity: usize, width: usize, position: usize, values: &[f32]) {
    let head_dim = values.len();
    let Some(held) = cache.get_mut(index * capacity * width..(index + 1) * capacity * width) else { return };
    if !is_q8(width, head_dim) {
        return held[position * head_dim..][..head_dim].copy_from_slice(values);
    }
    let (codes, scales) = held.split_at_mut(capacity * head_dim / 4);
    let codes: &mut [u8] = bytemuck::cast_slice_mut(codes);
    let blocks = codes[position * head_dim..].chunks_exact_mut(Q8_BLOCK).zip(values.chunks_exact(Q8_BLOCK));
    for ((codes, values), scale) in blocks.zip(&mut scales[position * head_dim / Q8_BLOCK..]) {
        *scale = q8_block(values, codes);
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
