//! Value embeddings.

use rayon::prelude::*;

/// Elements of embeddings from which threads share the rows.
const PARALLEL: usize = 1 << 16;

/// Adds `2 sigmoid(gate[h] · x[..channels]) * embeds[h]` to each head of the values that end a row.
///
/// # Shapes
/// As [`crate::ops::add_value_embeds`], with at least one row; qkv is written in place.
pub(crate) fn add_value_embeds(
    qkv: &mut [f32],
    width: usize,
    x: &[f32],
    gate: &[f32],
    kv_heads: usize,
    embeds: &[f32],
) {
    let rows = qkv.len() / width;
    let (hidden, channels, values) = (x.len() / rows, gate.len() / kv_heads, embeds.len() / rows);
    let row = |((qkv, x), embeds): ((&mut [f32], &[f32]), &[f32])| {
        let heads = qkv[width - values..].chunks_exact_mut(values / kv_heads);
        for ((v, embed), gate) in heads.zip(embeds.chunks_exact(values / kv_heads)).zip(gate.chunks_exact(channels)) {
            let dot: f32 = gate.iter().zip(x).map(|(g, x)| g * x).sum();
            let scale = 2.0 / (1.0 + (-dot).exp());
            v.iter_mut().zip(embed).for_each(|(v, embed)| *v += scale * embed);
        }
    };
    if embeds.len() < PARALLEL {
        qkv.chunks_exact_mut(width).zip(x.chunks_exact(hidden)).zip(embeds.chunks_exact(values)).for_each(row);
    } else {
        qkv.par_chunks_exact_mut(width)
            .zip(x.par_chunks_exact(hidden))
            .zip(embeds.par_chunks_exact(values))
            .for_each(row);
    }
}
