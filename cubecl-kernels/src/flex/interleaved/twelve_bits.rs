//! bfloat16 in twelve bits, without loss.
//!
//! Weights use few of bfloat16's exponents ("DFloat11", Zhang et al. 2025, finds 2.6 bits of information in the
//! eight). Sixteen rows keep each weight's sign and mantissa in a byte, and in four bits which of fifteen
//! neighbouring exponents it has; the few weights with another are listed. A decode step, which waits for
//! memory, reads a quarter less.

use half::bf16;
use rayon::prelude::*;

use super::memory::Line;
use crate::flex::simd::{Bf16, LANES, Level, Unit};

/// Columns of a block: a line of exponents, then two of signs and mantissas.
pub(super) const COLS: usize = 8;
/// Lines of a block.
pub(super) const LINES: usize = 3;
/// Exponents that have a code; code 0 is the number zero.
const CODES: usize = 15;
/// One weight in so many may be listed: to multiply such a one takes as long as a few dozen others.
const LISTED: usize = 256;
/// Activations are multiplied by two to this power, and sums divided: a weight's stored exponent is its code, so
/// that products would else vanish.
const RAISED: i32 = 100;

/// A weight that has no code.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Exception {
    col: u32,
    lane: u16,
    bits: u16,
}

/// What a matrix in twelve bits has beside its lines.
#[derive(Debug)]
pub(super) struct TwelveBits {
    proof: Bf16,
    /// Of each group of rows, the exponent below that of code 1.
    bases: Vec<u8>,
    /// Of each group of rows, by column.
    exceptions: Vec<Vec<Exception>>,
}

/// `N` rows of activations for [`TwelveBits::product`].
pub(super) struct Rows<'a, const N: usize> {
    /// Pairs of columns as bfloat16; rows that are missing are zeros.
    pairs: Vec<[[u32; N]; COLS / 2]>,
    x: Vec<&'a [f32]>,
    raised: i32,
}

impl<'a, const N: usize> Rows<'a, N> {
    /// # Shapes
    /// x `[at most N, cols]`, `cols` a multiple of 32.
    pub(super) fn new(proof: Bf16, x: &'a [f32], cols: usize) -> Self {
        // Beside numbers so large, what vanishes is nothing.
        let raised = if proof.largest(x) < (1 << 27) as f32 { RAISED } else { 0 };
        let mut pairs = vec![[[0; N]; COLS / 2]; cols / COLS];
        let x: Vec<_> = x.chunks_exact(cols).collect();
        let mut rounded = vec![[0; LANES]; cols / (2 * LANES)];
        for (n, x) in x.iter().enumerate() {
            proof.round(x, power_of_two(raised), &mut rounded);
            for (to, from) in pairs.as_flattened_mut().iter_mut().zip(rounded.as_flattened()) {
                to[n] = *from;
            }
        }
        Self { pairs, x, raised }
    }
}

/// Two to the power of `n`, in `-126..=127`.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

fn exponent(bits: u16) -> usize {
    usize::from(bits >> 7 & 0xff)
}

fn is_zero(bits: u16) -> bool {
    bits & 0x7fff == 0
}

/// The bits of element `at` of a row.
fn element(row: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([row[2 * at], row[2 * at + 1]])
}

/// The exponent below the fifteen that most of `rows` have, and how many others there are.
fn base(rows: &[u8]) -> (u8, usize) {
    let mut counts = [0usize; 256];
    let mut zeros = 0;
    for bits in rows.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)) {
        counts[exponent(bits)] += 1;
        zeros += usize::from(is_zero(bits));
    }
    let held = |base: usize| counts[base + 1..=base + CODES].iter().sum::<usize>();
    // Neither numbers without a leading one nor infinities have a code.
    let best = (0..=254 - CODES).max_by_key(|base| held(*base)).unwrap_or_default();
    (best as u8, rows.len() / 2 - zeros - held(best))
}

impl TwelveBits {
    /// The groups of a matrix `[rows, cols]` as stored, still without exceptions; `None` where the processor does
    /// not multiply bfloat16, or too many weights have no code.
    pub(super) fn new(bytes: &[u8], cols: usize) -> Option<Self> {
        let proof = Level::best().bf16()?;
        let groups: Vec<_> = bytes.par_chunks(LANES * cols * 2).map(base).collect();
        let listed: usize = groups.iter().map(|(_, listed)| listed).sum();
        if listed > bytes.len() / 2 / LISTED {
            return None;
        }
        let exceptions = vec![Vec::new(); groups.len()];
        Some(Self { proof, bases: groups.into_iter().map(|(base, _)| base).collect(), exceptions })
    }

    /// Writes the groups to `lines` and lists the exceptions.
    pub(super) fn fill(&mut self, bytes: &[u8], cols: usize, lines: &mut [Line]) {
        let groups = lines.par_chunks_exact_mut(cols / COLS * LINES).zip(bytes.par_chunks(LANES * cols * 2));
        groups.zip(self.bases.par_iter().zip(&mut self.exceptions)).for_each(|((group, rows), (base, exceptions))| {
            for (lane, row) in rows.chunks_exact(2 * cols).enumerate() {
                for (block, lines) in group.as_chunks_mut::<LINES>().0.iter_mut().enumerate() {
                    let (mut codes, mut bytes) = (0, [0; 2]);
                    for i in 0..COLS {
                        let col = block * COLS + i;
                        let bits = element(row, col);
                        let code = exponent(bits).wrapping_sub(usize::from(*base));
                        let coded = is_zero(bits) || (1..=CODES).contains(&code);
                        if !coded {
                            exceptions.push(Exception { col: col as u32, lane: lane as u16, bits });
                        }
                        let code = if coded && !is_zero(bits) { code as u32 } else { 0 };
                        let byte = if coded { u32::from(bits >> 8 & 0x80 | bits & 0x7f) } else { 0 };
                        codes |= code << code_place(i);
                        bytes[i / 4] |= byte << byte_place(i);
                    }
                    lines[0][lane] = codes;
                    lines[1][lane] = bytes[0];
                    lines[2][lane] = bytes[1];
                }
            }
            exceptions.sort_by_key(|exception| exception.col);
        });
    }

    /// Bytes held beside the lines.
    pub(super) fn bytes(&self) -> usize {
        self.bases.len() + self.exceptions.iter().map(|group| size_of_val(group.as_slice())).sum::<usize>()
    }

    /// The products of the sixteen rows of group `group`, whose lines are `lines`, with `x`.
    pub(super) fn product<const N: usize>(&self, group: usize, lines: &[Line], x: &Rows<'_, N>) -> [Unit; N] {
        let mut sums = self.proof.twelve_bits(lines, &x.pairs);
        let power = i32::from(self.bases[group]) - x.raised;
        // One factor alone might not be a float.
        let (first, second) = (power_of_two(power / 2), power_of_two(power - power / 2));
        for (sums, x) in sums.iter_mut().zip(&x.x) {
            for sum in sums.iter_mut() {
                *sum = *sum * first * second;
            }
            for exception in &self.exceptions[group] {
                // Rounded as all of x is.
                let x = bf16::from_f32(x[exception.col as usize]).to_f32();
                sums[usize::from(exception.lane)] += x * bf16::from_bits(exception.bits).to_f32();
            }
        }
        sums
    }

    /// Writes the lines of the group as interleaved bfloat16 has them, `[cols / 2, LANES]` pairs.
    pub(super) fn unpack(&self, group: usize, lines: &[Line], out: &mut [Line]) {
        self.proof.unpack_twelve_bits(lines, u32::from(self.bases[group]), out);
        for exception in &self.exceptions[group] {
            let (col, lane) = (exception.col as usize, usize::from(exception.lane));
            out[col / 2][lane] |= u32::from(exception.bits) << (16 * (col % 2));
        }
    }

    /// Writes the stored bytes of a row of the group.
    pub(super) fn row(&self, group: usize, lines: &[Line], lane: usize, out: &mut [u8]) {
        let base = u16::from(self.bases[group]);
        for (lines, out) in lines.as_chunks::<LINES>().0.iter().zip(out.as_chunks_mut::<{ 2 * COLS }>().0) {
            for i in 0..COLS {
                let code = (lines[0][lane] >> code_place(i) & 0xf) as u16;
                let byte = (lines[1 + i / 4][lane] >> byte_place(i) & 0xff) as u16;
                let exponent = if code == 0 { 0 } else { base + code };
                let bits = (byte & 0x80) << 8 | exponent << 7 | byte & 0x7f;
                out[2 * i..2 * i + 2].copy_from_slice(&bits.to_le_bytes());
            }
        }
        for exception in self.exceptions[group].iter().filter(|e| usize::from(e.lane) == lane) {
            let at = 2 * exception.col as usize;
            out[at..at + 2].copy_from_slice(&exception.bits.to_le_bytes());
        }
    }
}

/// Where a line of exponents has the code of column `i` of a block: even columns in the lower half of a word, so
/// that one shift brings those of a pair to their places.
fn code_place(i: usize) -> usize {
    4 * (i / 2) + 16 * (i % 2)
}

/// Where a line of signs and mantissas has the byte of column `i`: pairs 0 and 2 in the even bytes, 1 and 3 in
/// the odd ones.
fn byte_place(i: usize) -> usize {
    8 * (i / 2 % 2) + 16 * (i % 2)
}
