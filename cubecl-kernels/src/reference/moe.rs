//! Mixture-of-experts layers.

use super::linear;
use crate::formats::Format;
use crate::ops::{MoeGatingSpec, MoeScores};

/// What [`crate::ops::moe_gate`] chooses for one row of logits: ids and weights, best first.
pub fn moe_gate_row(
    logits: &[f32],
    bias: Option<&[f32]>,
    expert_scale: Option<&[f32]>,
    spec: &MoeGatingSpec,
) -> Vec<(usize, f32)> {
    let sigmoid = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    let logits = logits.iter().map(|&l| f64::from(l)).collect::<Vec<_>>();
    let (logits, shared) = logits.split_at(spec.experts);
    let scores = match spec.scores {
        MoeScores::Sigmoid => logits.iter().map(|l| sigmoid(*l)).collect::<Vec<_>>(),
        MoeScores::Softmax => {
            let sum = logits.iter().map(|l| l.exp()).sum::<f64>();
            logits.iter().map(|l| l.exp() / sum).collect()
        }
    };
    let choice = |e: usize| scores[e] + bias.map_or(0.0, |bias| f64::from(bias[e]));
    let size = spec.experts / spec.groups;
    let mut groups = (0..spec.groups)
        .map(|g| {
            let mut members = (g * size..(g + 1) * size).map(choice).collect::<Vec<_>>();
            members.sort_by(|a, b| b.total_cmp(a));
            (g, members.iter().take(2).sum::<f64>())
        })
        .collect::<Vec<_>>();
    groups.sort_by(|a, b| b.1.total_cmp(&a.1));
    let kept = groups[..spec.top_groups].iter().map(|g| g.0).collect::<Vec<_>>();
    let mut order = (0..spec.experts).filter(|e| kept.contains(&(e / size))).collect::<Vec<_>>();
    order.sort_by(|&a, &b| choice(b).total_cmp(&choice(a)));
    order.truncate(spec.top_k);
    let sum = if spec.normalize { order.iter().map(|&e| scores[e]).sum::<f64>() + 1e-20 } else { 1.0 };
    let weight = |e: usize| scores[e] / sum * f64::from(spec.scale) * expert_scale.map_or(1.0, |s| f64::from(s[e]));
    let shared = shared.iter().map(|logit| (spec.experts, sigmoid(*logit) as f32));
    order.iter().map(|&e| (e, weight(e) as f32)).chain(shared).collect()
}

/// `W[expert] x`; `bytes` holds the matrices `[rows, cols]` of all experts.
pub fn expert_linear(x: &[f32], format: Format, bytes: &[u8], rows: usize, cols: usize, expert: usize) -> Vec<f32> {
    let size = format.row_bytes(cols).map_or(0, |row| row * rows);
    linear(x, format, &bytes[expert * size..(expert + 1) * size], rows, cols)
}
