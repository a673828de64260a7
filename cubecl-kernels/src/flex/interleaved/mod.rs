//! Matrices whose rows are interleaved, multiplied with activations of eight bits.
//!
//! Sixteen rows make a *group*. Word `w` (four bytes) of all sixteen lies side by side, so that one
//! instruction multiplies four columns of sixteen rows and every row keeps to its lane: scales are
//! applied to whole vectors, and there is nothing to add up across lanes. Activations become
//! integers in `-127..=127` with a scale per 32 columns, ggml's `Q8_0`; products within a
//! sub-block are exact, the rest is float32.
//!
//! bfloat16 weights lie the same way, two columns to a word, or where the processor multiplies them in twelve
//! bits each ([`twelve_bits`]), and meet activations in bfloat16. Elsewhere activations stay float32.
//!
//! Where the processor multiplies tiles of bfloat16, many rows of activations meet weights of any format in those
//! ([`tiles`]).

mod columns;
mod floats;
mod formats;
mod layout;
mod memory;
mod pairs;
mod product;
mod tiles;
mod twelve_bits;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub(crate) use layout::Interleaved;
pub(super) use memory::{Line, Lines};
pub(crate) use product::linear;
