//! Matrix-vector products with stored weights, one to eight columns.
//!
//! Decoding reads every weight once per token, so these kernels are all about bytes in flight: a
//! unit loads 16 bytes at a time from several rows, several planes share a row, and what the steps
//! before and after would do in launches of their own (norm, gate, residual) rides along. Products
//! with the experts that a router chose differ in where the rows lie.

use cubecl::prelude::*;

use super::activation::relu2;
use super::dependent::{begin_next, wait_for_launches};
use super::matvec_int8::row_sums_int8;
use super::runs::{
    CHUNK, RUN, chunks_per_block, code_float, code_offset, has_min, load_run, run_codes, run_scale, run_start,
    run_words, zero,
};
use super::unpack::{Planes, half_to_f32, unpack1};
use crate::formats::Format;
use crate::ops::Activation;

/// Whose rows are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    /// The one matrix's.
    All,
    /// Those of one expert for each choice.
    Each,
    /// Those of all experts of a token, summed with their weights.
    Sum {
        /// Experts of a token.
        top_k: u32,
    },
}

/// How a product is laid out over planes, and what rides along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MatvecPlan {
    pub(super) format: Format,
    /// Columns of x and of the output.
    pub(super) m: u32,
    /// 16-byte vectors of a row, for packed formats chunks.
    pub(super) chunks: u32,
    /// Planes that share a row.
    pub(super) split: u32,
    /// Rows that a plane computes at once.
    pub(super) rows: u32,
    /// Planes of a cube.
    pub(super) planes: u32,
    /// Units of a plane.
    pub(super) plane: u32,
    /// The device has float16.
    pub(super) native_half: bool,
    /// Norm x first.
    pub(super) norm: bool,
    /// What follows the product; rows `i` and `i + rows / 2` make a gated output.
    pub(super) activation: Activation,
    /// Add to the output.
    pub(super) residual: bool,
    /// Other than [`Choice::All`] takes one column.
    pub(super) choice: Choice,
    /// Round x to bytes; of packed formats.
    pub(super) int8: bool,
    /// Steps whose x a cube holds in shared memory; of products in bytes.
    pub(super) held: u32,
}

impl MatvecPlan {
    /// Elements that follow each other in x.
    pub(super) fn run(self) -> u32 {
        match self.format {
            Format::F32 => 4,
            Format::F16 | Format::BF16 => 8,
            _ => RUN,
        }
    }

    /// Runs of a chunk.
    pub(super) fn runs(self) -> u32 {
        if self.format.is_float() { 1 } else { CHUNK / RUN }
    }

    /// Whether an output takes two rows.
    pub(super) fn gated(self) -> bool {
        self.activation == Activation::SwiGlu
    }

    /// Outputs of a plane per column.
    pub(super) fn outputs(self) -> u32 {
        if self.gated() { self.rows / 2 } else { self.rows }
    }

    /// Outputs of a cube per column.
    pub(super) fn cube_outputs(self) -> u32 {
        self.planes / self.split * self.outputs()
    }

    /// Chunks that make an output.
    pub(super) fn all_chunks(self) -> u32 {
        match self.choice {
            Choice::All | Choice::Each => self.chunks,
            Choice::Sum { top_k } => self.chunks * top_k,
        }
    }

    /// Elements of a row.
    fn cols(self) -> u32 {
        self.chunks * self.runs() * self.run()
    }

    /// Chunks of a step of the planes that share a row.
    pub(super) fn step_chunks(self) -> u32 {
        self.split * self.plane
    }

    /// Steps that a row takes.
    pub(super) fn steps(self) -> u32 {
        self.all_chunks().div_ceil(self.step_chunks())
    }

    /// Whether every unit has a chunk at every step.
    pub(super) fn whole(self) -> bool {
        self.all_chunks() % self.step_chunks() == 0
    }

    /// Units of a cube.
    pub(super) fn units(self) -> u32 {
        self.planes * self.plane
    }

    /// Outputs of a unit, where it has any.
    fn passes(self) -> u32 {
        (self.cube_outputs() * self.m).div_ceil(self.units())
    }

    /// Whether the first weights are asked for before the launches before are over: where the rows are known, and
    /// weights are not unpacked as they come.
    pub(super) fn asks_ahead(self) -> bool {
        self.choice == Choice::All && (self.int8 || self.format.is_float())
    }

    /// Vectors of weights that a unit loads for a step, of formats of floats.
    fn float_rows(self) -> u32 {
        if self.format.is_float() { self.rows } else { 0 }
    }

    /// Numbers that a plane leaves for the others: sums of its rows, and of squares.
    pub(super) fn parts(self) -> u32 {
        (self.rows + 1) * self.m
    }

    /// Planes that each sum a part of the squares.
    fn square_planes(self) -> u32 {
        if self.int8 { self.planes } else { self.split }
    }

    /// Vectors of a row of x.
    pub(super) fn x_row(self) -> u32 {
        self.cols() / 4
    }
}

/// Where a unit's next chunk lies.
#[derive(CubeType)]
pub(super) struct Place {
    /// The plane's first output.
    first: u32,
    outputs: u32,
    /// First row of the expert.
    base: u32,
    /// Where the expert's row of x begins, in vectors.
    x_base: u32,
    /// What the expert's product counts in a sum.
    factor: f32,
    /// The chunk of its row.
    pub(super) chunk: u32,
}

#[cube]
impl Place {
    /// The place of `chunk` of all chunks that make an output.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        ids: &[i32],
        weights: &[f32],
        first: u32,
        outputs: u32,
        share: u32,
        chunk: u32,
        #[comptime] plan: MatvecPlan,
    ) -> Place {
        let mut base = 0u32;
        let mut x_base = 0u32;
        let mut factor = 1.0f32;
        let mut chunk = chunk;
        if comptime!(matches!(plan.choice, Choice::Each)) {
            base = u32::cast_from(ids[CUBE_POS_Z as usize]) * outputs * comptime!(plan.rows / plan.outputs());
            x_base = CUBE_POS_Z / share * plan.x_row();
        }
        if comptime!(matches!(plan.choice, Choice::Sum { .. })) {
            let choice = CUBE_POS_Z * comptime!(plan.all_chunks() / plan.chunks) + chunk / plan.chunks;
            base = u32::cast_from(ids[choice as usize]) * outputs;
            x_base = choice * plan.x_row();
            factor = weights[choice as usize];
            chunk %= plan.chunks;
        }
        Place { first, outputs, base, x_base, factor, chunk }
    }

    /// Row `r` of the plane's; rows past the last are computed again and not stored.
    fn row(&self, #[comptime] r: u32, #[comptime] plan: MatvecPlan) -> u32 {
        let o = self.first + comptime!(r % plan.outputs());
        self.base + select(o < self.outputs, o, self.outputs - 1) + comptime!(r / plan.outputs()) * self.outputs
    }

    /// The block of row `r` that the chunk is in.
    pub(super) fn block(&self, #[comptime] r: u32, #[comptime] plan: MatvecPlan) -> u32 {
        let per_block = comptime!(chunks_per_block(plan.format));
        self.row(r, plan) * comptime!(plan.chunks / per_block) + self.chunk / per_block
    }
}

/// `out[c, offset + row] = Σ w[row, k] x[c, k]`; `outputs` counts the rows, or pairs of rows, and
/// `exponent` is the format's [`code_exponent`](super::runs::code_exponent).
///
/// With a choice, `outputs` counts those of an expert, `ids` holds the experts, `share` choices in a
/// row read one row of x, and `weights` holds the factors of a sum: for each choice or token, `c`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn matvec<N: Size>(
    x: &[Vector<f32, N>],
    vectors: &[Vector<u32, N>],
    words: &[u32],
    norm_weight: &[Vector<f32, N>],
    residual: &[f32],
    out: &mut [f32],
    ids: &[i32],
    weights: &[f32],
    planes: Planes,
    exponent: u32,
    eps: f32,
    outputs: u32,
    stride: u32,
    offset: u32,
    share: u32,
    #[comptime] plan: MatvecPlan,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    product(
        x,
        vectors,
        words,
        norm_weight,
        residual,
        out,
        ids,
        weights,
        &planes,
        exponent,
        eps,
        outputs,
        stride,
        offset,
        share,
        cube,
        plan,
    );
}

/// Two products with the same x in one launch, their outputs side by side, neither activated nor with a residual:
/// the first of the weights has the first `cubes` cubes. What is not read stands in as `nothing` and `no_ids`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn matvec_pair<N: Size>(
    x: &[Vector<f32, N>],
    vectors: &[Vector<u32, N>],
    words: &[u32],
    second_vectors: &[Vector<u32, N>],
    second_words: &[u32],
    norm_weight: &[Vector<f32, N>],
    nothing: &[f32],
    out: &mut [f32],
    no_ids: &[i32],
    planes: Planes,
    second_planes: Planes,
    exponent: u32,
    second_exponent: u32,
    eps: f32,
    outputs: u32,
    second_outputs: u32,
    stride: u32,
    offset: u32,
    cubes: u32,
    #[comptime] plan: MatvecPlan,
    #[comptime] second: MatvecPlan,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    if cube < cubes {
        product(
            x,
            vectors,
            words,
            norm_weight,
            nothing,
            out,
            no_ids,
            nothing,
            &planes,
            exponent,
            eps,
            outputs,
            stride,
            offset,
            1u32,
            cube,
            plan,
        );
    } else {
        product(
            x,
            second_vectors,
            second_words,
            norm_weight,
            nothing,
            out,
            no_ids,
            nothing,
            &second_planes,
            second_exponent,
            eps,
            second_outputs,
            stride,
            offset + outputs,
            1u32,
            cube - cubes,
            second,
        );
    }
}

/// The rows of cube `cube` of [`matvec`].
#[cube]
#[allow(clippy::too_many_arguments)]
fn product<N: Size>(
    x: &[Vector<f32, N>],
    vectors: &[Vector<u32, N>],
    words: &[u32],
    norm_weight: &[Vector<f32, N>],
    residual: &[f32],
    out: &mut [f32],
    ids: &[i32],
    weights: &[f32],
    planes: &Planes,
    exponent: u32,
    eps: f32,
    outputs: u32,
    stride: u32,
    offset: u32,
    share: u32,
    cube: u32,
    #[comptime] plan: MatvecPlan,
) {
    let (m, rows) = comptime!((plan.m, plan.rows));
    let width = comptime!(plan.rows * plan.m);
    let mut parts = Shared::<[f32]>::new_slice(comptime!((plan.planes * plan.parts()) as usize));
    let first = cube * comptime!(plan.cube_outputs()) + (UNIT_POS_Y / plan.split) * comptime!(plan.outputs());
    let unit = UNIT_POS_Y * plan.plane + UNIT_POS_X;

    begin_next();
    if comptime!(!plan.asks_ahead()) {
        wait_for_launches();
    }
    let mut added = Array::<f32>::new(comptime!(plan.passes() as usize));
    let mut sums = Array::<f32>::new(comptime!(width as usize));
    #[unroll]
    for i in 0..width {
        sums[i as usize] = 0.0f32;
    }
    let at = UNIT_POS_Y * comptime!(plan.parts());
    if comptime!(plan.int8) {
        row_sums_int8(
            x,
            vectors,
            words,
            norm_weight,
            residual,
            ids,
            weights,
            planes,
            first,
            outputs,
            stride,
            offset,
            share,
            cube,
            &mut sums,
            &mut added,
            &mut parts,
            plan,
        );
    } else {
        let own = UNIT_POS_Y % plan.split * plan.plane + UNIT_POS_X;
        let mut floats = Array::<Vector<u32, N>>::new(comptime!(plan.float_rows() as usize));
        if comptime!(plan.asks_ahead()) {
            let chunk = min(own, comptime!(plan.all_chunks() - 1));
            load_floats(vectors, &Place::new(ids, weights, first, outputs, share, chunk, plan), &mut floats, plan);
            wait_for_launches();
        }
        load_added(residual, &mut added, outputs, stride, offset, cube, plan);
        let mut squares = Array::<f32>::new(comptime!(m as usize));
        #[unroll]
        for c in 0..m {
            squares[c as usize] = 0.0f32;
        }
        let steps = comptime!(plan.steps());
        #[unroll(comptime!(steps * plan.rows <= 16))]
        for step in 0..steps {
            let chunk = step * comptime!(plan.step_chunks()) + own;
            let inside = if comptime!(plan.whole()) { true.runtime() } else { chunk < comptime!(plan.all_chunks()) };
            if inside {
                let place = Place::new(ids, weights, first, outputs, share, chunk, plan);
                if comptime!(!plan.asks_ahead()) || step > 0 {
                    load_floats(vectors, &place, &mut floats, plan);
                }
                step_sums(
                    x,
                    vectors,
                    words,
                    &floats,
                    norm_weight,
                    planes,
                    exponent,
                    &place,
                    &mut sums,
                    &mut squares,
                    plan,
                );
            }
        }
        if comptime!(plan.norm) {
            plane_sums(&mut squares, &mut parts, at + width, m, plan.plane);
        }
    }
    plane_sums(&mut sums, &mut parts, at, width, plan.plane);
    sync_cube();

    // The planes of a row added up, then what rides along.
    let per_column = comptime!(plan.cube_outputs());
    #[unroll]
    for pass in 0..comptime!(plan.passes()) {
        let i = unit + comptime!(pass * plan.units());
        let c = i / per_column;
        let o = i % per_column;
        let group = (o / comptime!(plan.outputs())) * plan.split;
        let r = o % comptime!(plan.outputs());
        let row = cube * per_column + o;
        if i < comptime!(per_column * m) && row < outputs {
            let mut total = 0.0f32;
            let mut second = 0.0f32;
            #[unroll]
            for j in 0..plan.split {
                let base = (group + j) * comptime!(plan.parts());
                total += parts[(base + r * m + c) as usize];
                if comptime!(plan.gated()) {
                    second += parts[(base + (r + rows / 2) * m + c) as usize];
                }
            }
            if comptime!(plan.norm) {
                let mut norm = 0.0f32;
                #[unroll]
                for j in 0..comptime!(plan.square_planes()) {
                    norm += parts[(j * comptime!(plan.parts()) + width + c) as usize];
                }
                let cols = comptime!(plan.cols() as f32);
                let scale = 1.0f32 / f32::sqrt(norm / cols + eps);
                total *= scale;
                second *= scale;
            }
            if comptime!(plan.gated()) {
                total = total / (1.0f32 + f32::exp(-total)) * second;
            }
            if comptime!(plan.activation == Activation::Relu2) {
                total = relu2(total);
            }
            out[place_of(c, row, stride, offset, plan) as usize] = total + added[pass as usize];
        }
    }
}

/// Asks for what is added to the outputs, one a unit or several, before anything is waited for.
#[cube]
pub(super) fn load_added(
    residual: &[f32],
    added: &mut Array<f32>,
    outputs: u32,
    stride: u32,
    offset: u32,
    cube: u32,
    #[comptime] plan: MatvecPlan,
) {
    let per_column = comptime!(plan.cube_outputs());
    let unit = UNIT_POS_Y * plan.plane + UNIT_POS_X;
    #[unroll]
    for pass in 0..comptime!(plan.passes()) {
        added[pass as usize] = 0.0f32;
        if comptime!(plan.residual) {
            let i = unit + comptime!(pass * plan.units());
            let row = cube * per_column + i % per_column;
            if i < comptime!(per_column * plan.m) && row < outputs {
                added[pass as usize] = residual[place_of(i / per_column, row, stride, offset, plan) as usize];
            }
        }
    }
}

/// Where an output lies.
#[cube]
fn place_of(c: u32, row: u32, stride: u32, offset: u32, #[comptime] plan: MatvecPlan) -> u32 {
    let column = if comptime!(matches!(plan.choice, Choice::All)) { c } else { CUBE_POS_Z };
    column * stride + offset + row
}

/// Sums of `count` values over the plane, written side by side from `at` on.
///
/// Values are halved as lanes are: each lane gives away the half that its neighbour keeps, so that
/// 32 sums take 31 exchanges and not 160.
#[cube]
pub(super) fn plane_sums(
    values: &mut Array<f32>,
    out: &mut Shared<[f32]>,
    at: u32,
    #[comptime] count: u32,
    #[comptime] plane: u32,
) {
    let halvings = comptime!(if count.is_power_of_two() { count.min(plane).ilog2() } else { 0 });
    let mut index = 0u32;
    #[unroll]
    for stage in 0..halvings {
        let kept = comptime!(count >> (stage + 1));
        let upper = (UNIT_POS_X >> stage) & 1 == 1;
        #[unroll]
        for i in 0..kept {
            let (low, high) = (values[i as usize], values[comptime!((i + kept) as usize)]);
            let given = plane_shuffle_xor(select(upper, low, high), comptime!(1u32 << stage));
            values[i as usize] = select(upper, high, low) + given;
        }
        index += select(upper, kept, 0u32);
    }
    let left = comptime!(count >> halvings);
    #[unroll]
    for stage in halvings..comptime!(plane.ilog2()) {
        #[unroll]
        for i in 0..left {
            let v = values[i as usize];
            values[i as usize] = v + plane_shuffle_xor(v, comptime!(1u32 << stage));
        }
    }
    if UNIT_POS_X < comptime!(1u32 << halvings) {
        #[unroll]
        for i in 0..left {
            out[(at + index + i) as usize] = values[i as usize];
        }
    }
}

/// Asks for the weights of a step, of formats of floats.
#[cube]
fn load_floats<N: Size>(
    vectors: &[Vector<u32, N>],
    place: &Place,
    floats: &mut Array<Vector<u32, N>>,
    #[comptime] plan: MatvecPlan,
) {
    #[unroll]
    for r in 0..comptime!(plan.float_rows()) {
        floats[r as usize] = vectors[(place.row(r, plan) * plan.chunks + place.chunk) as usize];
    }
}

/// Adds chunk `chunk` of the plane's rows to the sums, `[rows, m]`; `floats` is what [`load_floats`] asked for.
#[cube]
#[allow(clippy::too_many_arguments)]
fn step_sums<N: Size>(
    x: &[Vector<f32, N>],
    vectors: &[Vector<u32, N>],
    words: &[u32],
    floats: &Array<Vector<u32, N>>,
    norm_weight: &[Vector<f32, N>],
    planes: &Planes,
    exponent: u32,
    place: &Place,
    sums: &mut Array<f32>,
    squares: &mut Array<f32>,
    #[comptime] plan: MatvecPlan,
) {
    let m = comptime!(plan.m);
    let run = comptime!(plan.run());
    let x_row = comptime!(plan.x_row());
    let chunk = place.chunk;
    #[unroll]
    for half in 0..comptime!(plan.runs()) {
        // Weights of all rows first, so that their loads are in flight together.
        let mut w = Array::<f32>::new(comptime!((plan.rows * plan.run()) as usize));
        let mut scales = Array::<f32>::new(comptime!(plan.rows as usize));
        let mut mins = Array::<f32>::new(comptime!(plan.rows as usize));
        #[unroll]
        for r in 0..comptime!(plan.rows) {
            if comptime!(plan.format.is_float()) {
                float_run(floats[r as usize], &mut w, comptime!(r * plan.run()), plan.format, plan.native_half);
            } else {
                let (block, within) = (place.block(r, plan), chunk % comptime!(chunks_per_block(plan.format)));
                let mut raw = Array::<u32>::new(comptime!(run_words(plan.format) as usize));
                load_run(vectors, words, planes, block, within, half, &mut raw, 0u32, plan.format);
                let mut codes = Array::<u32>::new(4usize);
                run_codes(&raw, within, half, &mut codes, 0u32, plan.format);
                #[unroll]
                for i in 0..4u32 {
                    let word = codes[i as usize];
                    #[unroll]
                    for j in 0..4u32 {
                        w[comptime!((r * RUN + i * 4 + j) as usize)] = code_float(word, exponent, j, plan.format);
                    }
                }
                let (scale, min) = run_scale(&raw, block, within, half, 0u32, plan.format, plan.native_half);
                scales[r as usize] = scale;
                mins[r as usize] = min;
            }
        }
        let start = if comptime!(plan.format.is_float()) {
            chunk * comptime!(plan.run() / 4)
        } else {
            let per_block = comptime!(chunks_per_block(plan.format));
            (chunk / per_block) * comptime!(plan.format.block_len() as u32 / 4)
                + run_start(chunk % per_block, half, plan.format) / 4
        };
        #[unroll]
        for c in 0..m {
            let mut values = Array::<f32>::new(comptime!(plan.run() as usize));
            let mut total = 0.0f32;
            #[unroll]
            for i in 0..comptime!(plan.run() / 4) {
                let mut v = x[(place.x_base + c * x_row + start + i) as usize];
                if comptime!(matches!(plan.choice, Choice::Sum { .. })) {
                    v *= Vector::new(place.factor);
                }
                if comptime!(plan.norm) {
                    #[unroll]
                    for j in 0..4usize {
                        squares[c as usize] += v.extract(j) * v.extract(j);
                    }
                    v *= norm_weight[(start + i) as usize];
                }
                #[unroll]
                for j in 0..4usize {
                    values[comptime!(i as usize * 4 + j)] = v.extract(j);
                    total += v.extract(j);
                }
            }
            #[unroll]
            for r in 0..comptime!(plan.rows) {
                let at = comptime!((r * plan.m + c) as usize);
                if comptime!(plan.format.is_float()) {
                    let mut sum = sums[at];
                    #[unroll]
                    for k in 0..run {
                        sum += w[comptime!((r * plan.run() + k) as usize)] * values[k as usize];
                    }
                    sums[at] = sum;
                } else {
                    let mut dot = 0.0f32;
                    #[unroll]
                    for k in 0..run {
                        dot += w[comptime!((r * RUN + k) as usize)] * values[k as usize];
                    }
                    let shift = comptime!(code_offset(plan.format) + zero(plan.format) as f32);
                    let mut sum = sums[at] + scales[r as usize] * (dot - shift * total);
                    if comptime!(has_min(plan.format)) {
                        sum -= mins[r as usize] * total;
                    }
                    sums[at] = sum;
                }
            }
        }
    }
}

/// The elements of a vector of floats.
#[cube]
fn float_run<N: Size>(
    packed: Vector<u32, N>,
    out: &mut Array<f32>,
    #[comptime] at: u32,
    #[comptime] format: Format,
    #[comptime] native: bool,
) {
    #[unroll]
    for j in 0..4u32 {
        let word = packed.extract(comptime!(j as usize));
        if comptime!(matches!(format, Format::F32)) {
            out[comptime!((at + j) as usize)] = f32::reinterpret(word);
        } else if comptime!(matches!(format, Format::BF16)) {
            out[comptime!((at + 2 * j) as usize)] = f32::reinterpret(word << 16);
            out[comptime!((at + 2 * j + 1) as usize)] = f32::reinterpret(word & 0xffff_0000);
        } else {
            out[comptime!((at + 2 * j) as usize)] = half_to_f32(word, native);
            out[comptime!((at + 2 * j + 1) as usize)] = half_to_f32(word >> 16, native);
        }
    }
}

/// The product for float rows that vectors do not divide, an element a step.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn matvec_ragged(
    x: &[f32],
    w: &[u32],
    out: &mut [f32],
    rows: u32,
    cols: u32,
    stride: u32,
    offset: u32,
    #[comptime] m: u32,
    #[comptime] format: Format,
) {
    let cube = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let row = cube * CUBE_DIM_Y + UNIT_POS_Y;
    if row < rows {
        #[unroll]
        for c in 0..m {
            let mut sum = 0.0f32;
            let mut k = UNIT_POS_X;
            while k < cols {
                sum += unpack1(w, row * cols + k, format) * x[(c * cols + k) as usize];
                k += CUBE_DIM_X;
            }
            let total = plane_sum(sum);
            if UNIT_POS_X == 0 {
                out[(c * stride + offset + row) as usize] = total;
            }
        }
    }
}
