//! Products with interleaved matrices.

use std::marker::PhantomData;

use super::columns::{Columns, SUB, quantize};
use super::floats;
use super::formats::{Block, Stored, with_block};
use super::layout::Interleaved;
use super::memory::Line;
use super::tiles;
use crate::flex::linear::cut;
use crate::flex::pool;
use crate::flex::simd::{Dots, Kernel, LANES, Level, Unit};
use crate::formats::Format;

/// Rows of activations that a tile multiplies at once: as many as sums fit the registers.
pub(super) const WIDE: usize = 8;
/// The same with few registers, and for a rest.
pub(super) const NARROW: usize = 4;

/// Weights per task: enough to outweigh the start of a task.
const TASK_WEIGHTS: usize = 1 << 15;

/// Groups of a task when there are many rows of activations: they stay in the second-level cache
/// while they meet one panel after the other.
const TASK_GROUPS: usize = 8;

/// `out[i * out_stride + out_offset + r] = x[i] · matrix[r]`.
///
/// # Shapes
/// x `[m, cols]`, out `[m, out_stride]`.
///
/// # Panics
/// When a slice is shorter than its shape.
pub(crate) fn linear(matrix: &Interleaved, x: &[f32], m: usize, out: &mut [f32], stride: usize, offset: usize) {
    linear_at(Level::best(), matrix, x, m, out, stride, offset);
}

/// [`linear`] with the instructions of `level`.
pub(super) fn linear_at(
    level: Level,
    matrix: &Interleaved,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    stride: usize,
    offset: usize,
) {
    let (rows, cols) = (matrix.rows, matrix.cols);
    let (x, out) = (&x[..m * cols], &mut out[..m * stride]);
    assert!(offset + rows <= stride, "{rows} outputs at {offset} of {stride}");
    if m == 0 || rows == 0 {
        return;
    }
    let columns: Vec<_> = out.chunks_exact_mut(stride).map(|out| &mut out[offset..offset + rows]).collect();
    let groups = rows.div_ceil(LANES);
    // Four tasks for every thread let a fast one take work from a slow one.
    let share = groups.div_ceil(4 * pool::threads());
    if let Some(x) = tiles::Activations::new(level, matrix, x, m) {
        let task_groups = share.min(TASK_GROUPS);
        let mut tasks = cut(columns, task_groups * LANES);
        return pool::for_each(&mut tasks, |task, out| x.multiply(level, matrix, task * task_groups, out));
    }
    let task_groups = match m {
        ..=WIDE => share.max(TASK_WEIGHTS.div_ceil(LANES * cols)),
        _ => share.min(TASK_GROUPS),
    };
    let mut tasks = cut(columns, task_groups * LANES);
    if matrix.format == Format::BF16 {
        let x = floats::Activations::new(level, matrix, x, m);
        return pool::for_each(&mut tasks, |task, out| x.multiply(level, matrix, task * task_groups, out));
    }
    let x = Activations::new(level, x, cols, m);
    pool::for_each(&mut tasks, |task, out| {
        Task { matrix, first: task * task_groups, x: &x, out }.run(level);
    });
}

/// All rows of `x` in panels, the widest first, `[panels, subs]` each.
struct Activations {
    subs: usize,
    wide: Vec<Columns<WIDE>>,
    narrow: Vec<Columns<NARROW>>,
    single: Vec<Columns<1>>,
}

impl Activations {
    fn new(level: Level, x: &[f32], cols: usize, m: usize) -> Self {
        let wide = match m % WIDE {
            _ if !level.many_registers() => 0,
            // A panel for few rows takes less than half of a wide one's time.
            ..=NARROW => m / WIDE * WIDE,
            _ => m,
        };
        let narrow = if (m - wide) % NARROW == 1 { m - 1 } else { m };
        Self {
            subs: cols / SUB,
            wide: quantize(level, &x[..wide * cols], cols),
            narrow: quantize(level, &x[wide * cols..narrow * cols], cols),
            single: quantize(level, &x[narrow * cols..], cols),
        }
    }
}

/// Some groups of a matrix, from the `first`.
struct Task<'a, 'b> {
    matrix: &'a Interleaved,
    first: usize,
    x: &'a Activations,
    /// A part of each row of the output.
    out: &'a mut [&'b mut [f32]],
}

impl Task<'_, '_> {
    fn run(self, level: Level) {
        with_block!(self.matrix.format, B => self.panels::<B>(level));
    }

    fn panels<B: Block>(mut self, level: Level) {
        let x = self.x;
        let mut row = 0;
        self.each::<B, WIDE>(level, &x.wide, &mut row);
        self.each::<B, NARROW>(level, &x.narrow, &mut row);
        self.each::<B, 1>(level, &x.single, &mut row);
    }

    /// The products with panels, the first of which begins with row `row`.
    fn each<B: Block, const N: usize>(&mut self, level: Level, panels: &[Columns<N>], row: &mut usize) {
        for panel in panels.chunks_exact(self.x.subs) {
            self.panel::<B, N>(level, panel, *row);
            *row += N;
        }
    }

    /// The products with one panel, whose first row is `first_row`.
    fn panel<B: Block, const N: usize>(&mut self, level: Level, panel: &[Columns<N>], first_row: usize) {
        let end = self.out.len().min(first_row + N);
        let (matrix, first, block) = (self.matrix, self.first, PhantomData::<B>);
        let from_memory = first_row == 0;
        level.run(Panel { matrix, first, panel, from_memory, out: &mut self.out[first_row..end], block });
    }
}

/// Some groups and one panel. Each format and width is a function of its own, which keeps the
/// compiler's work in bounds.
struct Panel<'a, 'b, B, const N: usize> {
    matrix: &'a Interleaved,
    first: usize,
    panel: &'a [Columns<N>],
    /// Whether nobody has read the groups yet.
    from_memory: bool,
    out: &'a mut [&'b mut [f32]],
    block: PhantomData<B>,
}

impl<B: Block, const N: usize> Kernel for Panel<'_, '_, B, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) {
        let rows = self.out.first().map_or(0, |out| out.len());
        for start in (0..rows).step_by(LANES) {
            let group = self.matrix.group(self.first + start / LANES);
            let sums = product::<S, B, N>(simd, group, self.panel, self.from_memory);
            store(self.out, start, &sums);
        }
    }
}

/// Writes the sums of sixteen rows from row `start`, or of as many as there are.
pub(super) fn store(out: &mut [&mut [f32]], start: usize, sums: &[Unit]) {
    for (out, sums) in out.iter_mut().zip(sums) {
        let out = &mut out[start..];
        match out.first_chunk_mut::<LANES>() {
            Some(out) => *out = *sums,
            None => out.copy_from_slice(&sums[..out.len()]),
        }
    }
}

/// The products of sixteen rows with `N` rows of activations.
#[inline(always)]
fn product<S: Dots, B: Block, const N: usize>(
    simd: S,
    group: &[Line],
    panel: &[Columns<N>],
    from_memory: bool,
) -> [Unit; N] {
    let mut sums = [simd.splat(0.0); N];
    let chunk_blocks = 2 / B::HALVES;
    let chunks = group.chunks(1 + chunk_blocks * B::WORDS).zip(panel.chunks(chunk_blocks * B::SUBS));
    for (chunk, x) in chunks {
        let [halves, words @ ..] = chunk else { break };
        if from_memory {
            simd.prefetch(halves);
        }
        let halves: &[[u16; LANES]; 2] = bytemuck::cast_ref(halves);
        let blocks = words.chunks_exact(B::WORDS).zip(halves.chunks_exact(B::HALVES));
        for ((words, halves), x) in blocks.zip(x.chunks_exact(B::SUBS)) {
            if from_memory {
                words.iter().for_each(|line| simd.prefetch(line));
            }
            B::add(simd, Stored { words, halves }, x, &mut sums);
        }
    }
    let mut out = [[0.0; LANES]; N];
    for (out, sum) in out.iter_mut().zip(sums) {
        simd.store(sum, out);
    }
    out
}
