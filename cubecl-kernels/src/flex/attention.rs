//! Causal attention over the key-value cache: flash attention (Dao et al., 2022) in tiles that
//! stay in the processor's caches.

mod tiles;

use super::kv_cache::{Cache, Head};
use super::pool;
use super::product::{Product, transpose_rows};
use super::simd::{Kernel, LANES, Level, Simd, Unit, exp};
use crate::ops::AttentionSpec;

/// Keys of a tile.
const KEYS: usize = 64;
const KEY_UNITS: usize = KEYS / LANES;

/// Query rows times heads that share the tiles of one key-value head.
const TASK_QUERIES: usize = 48;

/// The same where they are multiplied in tiles, which makes the keys' way into them the larger part.
const TILE_TASK_QUERIES: usize = 128;

/// Keys of a task when there are few rows, so that every thread gets some.
const TASK_KEYS: usize = 1024;

/// Rows up to which the keys are split.
const SPLIT_ROWS: usize = 16;

/// Multiply-adds below which a thread's start costs more than it saves.
const PARALLEL: usize = 1 << 15;

/// Attention of each row to positions up to its own, within the window. A row whose slot or
/// position lies outside the cache is idle: its output is zeros.
///
/// # Shapes
/// As [`crate::ops::attention`]; out `[m, heads head_dim]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attention(
    q: &[f32],
    keys: Cache<'_>,
    values: Cache<'_>,
    positions: &[i32],
    slots: &[i32],
    spec: &AttentionSpec,
    out: &mut [f32],
) {
    attention_at(Level::best(), q, [keys, values], positions, slots, spec, out);
}

fn attention_at(
    level: Level,
    q: &[f32],
    cache: [Cache<'_>; 2],
    positions: &[i32],
    slots: &[i32],
    spec: &AttentionSpec,
    out: &mut [f32],
) {
    let width = spec.heads * spec.head_dim;
    let narrow = spec.narrow && cache[0].heads() > 0;
    let proof = narrow.then(|| tiles::Proof::new(level, cache[0].head(0), spec.head_dim)).flatten();
    let task_queries = if proof.is_some() { TILE_TASK_QUERIES } else { TASK_QUERIES };
    let groups = groups(cache[0], positions, slots, spec, task_queries);
    let work: usize = groups.iter().map(|group| group.rows * width * (group.end - group.start)).sum();
    let mut outs = Vec::with_capacity(groups.len());
    let mut rest = out;
    for group in &groups {
        let (out, after) = rest.split_at_mut(group.rows * width);
        outs.push((*group, &q[group.first_row * width..][..group.rows * width], out));
        rest = after;
    }
    let shape = Shape { cache, spec, split: positions.len() <= SPLIT_ROWS };
    let mut merges = Vec::with_capacity(groups.len());
    let mut parts = Vec::new();
    for (group, q, out) in outs {
        let first = parts.len();
        parts.extend(shape.tasks(group, q, positions).into_iter().map(|task| (task, None)));
        merges.push((group, first..parts.len(), out));
    }
    let run = |_: usize, (task, part): &mut (Task<'_>, Option<Part>)| {
        *part = Some(match proof {
            Some(proof) => proof.attend(level, *task),
            None => level.run(*task),
        });
    };
    let threads = if work < PARALLEL { 1 } else { usize::MAX };
    pool::for_each_on(threads, &mut parts, run);
    let parts: Vec<Part> = parts.into_iter().filter_map(|(_, part)| part).collect();
    pool::for_each_on(threads, &mut merges, |_, (group, range, out)| shape.merge(*group, &parts[range.clone()], out));
}

/// Neighbouring rows of one slot.
#[derive(Clone, Copy, Debug)]
struct Group {
    first_row: usize,
    rows: usize,
    slot: usize,
    /// Positions that any of the rows sees; empty for an idle row.
    start: usize,
    end: usize,
}

fn groups(cache: Cache<'_>, positions: &[i32], slots: &[i32], spec: &AttentionSpec, task_queries: usize) -> Vec<Group> {
    let most = (task_queries / (spec.heads / spec.kv_heads)).max(1);
    let slot_count = cache.heads() / spec.kv_heads.max(1);
    let mut groups: Vec<Group> = Vec::new();
    for (row, (position, slot)) in positions.iter().zip(slots).enumerate() {
        let seen = seen(*position, cache.capacity, spec);
        let slot = usize::try_from(*slot).ok().filter(|slot| *slot < slot_count);
        let (slot, (start, end)) = slot.zip(seen).unwrap_or((0, (0, 0)));
        match groups.last_mut() {
            Some(group) if end > 0 && group.end > 0 && group.slot == slot && group.rows < most => {
                group.rows += 1;
                group.start = group.start.min(start);
                group.end = group.end.max(end);
            }
            _ => groups.push(Group { first_row: row, rows: 1, slot, start, end }),
        }
    }
    groups
}

/// First and one past the last position that a row sees; `None` outside the cache.
fn seen(position: i32, capacity: usize, spec: &AttentionSpec) -> Option<(usize, usize)> {
    let end = usize::try_from(position).ok().filter(|position| *position < capacity)? + 1;
    Some((end.saturating_sub(spec.window.unwrap_or(end)), end))
}

/// What all tasks of a call share.
#[derive(Clone, Copy)]
struct Shape<'a> {
    /// Keys and values.
    cache: [Cache<'a>; 2],
    spec: &'a AttentionSpec,
    split: bool,
}

impl<'a> Shape<'a> {
    /// The tasks of a group: for each key-value head, each part of the keys.
    fn tasks(self, group: Group, q: &'a [f32], positions: &'a [i32]) -> Vec<Task<'a>> {
        let Self { cache, spec, .. } = self;
        let length = if self.split { TASK_KEYS } else { usize::MAX };
        let mut tasks = Vec::new();
        for kv_head in 0..spec.kv_heads {
            let [keys, values] = cache.map(|cache| cache.head(group.slot * spec.kv_heads + kv_head));
            let mut start = group.start;
            while start < group.end {
                let end = group.end.min(start.saturating_add(length));
                tasks.push(Task {
                    q,
                    positions: &positions[group.first_row..][..group.rows],
                    keys,
                    values,
                    capacity: cache[0].capacity,
                    kv_head,
                    start,
                    end,
                    spec,
                });
                start = end;
            }
        }
        tasks
    }

    /// Joins the parts of each key-value head's keys and writes the group's rows.
    fn merge(self, group: Group, parts: &[Part], out: &mut [f32]) {
        let spec = self.spec;
        let (d, share) = (spec.head_dim, spec.heads / spec.kv_heads);
        if parts.is_empty() {
            return out.fill(0.0);
        }
        let splits = parts.len() / spec.kv_heads;
        for (kv_head, parts) in parts.chunks_exact(splits).enumerate() {
            for row in 0..group.rows {
                for head in 0..share {
                    let query = row * share + head;
                    let out = &mut out[(row * spec.heads + kv_head * share + head) * d..][..d];
                    merge_query(parts, query, out);
                }
            }
        }
    }
}

/// Writes the output of one query from the parts of its keys.
fn merge_query(parts: &[Part], query: usize, out: &mut [f32]) {
    let largest = parts.iter().map(|part| part.largest[query]).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    out.fill(0.0);
    for part in parts {
        if part.total[query] == 0.0 {
            continue;
        }
        let factor = (part.largest[query] - largest).exp();
        total += part.total[query] * factor;
        let units = part.values.len() / part.total.len();
        let values = part.values[query * units..][..units].as_flattened();
        for (out, value) in out.iter_mut().zip(values) {
            *out += value * factor;
        }
    }
    if total != 0.0 {
        let inverse = 1.0 / total;
        out.iter_mut().for_each(|out| *out *= inverse);
    }
}

/// The queries of a group that belong to one key-value head, and a range of its keys.
#[derive(Clone, Copy)]
struct Task<'a> {
    /// `[rows, heads head_dim]`
    q: &'a [f32],
    positions: &'a [i32],
    keys: Head<'a>,
    values: Head<'a>,
    capacity: usize,
    kv_head: usize,
    start: usize,
    end: usize,
    spec: &'a AttentionSpec,
}

/// Attention of some queries to some keys, before the division by `total`.
struct Part {
    /// `[queries, ⌈head_dim / 16⌉]`
    values: Vec<Unit>,
    /// Largest score of each query.
    largest: Vec<f32>,
    /// Sum of the exponentials relative to it.
    total: Vec<f32>,
}

impl Part {
    fn new(queries: usize, units: usize) -> Self {
        Self {
            values: vec![[0.0; LANES]; queries * units],
            largest: vec![f32::NEG_INFINITY; queries],
            total: vec![0.0; queries],
        }
    }
}

impl Kernel for Task<'_> {
    type Output = Part;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Part {
        let d = self.spec.head_dim;
        let count = self.queries();
        let units = d.div_ceil(LANES);
        let queries = self.scaled_queries();
        let mut part = Part::new(count, units);
        let mut keys = vec![[0.0; LANES]; d * KEY_UNITS]; // [head_dim, KEYS]
        let mut scores = vec![[0.0; LANES]; count * KEY_UNITS]; // [queries, KEYS]
        let mut padded = vec![[0.0; LANES]; if d.is_multiple_of(LANES) { 0 } else { KEYS * units }];
        let mut scratch = Vec::new();
        for start in (self.start..self.end).step_by(KEYS) {
            let n = (self.end - start).min(KEYS);
            let key_units = n.div_ceil(LANES);
            let tile = self.keys.rows(simd, start..start + n, d, &mut scratch);
            for (unit, rows) in tile.chunks(LANES * d).enumerate() {
                transpose_rows(simd, &rows.chunks_exact(d), d, &mut keys[unit..], KEY_UNITS);
            }
            scores.fill([0.0; LANES]);
            let product = Product {
                rows: count,
                depth: d,
                units: key_units,
                a: &queries,
                a_stride: d,
                b: &keys,
                b_stride: KEY_UNITS,
            };
            product.add_to(simd, &mut scores, KEY_UNITS);

            self.softmax(simd, start, n, &mut scores, &mut part);

            let tile = self.values.rows(simd, start..start + n, d, &mut scratch);
            let b = if padded.is_empty() {
                tile.as_chunks::<LANES>().0
            } else {
                for (to, from) in padded.chunks_exact_mut(units).zip(tile.chunks_exact(d)) {
                    to.as_flattened_mut()[..d].copy_from_slice(from);
                }
                &padded
            };
            let product =
                Product { rows: count, depth: n, units, a: scores.as_flattened(), a_stride: KEYS, b, b_stride: units };
            product.add_to(simd, &mut part.values, units);
        }
        part
    }
}

impl Task<'_> {
    /// Query heads of a key-value head.
    fn share(&self) -> usize {
        self.spec.heads / self.spec.kv_heads
    }

    fn queries(&self) -> usize {
        self.positions.len() * self.share()
    }

    /// Every query's step of the running softmax with the scores of `n` keys from `start` on, `[queries, KEYS]`.
    #[inline(always)]
    fn softmax<S: Simd>(&self, simd: S, start: usize, n: usize, scores: &mut [Unit], part: &mut Part) {
        let (share, units, key_units) = (self.share(), part.values.len() / part.total.len(), n.div_ceil(LANES));
        for query in 0..part.total.len() {
            let scores = &mut scores[query * KEY_UNITS..][..KEY_UNITS];
            let (scores, beyond) = scores.split_at_mut(key_units);
            beyond.fill([0.0; LANES]);
            let (first, end) = seen(self.positions[query / share], self.capacity, self.spec).unwrap_or((0, 0));
            let first = first.clamp(start, start + n) - start;
            let end = end.clamp(start, start + n) - start;
            let values = &mut part.values[query * units..][..units];
            softmax(simd, scores, first..end, &mut part.largest[query], &mut part.total[query], values);
        }
    }

    /// The task's queries times the scale, `[rows share, head_dim]`.
    fn scaled_queries(&self) -> Vec<f32> {
        let (d, share) = (self.spec.head_dim, self.share());
        let mut queries = Vec::with_capacity(self.positions.len() * share * d);
        for row in self.q.chunks_exact(self.spec.heads * d) {
            let heads = &row[self.kv_head * share * d..][..share * d];
            queries.extend(heads.iter().map(|q| q * self.spec.scale));
        }
        queries
    }
}

/// One query's step of the running softmax: turns the `scores` within `seen` into exponentials
/// relative to the largest so far, zeros the others, and brings `total` and `values` to the new
/// largest.
#[inline(always)]
fn softmax<S: Simd>(
    simd: S,
    scores: &mut [Unit],
    seen: std::ops::Range<usize>,
    largest: &mut f32,
    total: &mut f32,
    values: &mut [Unit],
) {
    if seen.is_empty() {
        return scores.fill([0.0; LANES]);
    }
    let outside = |scores: &mut [Unit], value: f32| {
        let scores = scores.as_flattened_mut();
        scores[..seen.start].fill(value);
        scores[seen.end..].fill(value);
    };
    outside(scores, f32::NEG_INFINITY);
    let mut most = simd.splat(*largest);
    for unit in scores.iter() {
        most = simd.max(most, simd.load(unit));
    }
    let most = simd.max_lane(most);
    for unit in scores.iter_mut() {
        simd.store(exp(simd, simd.sub(simd.load(unit), simd.splat(most))), unit);
    }
    outside(scores, 0.0);
    let mut sum = simd.splat(0.0);
    for unit in scores.iter() {
        sum = simd.add(sum, simd.load(unit));
    }
    let factor = (*largest - most).exp();
    *total = *total * factor + simd.sum(sum);
    if factor != 1.0 {
        for unit in values {
            simd.store(simd.mul(simd.load(unit), simd.splat(factor)), unit);
        }
    }
    *largest = most;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
