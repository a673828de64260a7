//! Mixture-of-experts layers.

use rayon::prelude::*;

use super::linear::{Matrix, products};
use super::simd::Level;
use crate::ops::{MatrixSpec, MoeGatingSpec, MoeProduct, MoeScores};

/// Chooses the experts of each row: ids and weights, `[m, top_k]` each, or a column more with a shared one.
pub(crate) fn gate(
    logits: &[f32],
    bias: Option<&[f32]>,
    expert_scale: Option<&[f32]>,
    spec: &MoeGatingSpec,
) -> (Vec<i32>, Vec<f32>) {
    let taken = logits.len() / spec.logits() * spec.taken();
    let (mut ids, mut weights) = (Vec::with_capacity(taken), Vec::with_capacity(taken));
    let mut order: Vec<usize> = Vec::with_capacity(spec.experts);
    for logits in logits.chunks_exact(spec.logits()) {
        let (logits, shared) = logits.split_at(spec.experts);
        let scores = scores(logits, spec.scores);
        let mut choice = match bias {
            Some(bias) => scores.iter().zip(bias).map(|(s, b)| s + b).collect(),
            None => scores.clone(),
        };
        mask_groups(&mut choice, spec);
        order.clear();
        order.extend(0..spec.experts);
        // A stable sort: of equal scores the lowest id stays first.
        order.sort_by(|&a, &b| choice[b].total_cmp(&choice[a]));
        let chosen = &order[..spec.top_k];
        let sum: f32 = chosen.iter().map(|&e| scores[e]).sum();
        let factor = if spec.normalize { spec.scale / (sum + 1e-20) } else { spec.scale };
        ids.extend(chosen.iter().map(|&e| e as i32));
        weights.extend(chosen.iter().map(|&e| scores[e] * factor * expert_scale.map_or(1.0, |scale| scale[e])));
        ids.extend(shared.iter().map(|_| spec.experts as i32));
        weights.extend(shared.iter().map(|logit| sigmoid(*logit)));
    }
    (ids, weights)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn scores(logits: &[f32], scores: MoeScores) -> Vec<f32> {
    match scores {
        MoeScores::Sigmoid => logits.iter().map(|l| sigmoid(*l)).collect(),
        MoeScores::Softmax => {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exponentials: Vec<f32> = logits.iter().map(|l| (l - largest).exp()).collect();
            let sum: f32 = exponentials.iter().sum();
            exponentials.iter().map(|e| e / sum).collect()
        }
    }
}

/// Takes the experts outside the best groups out of the choice.
fn mask_groups(choice: &mut [f32], spec: &MoeGatingSpec) {
    if spec.top_groups >= spec.groups {
        return;
    }
    let size = spec.experts / spec.groups;
    let mut best: Vec<(usize, f32)> = choice
        .chunks_exact(size)
        .map(|group| {
            let (first, second) = group.iter().fold((f32::NEG_INFINITY, f32::NEG_INFINITY), |(first, second), &c| {
                if c > first { (c, first) } else { (first, second.max(c)) }
            });
            if size > 1 { first + second } else { first }
        })
        .enumerate()
        .collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (group, _) in &best[spec.top_groups..] {
        choice[group * size..(group + 1) * size].fill(f32::NEG_INFINITY);
    }
}

/// Where each expert's choices start, then all choices ordered by expert: `[experts + 1 + ids]`.
pub(crate) fn group(ids: &[i32], experts: usize) -> Vec<i32> {
    let mut groups = vec![0; experts + 1 + ids.len()];
    let (starts, order) = groups.split_at_mut(experts + 1);
    for id in ids {
        starts[*id as usize + 1] += 1;
    }
    for expert in 0..experts {
        starts[expert + 1] += starts[expert];
    }
    let mut next = starts.to_vec();
    for (choice, id) in ids.iter().enumerate() {
        let place = &mut next[*id as usize];
        order[*place as usize] = choice as i32;
        *place += 1;
    }
    groups
}

/// `out[c * stride + product.offset + r] = W[e][r] · x[c / share]` for each choice c of expert e.
///
/// # Shapes
/// weight `[experts * rows, cols]` as stored, x `[choices / share, cols]`, groups as [`group`] makes them,
/// out `[choices, stride]`.
pub(crate) fn linear(
    spec: MatrixSpec,
    weight: &[u8],
    x: &[f32],
    groups: &[i32],
    product: MoeProduct,
    out: &mut [f32],
    stride: usize,
) {
    let MatrixSpec { format, rows, cols } = spec;
    let MoeProduct { experts, share, offset, .. } = product;
    let matrix = Matrix::new(format, weight, rows, cols);
    let rows = rows / experts;
    let (starts, order) = groups.split_at(experts + 1);
    let mut columns: Vec<Option<&mut [f32]>> =
        out.chunks_exact_mut(stride).map(|out| Some(&mut out[offset..offset + rows])).collect();
    let tasks: Vec<_> = starts
        .array_windows::<2>()
        .enumerate()
        .filter(|(_, [start, end])| start < end)
        .map(|(expert, [start, end])| {
            let choices = &order[*start as usize..*end as usize];
            let columns: Vec<_> = choices.iter().filter_map(|choice| columns[*choice as usize].take()).collect();
            (expert, choices, columns)
        })
        .collect();
    let level = Level::best();
    tasks.into_par_iter().with_max_len(1).for_each(|(expert, choices, columns)| {
        let x: Vec<f32> = choices.iter().flat_map(|c| &x[*c as usize / share * cols..][..cols]).copied().collect();
        products(level, matrix.part(expert * rows, rows), &x, columns);
    });
}

/// `out[i] += Σ_j weights[i, j] y[i top_k + j]`; y `[m top_k, rows]`, weights `[m, top_k]`, out `[m, rows]`.
pub(crate) fn combine(y: &[f32], weights: &[f32], m: usize, rows: usize, mut out: Vec<f32>) -> Vec<f32> {
    if out.is_empty() {
        return out;
    }
    let top_k = weights.len() / m;
    let row = |((out, y), weights): ((&mut [f32], &[f32]), &[f32])| {
        for (y, weight) in y.chunks_exact(rows).zip(weights) {
            out.iter_mut().zip(y).for_each(|(out, y)| *out += weight * y);
        }
    };
    out.par_chunks_exact_mut(rows)
        .zip(y.par_chunks_exact(top_k * rows))
        .zip(weights.par_chunks_exact(top_k))
        .with_min_len((1usize << 14).div_ceil(top_k * rows))
        .for_each(row);
    out
}
