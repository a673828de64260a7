//! Rows side by side, and one of them back again.

use rayon::prelude::*;

use super::memory::{Line, Lines};
use super::twelve_bits::{self, TwelveBits};
use crate::flex::embedding;
use crate::flex::simd::LANES;
use crate::formats::Format;

/// Which bytes of a block become words and which become separate halves.
struct Fields {
    /// Elements of a block here: bfloat16 has blocks too.
    len: usize,
    bytes: usize,
    /// Ranges of whole words, `(first byte, words)`.
    words: &'static [(usize, usize)],
    /// First bytes of two-byte fields.
    halves: &'static [usize],
}

/// The fields of a format's block, if it can be interleaved.
const fn fields(format: Format) -> Option<Fields> {
    macro_rules! fields {
        ($($at:literal: $count:literal),+; $($half:literal),*) => {
            Some(Fields {
                len: format.block_len(),
                bytes: format.block_bytes(),
                words: &[$(($at, $count)),+],
                halves: &[$($half),*],
            })
        };
    }
    match format {
        Format::Q4_0 | Format::IQ4_NL => fields![2: 4; 0],
        Format::Q4_1 => fields![4: 4; 0, 2],
        Format::Q5_0 => fields![2: 1, 6: 4; 0],
        Format::Q5_1 => fields![4: 1, 8: 4; 0, 2],
        Format::Q8_0 => fields![2: 8; 0],
        Format::Q2_K => fields![0: 4, 16: 16; 80, 82],
        Format::Q3_K => fields![0: 8, 32: 16, 96: 3; 108],
        Format::Q4_K => fields![4: 3, 16: 32; 0, 2],
        Format::Q5_K => fields![4: 3, 16: 8, 48: 32; 0, 2],
        Format::Q6_K => Some(Fields { len: 256, bytes: 210, words: &Q6_K_WORDS, halves: &[208] }),
        Format::IQ4_XS => fields![4: 1, 8: 32; 0, 2],
        // Two columns to a word.
        Format::BF16 => Some(Fields { len: 32, bytes: 64, words: &[(0, 16)], halves: &[] }),
        _ => None,
    }
}

/// The scales, then what yields the same columns side by side: memory is fastest when it is read
/// in order. Word `w` of either run of low nibbles, and of the high bits, half by half.
const Q6_K_WORDS: [(usize, usize); 49] = {
    let (mut words, mut i) = ([(192, 4); 49], 0);
    while i < 16 {
        let (half, w) = (i / 8, i % 8);
        words[1 + 3 * i] = (64 * half + 4 * w, 1);
        words[2 + 3 * i] = (64 * half + 32 + 4 * w, 1);
        words[3 + 3 * i] = (128 + 32 * half + 4 * w, 1);
        i += 1;
    }
    words
};

impl Fields {
    fn word_count(&self) -> usize {
        self.words.iter().map(|(_, count)| count).sum()
    }

    /// Blocks whose halves share a line.
    fn chunk_blocks(&self) -> usize {
        if self.halves.len() == 1 { 2 } else { 1 }
    }

    /// Lines of a row group's `blocks`.
    fn lines(&self, blocks: usize) -> usize {
        let headers = if self.halves.is_empty() { 0 } else { blocks.div_ceil(self.chunk_blocks()) };
        headers + blocks * self.word_count()
    }

    /// Lines before block `block`: of its halves, of its words.
    fn places(&self, block: usize) -> (usize, usize) {
        let (chunk, within) = (block / self.chunk_blocks(), block % self.chunk_blocks());
        let start = self.lines(chunk * self.chunk_blocks());
        (start, start + usize::from(!self.halves.is_empty()) + within * self.word_count())
    }

    /// First bytes of the words.
    fn word_places(&self) -> impl Iterator<Item = usize> {
        self.words.iter().flat_map(|(first, count)| (0..*count).map(move |i| first + 4 * i))
    }
}

/// A matrix `[rows, cols]` in groups of sixteen rows; the last is filled up with zeros.
///
/// A group holds its blocks one after the other, each as a line of its two halves, `[2, 16]`, and
/// its words, `[words, 16]`; of formats with a single half two blocks share a line. So memory is
/// read in order, which is where it is fastest.
///
/// bfloat16 lies in twelve bits a weight where that is possible and pays.
#[derive(Debug)]
pub(crate) struct Interleaved {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) cols: usize,
    group_lines: usize,
    lines: Lines,
    twelve_bits: Option<TwelveBits>,
}

impl Interleaved {
    /// Whether matrices of the format can be interleaved.
    #[cfg(test)]
    pub(super) const fn supports(format: Format) -> bool {
        fields(format).is_some()
    }

    /// Interleaves stored rows; `None` when the format cannot be, or `bytes` is not the matrix.
    pub(crate) fn new(format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Option<Self> {
        let fields = fields(format)?;
        let row_bytes = format.row_bytes(cols)?;
        if bytes.len() != rows.checked_mul(row_bytes)? || cols == 0 || !cols.is_multiple_of(fields.len) {
            return None;
        }
        if format == Format::BF16
            && let Some(mut twelve_bits) = TwelveBits::new(bytes, cols)
        {
            let group_lines = cols / twelve_bits::COLS * twelve_bits::LINES;
            let mut lines = Lines::zeros(rows.div_ceil(LANES) * group_lines);
            twelve_bits.fill(bytes, cols, lines.lines_mut());
            return Some(Self { format, rows, cols, group_lines, lines, twelve_bits: Some(twelve_bits) });
        }
        let blocks = cols / fields.len;
        let group_lines = fields.lines(blocks);
        let mut lines = Lines::zeros(rows.div_ceil(LANES) * group_lines);
        let groups = lines.lines_mut().par_chunks_exact_mut(group_lines);
        groups.zip(bytes.par_chunks(LANES * row_bytes)).for_each(|(group, rows)| {
            for (i, offset) in (0..blocks).map(|block| (block, block % fields.chunk_blocks() * fields.halves.len())) {
                let (header, first) = fields.places(i);
                for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                    let block = &row[i * fields.bytes..][..fields.bytes];
                    let words = &mut group[first..][..fields.word_count()];
                    for (word, at) in words.iter_mut().zip(fields.word_places()) {
                        word[lane] = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
                    }
                    spread_high_bits(format, &mut words[0][lane]);
                    let halves: &mut [[u16; LANES]; 2] = bytemuck::cast_mut(&mut group[header]);
                    for (half, at) in halves[offset..].iter_mut().zip(fields.halves) {
                        half[lane] = u16::from_le_bytes([block[*at], block[*at + 1]]);
                    }
                }
            }
        });
        Some(Self { format, rows, cols, group_lines, lines, twelve_bits: None })
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.lines.lines()) + self.twelve_bits.as_ref().map_or(0, TwelveBits::bytes)
    }

    /// Elements of a row.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// The lines of sixteen rows.
    pub(super) fn group(&self, group: usize) -> &[Line] {
        &self.lines.lines()[group * self.group_lines..][..self.group_lines]
    }

    /// What weights in twelve bits have beside the lines of their groups.
    pub(super) fn twelve_bits(&self) -> Option<&TwelveBits> {
        self.twelve_bits.as_ref()
    }

    /// Writes rows `tokens` to `out`, `[tokens, cols]`; a token that is no row becomes zeros.
    pub(crate) fn gather(&self, tokens: &[i32], out: &mut [f32]) {
        let Some(row_bytes) = self.format.row_bytes(self.cols) else { return };
        let write = |stored: &mut Vec<u8>, (token, out): (&i32, &mut [f32])| match usize::try_from(*token) {
            Ok(row) if row < self.rows => {
                stored.resize(row_bytes, 0);
                self.row(row, stored);
                embedding::dequantize_rows(self.format, stored, self.cols, 0..1, out);
            }
            _ => out.fill(0.0),
        };
        if tokens.len() < 8 {
            let mut stored = Vec::new();
            tokens.iter().zip(out.chunks_exact_mut(self.cols)).for_each(|row| write(&mut stored, row));
        } else {
            tokens.par_iter().zip(out.par_chunks_exact_mut(self.cols)).for_each_init(Vec::new, write);
        }
    }

    /// Writes the stored bytes of one row, [`Format::row_bytes`] of them.
    pub(super) fn row(&self, row: usize, out: &mut [u8]) {
        let Some(fields) = fields(self.format) else { return };
        let (group, lane) = (self.group(row / LANES), row % LANES);
        if let Some(twelve_bits) = &self.twelve_bits {
            return twelve_bits.row(row / LANES, group, lane, out);
        }
        for (block, out) in out.chunks_exact_mut(fields.bytes).enumerate() {
            let (header, first) = fields.places(block);
            let words = &group[first..][..fields.word_count()];
            for (i, (word, at)) in words.iter().zip(fields.word_places()).enumerate() {
                let mut word = word[lane];
                if i == 0 {
                    gather_high_bits(self.format, &mut word);
                }
                out[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            let halves: &[[u16; LANES]; 2] = bytemuck::cast_ref(&group[header]);
            let halves = &halves[block % fields.chunk_blocks() * fields.halves.len()..];
            for (half, at) in halves.iter().zip(fields.halves) {
                out[*at..*at + 2].copy_from_slice(&half[lane].to_le_bytes());
            }
        }
    }
}

/// The fifth bits of a `Q5_0` or `Q5_1` block, bit `4 w + b` for byte `b` of word `w`, move to bit
/// `8 b + w`, where a shift by `w` and a mask bring them to their bytes.
fn spread_high_bits(format: Format, bits: &mut u32) {
    if matches!(format, Format::Q5_0 | Format::Q5_1) {
        *bits = (0..32).map(|i| (*bits >> i & 1) << (8 * (i % 4) + i / 4)).sum();
    }
}

/// The reverse of [`spread_high_bits`].
fn gather_high_bits(format: Format, bits: &mut u32) {
    if matches!(format, Format::Q5_0 | Format::Q5_1) {
        *bits = (0..32).map(|i| (*bits >> (8 * (i % 4) + i / 4) & 1) << i).sum();
    }
}
