//! Groups as pairs of bfloat16.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::formats::{Block, Stored, with_block};
use super::layout::Interleaved;
use super::memory::Line;
use crate::flex::simd::{Dots, Kernel, LANES, Level, Tile};
use crate::formats::Format;

/// Calls `f` with the groups that `rows` rows from group `first` on lie in, two columns to a word:
/// `[cols / 2, LANES]` each. What is no bfloat16 is rounded to it.
pub(super) fn with_pairs(level: Level, matrix: &Interleaved, first: usize, rows: usize, f: impl FnOnce(&[&[Line]])) {
    thread_local! {
        /// Kept from call to call: new memory would be touched for the first time in each.
        static UNPACKED: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
    }
    let groups = first..first + rows.div_ceil(LANES);
    if matrix.format == Format::BF16 && matrix.twelve_bits().is_none() {
        return f(&groups.map(|group| matrix.group(group)).collect::<Vec<_>>());
    }
    UNPACKED.with_borrow_mut(|tiles| {
        let length = matrix.cols() / 2;
        let needed = groups.len() * length;
        if tiles.len() < needed.div_ceil(LANES) {
            tiles.resize(needed.div_ceil(LANES), Tile([[0; LANES]; LANES]));
        }
        let lines: &mut [Line] = bytemuck::cast_slice_mut(tiles);
        for (group, out) in groups.zip(lines.chunks_exact_mut(length)) {
            match matrix.twelve_bits() {
                Some(twelve_bits) => twelve_bits.unpack(group, matrix.group(group), out),
                None => unpack(level, matrix.format, matrix.group(group), out),
            }
        }
        f(&lines[..needed].chunks_exact(length).collect::<Vec<_>>());
    });
}

/// Unpacks a group of a format with blocks.
fn unpack(level: Level, format: Format, group: &[Line], out: &mut [Line]) {
    with_block!(format, B => level.run(Unpack { group, out, block: PhantomData::<B> }));
}

struct Unpack<'a, B> {
    group: &'a [Line],
    out: &'a mut [Line],
    block: PhantomData<B>,
}

impl<B: Block> Kernel for Unpack<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) {
        let chunk_blocks = 2 / B::HALVES;
        let lines = 16 * B::SUBS;
        let chunks = self.group.chunks(1 + chunk_blocks * B::WORDS).zip(self.out.chunks_mut(chunk_blocks * lines));
        for (chunk, out) in chunks {
            let [halves, words @ ..] = chunk else { break };
            let halves: &[[u16; LANES]; 2] = bytemuck::cast_ref(halves);
            let blocks = words.chunks_exact(B::WORDS).zip(halves.chunks_exact(B::HALVES));
            for ((words, halves), out) in blocks.zip(out.chunks_exact_mut(lines)) {
                words.iter().for_each(|line| simd.prefetch(line));
                B::unpack(simd, Stored { words, halves }, out);
            }
        }
    }
}
