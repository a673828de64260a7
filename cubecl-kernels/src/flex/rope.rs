//! Head norms, rotary embedding and the cache write.

use super::kv_cache::{CacheMut, HeadMut};
use super::norm::NormRow;
use super::pool;
use super::simd::Level;
use crate::ops::{KvSource, RopePairing, RopeSpec};

/// Query elements from which threads share the rows.
const PARALLEL: usize = 1 << 16;

/// Splits `qkv`, norms and rotates its query and key heads, and writes keys and values to the
/// caches. A row whose slot or position lies outside the cache is idle: it writes nothing to the
/// caches, and its queries are zeros.
///
/// # Shapes
/// As [`crate::ops::rope_append`]; q `[m, heads head_dim]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn rope_append(
    qkv: &[f32],
    width: usize,
    q_norm: &[f32],
    k_norm: &[f32],
    table: &[f32],
    rotary: usize,
    positions: &[i32],
    slots: &[i32],
    k_cache: CacheMut<'_>,
    v_cache: CacheMut<'_>,
    spec: &RopeSpec,
    q: &mut [f32],
) {
    let (d, capacity) = (spec.head_dim, k_cache.capacity);
    let eps = spec.qk_norm_eps_bits.map_or(0.0, f32::from_bits);
    let ones = vec![1.0; d];
    let (q_width, kv_width) = (spec.heads * d, spec.kv_heads * d);
    let rows = qkv.chunks_exact(width);
    let angles = |row: usize| {
        let position = usize::try_from(positions[row]).ok().filter(|position| *position < capacity)?;
        if spec.pairing == RopePairing::None {
            Some(&[][..])
        } else {
            table.get(position * rotary..(position + 1) * rotary)
        }
    };
    let queries = |row: usize, (qkv, q): &mut (&[f32], &mut [f32])| match angles(row) {
        Some(angles) => {
            q.copy_from_slice(&qkv[..q_width]);
            q.chunks_exact_mut(d).for_each(|head| prepare(head, q_norm, angles, spec));
        }
        None => q.fill(0.0),
    };
    let threads = if q.len() < PARALLEL { 1 } else { usize::MAX };
    pool::for_each_on(threads, &mut rows.zip(q.chunks_exact_mut(q_width)).collect::<Vec<_>>(), queries);

    if spec.kv == KvSource::Shared {
        return;
    }
    let write = |index: usize, (k_head, v_head): &mut (HeadMut<'_>, HeadMut<'_>)| {
        let (slot, head) = (index / spec.kv_heads, index % spec.kv_heads);
        let mut made = Vec::with_capacity(d);
        for (row, qkv) in qkv.chunks_exact(width).enumerate() {
            let position = usize::try_from(positions[row]).ok().filter(|_| usize::try_from(slots[row]) == Ok(slot));
            let Some((angles, position)) = angles(row).zip(position) else { continue };
            let (keys, values) = qkv[q_width..q_width + spec.kv.parts() * kv_width].split_at(kv_width);
            let values = if spec.kv == KvSource::KeysAsValues { keys } else { values };
            let columns = head * d..(head + 1) * d;
            made.clear();
            made.extend_from_slice(&keys[columns.clone()]);
            prepare(&mut made, k_norm, angles, spec);
            k_head.write(position, &made);
            made.clear();
            made.extend_from_slice(&values[columns]);
            if spec.kv.norms_values() {
                Level::best().run(NormRow { x: &mut made, weight: &ones, eps });
            }
            v_head.write(position, &made);
        }
    };
    let mut heads: Vec<_> = k_cache.heads(d).into_iter().zip(v_cache.heads(d)).collect();
    pool::for_each_on(threads, &mut heads, write);
}

/// Norms one head in place and rotates its first elements, as many as `angles` has: the cosines, then
/// the sines.
fn prepare(head: &mut [f32], norm: &[f32], angles: &[f32], spec: &RopeSpec) {
    if let Some(bits) = spec.qk_norm_eps_bits {
        Level::best().run(NormRow { x: head, weight: norm, eps: f32::from_bits(bits) });
    }
    let half = angles.len() / 2;
    let (cosines, sines) = angles.split_at(half);
    let head = &mut head[..2 * half];
    let angles = cosines.iter().zip(sines);
    match spec.pairing {
        RopePairing::Half => {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
        RopePairing::Interleaved => {
            for ([a, b], (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
        RopePairing::None => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
