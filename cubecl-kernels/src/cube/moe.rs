//! Mixture-of-experts layers: the choice of experts in one cube a row, products with the chosen.
//!
//! For a few rows the matrix-vector kernel reads the experts' ids as it starts, and so their rows
//! alone. For many, a counting sort lists the choices by expert once a layer, and each expert's are
//! multiplied tile by tile.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::dependent::{begin_next, wait_for_launches};
use super::linear::{Chosen, launch_chosen};
use super::matvec::Choice;
use super::norm::{cube_max, cube_sum};
use super::unpack::unpack1;
use super::{contiguous, dims, empty, gemm, grid, line, plane_size};
use crate::formats::Format;
use crate::ops::{Activation, MatrixSpec, MoeGatingSpec, MoeOps, MoeProduct, MoeScores, MoeSum, MoeTerms};

/// Units of the cubes that choose and sort.
const UNITS: u32 = 256;
/// Planes of a matrix-vector cube.
const PLANES: u32 = 4;
/// Score of an expert that takes no part.
const MASKED: f32 = -1.0e30;
/// Experts that are compared with one another first.
const CELL: u32 = 32;

impl MoeOps for CubeBackend {
    fn moe_gate(
        logits: CubeTensor,
        bias: CubeTensor,
        expert_scale: CubeTensor,
        spec: MoeGatingSpec,
        has: MoeTerms,
    ) -> (CubeTensor, CubeTensor) {
        let logits = contiguous(logits);
        let [m, _] = dims(&logits);
        let ids = empty(&logits, [m, spec.taken()], DType::I32);
        let weights = empty(&logits, [m, spec.taken()], DType::F32);
        gate::launch(
            &ids.client,
            CubeCount::Static(m as u32, 1, 1),
            line(UNITS),
            logits.into_buffer_arg(),
            contiguous(bias).into_buffer_arg(),
            contiguous(expert_scale).into_buffer_arg(),
            ids.clone().into_buffer_arg(),
            weights.clone().into_buffer_arg(),
            spec.scale,
            spec.experts as u32,
            spec.top_k as u32,
            spec.groups as u32,
            spec.top_groups as u32,
            spec.scores == MoeScores::Softmax,
            spec.normalize,
            spec.shared,
            has.bias,
            has.expert_scale,
        );
        (ids, weights)
    }

    fn moe_group(ids: CubeTensor, experts: usize) -> CubeTensor {
        let ids = contiguous(ids);
        let [m, top_k] = dims(&ids);
        let tile = gemm::expert_tile(m * top_k, experts);
        let out = empty(&ids, [experts + 1 + m * top_k + gemm::expert_tiles(m * top_k, experts)], DType::I32);
        group::launch(
            &out.client,
            CubeCount::Static(experts as u32, 1, 1),
            line(UNITS),
            ids.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            (m * top_k) as u32,
            experts as u32,
            tile as u32,
        );
        out
    }

    fn moe_linear_into(
        x: CubeTensor,
        words: CubeTensor,
        spec: MatrixSpec,
        norm_weight: CubeTensor,
        choices: CubeTensor,
        grouped: bool,
        product: MoeProduct,
        out: CubeTensor,
    ) -> CubeTensor {
        let MatrixSpec { format, rows, cols } = spec;
        let MoeProduct { experts, share, offset, norm_eps, activation, int8 } = product;
        let [count, stride] = dims(&out);
        let (x, choices) = (contiguous(x), contiguous(choices));
        if !grouped && spec.whole_vectors() {
            let (ids, weights) = (choices.clone(), choices);
            let norm = norm_eps.map(|eps| (contiguous(norm_weight), eps));
            let chosen =
                Chosen { choice: Choice::Each, ids, weights, experts, share, norm, residual: None, activation, int8 };
            launch_chosen(x, words, spec, &out, offset, chosen);
            return out;
        }
        if grouped {
            let grouped = gemm::Grouped { groups: choices, experts, share, activation };
            gemm::launch_grouped(x, words, spec, gemm::Output { out: &out, offset }, grouped);
            return out;
        }
        let rows = rows / experts;
        matvec_ragged::launch(
            &out.client,
            CubeCount::Static((rows as u32).div_ceil(PLANES), count as u32, 1),
            CubeDim::new_2d(plane_size(&x), PLANES),
            x.into_buffer_arg(),
            words.into_buffer_arg(),
            choices.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows as u32,
            share as u32,
            stride as u32,
            offset as u32,
            cols as u32,
            format,
        );
        out
    }

    fn moe_linear_sum(
        h: CubeTensor,
        words: CubeTensor,
        spec: MatrixSpec,
        ids: CubeTensor,
        weights: CubeTensor,
        residual: CubeTensor,
        sum: MoeSum,
    ) -> CubeTensor {
        let MoeSum { experts, adds, int8 } = sum;
        let MatrixSpec { format, rows, cols } = spec;
        let (h, ids, weights) = (contiguous(h), contiguous(ids), contiguous(weights));
        let [m, top_k] = dims(&ids);
        let rows = rows / experts;
        let out = empty(&h, [m, rows], DType::F32);
        if spec.whole_vectors() {
            let choice = Choice::Sum { top_k: top_k as u32 };
            let activation = Activation::None;
            let residual = adds.then(|| contiguous(residual));
            let chosen = Chosen { choice, ids, weights, experts, share: 1, norm: None, residual, activation, int8 };
            launch_chosen(h, words, spec, &out, 0, chosen);
            return out;
        }
        sum_ragged::launch(
            &out.client,
            CubeCount::Static((rows as u32).div_ceil(PLANES), m as u32, 1),
            CubeDim::new_2d(plane_size(&h), PLANES),
            h.into_buffer_arg(),
            words.into_buffer_arg(),
            ids.into_buffer_arg(),
            weights.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows as u32,
            top_k as u32,
            cols as u32,
            format,
        );
        out
    }

    fn moe_combine(y: CubeTensor, weights: CubeTensor, residual: CubeTensor, adds: bool) -> CubeTensor {
        let (y, weights, residual) = (contiguous(y), contiguous(weights), contiguous(residual));
        let ([_, rows], [m, top_k]) = (dims(&y), dims(&weights));
        let out = empty(&y, [m, rows], DType::F32);
        let vector = if rows.is_multiple_of(4) { 4 } else { 1 };
        combine::launch(
            &out.client,
            grid((m * rows / vector).div_ceil(UNITS as usize)),
            line(UNITS),
            vector,
            y.into_buffer_arg(),
            weights.into_buffer_arg(),
            residual.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            (rows / vector) as u32,
            (m * rows / vector) as u32,
            top_k as u32,
            adds,
        );
        out
    }
}

/// The choice of one row, a cube. An expert's place is the number of experts that beat it: in its cell, and if that
/// leaves it a chance, among the best of all cells.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn gate(
    logits: &[f32],
    bias: &[f32],
    expert_scale: &[f32],
    ids: &mut [i32],
    weights: &mut [f32],
    scale: f32,
    #[comptime] experts: u32,
    #[comptime] top_k: u32,
    #[comptime] groups: u32,
    #[comptime] top_groups: u32,
    #[comptime] softmax: bool,
    #[comptime] normalize: bool,
    #[comptime] shared: bool,
    #[comptime] has_bias: bool,
    #[comptime] has_scale: bool,
) {
    begin_next();
    wait_for_launches();
    let mut scores = Shared::<[f32]>::new_slice(comptime!(experts as usize));
    let mut choice = Shared::<[f32]>::new_slice(comptime!(experts as usize));
    let mut chosen = Shared::<[u32]>::new_slice(comptime!(top_k as usize));
    let row = CUBE_POS_X;
    let first = row * comptime!(experts + shared as u32);
    let place = row * comptime!(top_k + shared as u32);
    // Of each cell of experts the best take part in the last comparison.
    let kept = comptime!(top_k.min(CELL));
    let finalists = comptime!(experts.div_ceil(CELL) * kept);
    let mut final_scores = Shared::<[f32]>::new_slice(comptime!(finalists as usize));
    let mut final_ids = Shared::<[u32]>::new_slice(comptime!(finalists as usize));
    let mut largest = MASKED.runtime();
    let mut e = UNIT_POS_X;
    while e < experts {
        let logit = logits[(first + e) as usize];
        scores[e as usize] = logit;
        largest = max(largest, logit);
        e += UNITS;
    }
    if comptime!(shared) {
        if UNIT_POS_X == 0 {
            ids[(place + top_k) as usize] = i32::cast_from(experts);
            let logit = logits[(first + experts) as usize];
            weights[(place + top_k) as usize] = 1.0f32 / (1.0f32 + f32::exp(-logit));
        }
    }
    // Logits that are not numbers leave places empty: they hold some expert all the same.
    let mut j = UNIT_POS_X;
    while j < top_k {
        chosen[j as usize] = j;
        j += UNITS;
    }
    let mut j = UNIT_POS_X;
    while j < finalists {
        final_scores[j as usize] = MASKED.runtime();
        final_ids[j as usize] = min(j, comptime!(experts - 1));
        j += UNITS;
    }
    sync_cube();
    if comptime!(softmax) {
        let largest = cube_max(largest, UNITS);
        let mut sum = 0.0f32;
        let mut e = UNIT_POS_X;
        while e < experts {
            let exponential = f32::exp(scores[e as usize] - largest);
            scores[e as usize] = exponential;
            sum += exponential;
            e += UNITS;
        }
        let sum = cube_sum(sum, UNITS);
        let mut e = UNIT_POS_X;
        while e < experts {
            scores[e as usize] /= sum;
            e += UNITS;
        }
    } else {
        let mut e = UNIT_POS_X;
        while e < experts {
            scores[e as usize] = 1.0f32 / (1.0f32 + f32::exp(-scores[e as usize]));
            e += UNITS;
        }
    }
    let mut e = UNIT_POS_X;
    while e < experts {
        let mut score = scores[e as usize];
        if comptime!(has_bias) {
            score += bias[e as usize];
        }
        choice[e as usize] = score;
        e += UNITS;
    }
    sync_cube();
    if comptime!(top_groups < groups) {
        let size = comptime!(experts / groups);
        let mut group_scores = Shared::<[f32]>::new_slice(comptime!(groups as usize));
        let mut g = UNIT_POS_X;
        while g < groups {
            let mut first = MASKED.runtime();
            let mut second = MASKED.runtime();
            for i in 0..size {
                let c = choice[(g * size + i) as usize];
                second = max(second, min(c, first));
                first = max(first, c);
            }
            group_scores[g as usize] = if comptime!(size > 1) { first + second } else { first };
            g += UNITS;
        }
        sync_cube();
        let mut e = UNIT_POS_X;
        while e < experts {
            let own = e / size;
            let mine = group_scores[own as usize];
            let mut place = 0u32;
            for g in 0..groups {
                let theirs = group_scores[g as usize];
                if theirs > mine || (theirs == mine && g < own) {
                    place += 1;
                }
            }
            if place >= top_groups {
                choice[e as usize] = MASKED;
            }
            e += UNITS;
        }
        sync_cube();
    }
    let mut e = UNIT_POS_X;
    while e < experts {
        let mine = choice[e as usize];
        let cell = e / CELL;
        let mut beaten = 0u32;
        #[unroll]
        for i in 0..CELL {
            let other = min(cell * CELL + i, comptime!(experts - 1));
            let theirs = choice[other as usize];
            // Past the last expert stands the last again.
            let counts = cell * CELL + i < experts;
            beaten += select(counts && (theirs > mine || (theirs == mine && other < e)), 1u32, 0u32);
        }
        if beaten < kept {
            final_scores[(cell * kept + beaten) as usize] = mine;
            final_ids[(cell * kept + beaten) as usize] = e;
        }
        e += UNITS;
    }
    sync_cube();
    let mut f = UNIT_POS_X;
    while f < finalists {
        let mine = final_scores[f as usize];
        let id = final_ids[f as usize];
        let mut beaten = 0u32;
        #[unroll(comptime!(finalists <= 64))]
        for other in 0..finalists {
            let theirs = final_scores[other as usize];
            let other = final_ids[other as usize];
            beaten += select(theirs > mine || (theirs == mine && other < id), 1u32, 0u32);
        }
        if beaten < top_k {
            chosen[beaten as usize] = id;
        }
        f += UNITS;
    }
    sync_cube();
    let mut factor = scale;
    if comptime!(normalize) {
        let mut sum = 0.0f32;
        for j in 0..top_k {
            sum += scores[chosen[j as usize] as usize];
        }
        factor = scale / (sum + 1e-20f32);
    }
    let mut j = UNIT_POS_X;
    while j < top_k {
        let e = chosen[j as usize];
        let mut weight = scores[e as usize] * factor;
        if comptime!(has_scale) {
            weight *= expert_scale[e as usize];
        }
        ids[(place + j) as usize] = i32::cast_from(e);
        weights[(place + j) as usize] = weight;
        j += UNITS;
    }
}

/// A counting sort, a cube an expert: each unit counts in its own stretch of the choices, so that
/// the order is that of the rows. Behind the choices stands whose each tile of `tile` choices is.
///
/// An expert whose choices start at `s` has the tiles from `s / tile + expert` on up to those of the next:
/// never fewer than it fills and at most one more, and every expert knows its own without the others'.
#[cube(launch)]
fn group(ids: &[i32], out: &mut [i32], count: u32, #[comptime] experts: u32, #[comptime] tile: u32) {
    let mut counts = Shared::<[u32]>::new_slice(comptime!(UNITS as usize));
    let mut lower_counts = Shared::<[u32]>::new_slice(comptime!(UNITS as usize));
    let unit = UNIT_POS_X;
    let expert = i32::cast_from(CUBE_POS_X);
    let stretch = count.div_ceil(UNITS);
    let begin = unit * stretch;
    let end = select(begin + stretch < count, begin + stretch, count);
    let mut own = 0u32;
    let mut lower = 0u32;
    let mut i = begin;
    while i < end {
        let id = ids[i as usize];
        if id == expert {
            own += 1;
        }
        if id < expert {
            lower += 1;
        }
        i += 1;
    }
    counts[unit as usize] = own;
    lower_counts[unit as usize] = lower;
    sync_cube();
    let mut start = 0u32;
    let mut place = 0u32;
    let mut chosen = 0u32;
    for u in 0..UNITS {
        start += lower_counts[u as usize];
        if u < unit {
            place += counts[u as usize];
        }
        chosen += counts[u as usize];
    }
    if unit == 0 {
        out[CUBE_POS_X as usize] = i32::cast_from(start);
        if CUBE_POS_X == 0 {
            out[experts as usize] = i32::cast_from(count);
        }
    }
    let mut at = experts + 1 + start + place;
    let mut i = begin;
    while i < end {
        if ids[i as usize] == expert {
            out[at as usize] = i32::cast_from(i);
            at += 1;
        }
        i += 1;
    }
    let mut t = start / tile + CUBE_POS_X + unit;
    while t <= (start + chosen) / tile + CUBE_POS_X {
        out[(experts + 1 + count + t) as usize] = expert;
        t += UNITS;
    }
}

/// A unit's part of `w[row] · x[x_row]`, an element a step.
#[cube]
fn part_of_dot(x: &[f32], w: &[u32], row: u32, x_row: u32, #[comptime] cols: u32, #[comptime] format: Format) -> f32 {
    let mut sum = 0.0f32;
    let mut k = UNIT_POS_X;
    while k < cols {
        sum += unpack1(w, row * cols + k, format) * x[(x_row * cols + k) as usize];
        k += CUBE_DIM_X;
    }
    sum
}

/// `out[c, offset + row] = W[ids[c]][row] · x[c / share]` for float rows that vectors do not divide, a
/// plane an output.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn matvec_ragged(
    x: &[f32],
    w: &[u32],
    ids: &[i32],
    out: &mut [f32],
    rows: u32,
    share: u32,
    stride: u32,
    offset: u32,
    #[comptime] cols: u32,
    #[comptime] format: Format,
) {
    let choice = CUBE_POS_Y;
    let row = CUBE_POS_X * CUBE_DIM_Y + UNIT_POS_Y;
    if row < rows {
        let w_row = u32::cast_from(ids[choice as usize]) * rows + row;
        let total = plane_sum(part_of_dot(x, w, w_row, choice / share, cols, format));
        if UNIT_POS_X == 0 {
            out[(choice * stride + offset + row) as usize] = total;
        }
    }
}

/// `out[i, row] = Σ_j weights[i, j] W[ids[i, j]][row] · h[i top_k + j]` for such rows.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn sum_ragged(
    h: &[f32],
    w: &[u32],
    ids: &[i32],
    weights: &[f32],
    out: &mut [f32],
    rows: u32,
    top_k: u32,
    #[comptime] cols: u32,
    #[comptime] format: Format,
) {
    let token = CUBE_POS_Y;
    let row = CUBE_POS_X * CUBE_DIM_Y + UNIT_POS_Y;
    if row < rows {
        let mut sum = 0.0f32;
        for j in 0..top_k {
            let choice = token * top_k + j;
            let w_row = u32::cast_from(ids[choice as usize]) * rows + row;
            sum += weights[choice as usize] * part_of_dot(h, w, w_row, choice, cols, format);
        }
        let total = plane_sum(sum);
        if UNIT_POS_X == 0 {
            out[(token * rows + row) as usize] = total;
        }
    }
}

/// `out[i] = Σ_j weights[i, j] y[i top_k + j]`, plus the residual if it `adds`; `rows` and `total` count vectors.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn combine<N: Size>(
    y: &[Vector<f32, N>],
    weights: &[f32],
    residual: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    rows: u32,
    total: u32,
    #[comptime] top_k: u32,
    #[comptime] adds: bool,
) {
    let at = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * UNITS + UNIT_POS_X;
    if at < total {
        let (token, row) = (at / rows, at % rows);
        let mut sum = Vector::<f32, N>::new(0.0f32);
        if comptime!(adds) {
            sum = residual[at as usize];
        }
        #[unroll]
        for j in 0..top_k {
            let choice = token * top_k + j;
            sum += Vector::new(weights[choice as usize]) * y[(choice * rows + row) as usize];
        }
        out[at as usize] = sum;
    }
}
