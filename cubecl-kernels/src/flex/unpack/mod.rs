//! Stored weights as vectors: every format's blocks, unpacked in registers.
//!
//! The values equal those of [`Format::dequantize`] bit by bit, up to the sign of zero.

mod floats;
mod four_bit;
mod k_quants;
mod legacy;

use bytemuck::Pod;

use super::simd::{LANES, Simd, Unit};
pub(super) use floats::{BF16, F16, F32};
pub(super) use four_bit::{IQ4_NL, IQ4_XS, MXFP4};
pub(super) use k_quants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub(super) use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// A block as it lies in memory.
///
/// The plain floats have "blocks" of 32 elements here, so that a row may end inside one.
pub(super) trait Block: Pod {
    /// Vectors per block; even.
    const UNITS: usize;

    /// Hands the block's vectors to `sink` in any order. The const parameter of [`Sink::put`] must
    /// alternate between 0 and 1.
    fn unpack<S: Simd>(&self, simd: S, sink: &mut impl Sink<S>);
}

/// What becomes of unpacked vectors.
pub(super) trait Sink<S: Simd> {
    /// Takes vector number `unit` of the block. `CHAIN` says which of a pair of independent sums
    /// may take it.
    fn put<const CHAIN: usize>(&mut self, simd: S, unit: usize, weights: S::F);
}

/// The whole blocks of a row, and what is left of it in a block filled up with zeros.
#[inline(always)]
pub(super) fn blocks<B: Block>(row: &[u8]) -> (&[B], Option<B>) {
    let whole = row.len() / size_of::<B>() * size_of::<B>();
    let (blocks, rest) = row.split_at(whole);
    let tail = (!rest.is_empty()).then(|| {
        let mut tail = B::zeroed();
        bytemuck::bytes_of_mut(&mut tail)[..rest.len()].copy_from_slice(rest);
        tail
    });
    (bytemuck::cast_slice(blocks), tail)
}

/// Writes unpacked vectors to memory.
struct Store<'a> {
    out: &'a mut [Unit],
}

impl<S: Simd> Sink<S> for Store<'_> {
    #[inline(always)]
    fn put<const CHAIN: usize>(&mut self, simd: S, unit: usize, weights: S::F) {
        simd.store(weights, &mut self.out[unit]);
    }
}

/// Unpacks the blocks of a row, or of a part of it, into `out`, which holds whole blocks.
#[inline(always)]
pub(super) fn store<S: Simd, B: Block>(simd: S, row: &[u8], out: &mut [Unit]) {
    let (whole, tail) = blocks::<B>(row);
    for (block, out) in whole.iter().chain(&tail).zip(out.chunks_exact_mut(B::UNITS)) {
        block.unpack(simd, &mut Store { out });
    }
}

/// Evaluates an expression with `$block` standing for the block type of `$format`, or another
/// where the format has none here.
macro_rules! with_block {
    ($format:expr, $block:ident => $then:expr, else $otherwise:expr) => {
        with_block!(@ $format, $block, $then, $otherwise,
            F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4)
    };
    (@ $format:expr, $block:ident, $then:expr, $otherwise:expr, $($name:ident)*) => {
        match $format {
            $($crate::formats::Format::$name => {
                type $block = $crate::flex::unpack::$name;
                $then
            })*
            _ => $otherwise,
        }
    };
}
pub(super) use with_block;

/// Elements per block as the kernels here see it: [`Format::block_len`], but 32 for the floats.
///
/// [`Format::block_len`]: crate::formats::Format::block_len
pub(super) fn block_len(format: crate::formats::Format) -> usize {
    with_block!(format, B => B::UNITS * LANES, else format.block_len())
}

/// Table of the 16 unsigned four-bit codes, `code * scale`.
#[inline(always)]
fn scaled<S: Simd>(simd: S, table: &Unit, scale: S::F) -> S::F {
    simd.mul(scale, simd.load(table))
}

/// Hands over sixteen bytes of codes: the low nibbles as vector `low`, the high ones as `high`,
/// both through `table`.
#[inline(always)]
fn put_nibbles<S: Simd>(simd: S, bytes: &[u8; 16], table: S::F, [low, high]: [usize; 2], sink: &mut impl Sink<S>) {
    let codes = simd.load_u8(bytes);
    sink.put::<0>(simd, low, simd.look_up(table, codes));
    sink.put::<1>(simd, high, simd.look_up(table, simd.shr(codes, simd.splat_i32(4))));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
