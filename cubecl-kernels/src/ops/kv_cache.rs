//! How keys and values lie in a cache.
//!
//! A cache of floats is `[slots, kv_heads, capacity, head_dim]`. One of eight bits ("Q8_0") is
//! `[slots, kv_heads, capacity, q8_width(head_dim)]` words in a float32 tensor that nothing but the
//! attention operations reads: for each slot and head first the codes of all positions,
//! `[capacity, head_dim]` bytes, each the value over its block's scale, rounded, plus 128; then the
//! scales, `[capacity, head_dim / 32]` float32.

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
