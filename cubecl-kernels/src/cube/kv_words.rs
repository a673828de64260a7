//! Reading and writing caches of eight bits; [`crate::ops::kv_cache`] says how they lie.

use cubecl::prelude::*;

use crate::ops::{Q8_BLOCK, Q8_LARGEST, Q8_MIDDLE};

/// Words of codes that share a scale.
pub(super) const BLOCK_WORDS: u32 = Q8_BLOCK as u32 / 4;

/// First word of a slot's head; `index` counts the heads of all slots.
#[cube]
pub(super) fn region(index: u32, capacity: u32, #[comptime] d: u32) -> u32 {
    index * capacity * comptime!(d / 4 + d / Q8_BLOCK as u32)
}

/// Place of word `word` of a head's codes at a position.
#[cube]
pub(super) fn code_at(region: u32, position: u32, word: u32, #[comptime] d: u32) -> u32 {
    region + position * comptime!(d / 4) + word
}

/// Place of the scale of that word.
#[cube]
pub(super) fn scale_at(region: u32, capacity: u32, position: u32, word: u32, #[comptime] d: u32) -> u32 {
    region + capacity * comptime!(d / 4) + position * comptime!(d / Q8_BLOCK as u32) + word / BLOCK_WORDS
}

/// Value `at` of a word of codes.
#[cube]
pub(super) fn value(word: u32, scale: f32, #[comptime] at: u32) -> f32 {
    (f32::cast_from((word >> comptime!(8 * at)) & 0xffu32) - Q8_MIDDLE) * scale
}

/// The scale of a block whose largest value is `largest`.
#[cube]
pub(super) fn scale_of(largest: f32) -> f32 {
    largest / Q8_LARGEST
}

/// The code of `value`, in place `at` of its word.
#[cube]
pub(super) fn code(value: f32, scale: f32, #[comptime] at: u32) -> u32 {
    let inverse = select(scale > 0.0f32, 1.0f32 / scale, 0.0f32);
    // A floor of what is half too large: rounding differs from device to device.
    u32::cast_from(f32::floor(value * inverse + comptime!(Q8_MIDDLE + 0.5))) << comptime!(8 * at)
}
