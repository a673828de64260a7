//! The gated delta rule, a head at a time: a block of the state's columns stays in the processor's
//! first cache while all rows pass.

use rayon::prelude::*;

use super::linear::cut;
use super::norm::NormRow;
use super::pool;
use super::simd::{Kernel, LANES, Level, Simd, Unit};
use crate::ops::{DeltaSpec, L2_EPS};

/// Vectors across a block of columns.
const BLOCK: usize = 2;
const COLUMNS: usize = BLOCK * LANES;
/// Vectors across a state of the usual size, which a single row passes over in memory's order.
const WIDE: usize = 8;
const WIDE_COLUMNS: usize = WIDE * LANES;

/// Multiply-adds below which a thread's start costs more than it saves.
const PARALLEL: usize = 1 << 17;

/// What a call computes from, with the shapes of [`crate::ops::delta_rule`].
pub(crate) struct Inputs<'a> {
    pub(crate) qkv: &'a [f32],
    /// `[m, gate_width]`
    pub(crate) gates: &'a [f32],
    pub(crate) gate_width: usize,
    pub(crate) a: &'a [f32],
    pub(crate) dt_bias: &'a [f32],
    pub(crate) positions: &'a [i32],
    pub(crate) slots: &'a [i32],
    pub(crate) spec: &'a DeltaSpec,
}

/// Runs the rows through the states of their slots. A row whose slot lies outside the state is idle:
/// its output is zeros.
///
/// # Shapes
/// state `[slots, value_heads, key_dim, value_dim]`, out `[m, value_heads value_dim]`.
pub(crate) fn delta_rule(inputs: &Inputs<'_>, state: &mut [f32], out: &mut [f32]) {
    delta_rule_at(Level::best(), inputs, state, out);
}

fn delta_rule_at(level: Level, inputs: &Inputs<'_>, state: &mut [f32], out: &mut [f32]) {
    let Inputs { qkv, positions, slots, spec, .. } = *inputs;
    let (size, heads) = (spec.key_dim * spec.value_dim, spec.value_heads);
    let vectors = normalized(level, qkv, spec);
    let factors = factors(inputs);
    let run = if spec.consecutive { positions.len().max(1) } else { 1 };
    let out_width = heads * spec.value_dim;
    for (index, out) in out.chunks_mut(run * out_width).enumerate() {
        let first = index * run;
        let Some(state) = usize::try_from(slots[first])
            .ok()
            .and_then(|slot| state.get_mut(slot * heads * size..(slot + 1) * heads * size))
        else {
            out.fill(0.0);
            continue;
        };
        if positions[first] == 0 {
            state.fill(0.0);
        }
        let rows = first..first + out.len() / out_width;
        let outputs = cut(out.chunks_exact_mut(out_width).collect(), spec.value_dim);
        let mut tasks: Vec<_> = state.chunks_exact_mut(size).zip(outputs).collect();
        let most = if rows.len() * heads * size < PARALLEL { 1 } else { usize::MAX };
        pool::for_each_on(most, &mut tasks, |head, (state, out)| {
            let rows = rows.clone();
            level.run(Head { head, rows, qkv, vectors: &vectors, factors: &factors, spec, state, out });
        });
    }
}

/// The queries and keys at length 1, the queries also times `key_dim^-0.5`: `[m, 2 key_heads key_dim]`.
fn normalized(level: Level, qkv: &[f32], spec: &DeltaSpec) -> Vec<f32> {
    let (keys_width, d) = (spec.key_heads * spec.key_dim, spec.key_dim as f32);
    let mut vectors = vec![0.0; qkv.len() / spec.width() * 2 * keys_width];
    // A root-mean-square norm, of which the length is `d^0.5` times as large.
    let (query, key) = (vec![1.0 / d; spec.key_dim], vec![d.powf(-0.5); spec.key_dim]);
    let normalize = |(to, from): (&mut [f32], &[f32])| {
        to.copy_from_slice(&from[..2 * keys_width]);
        for (index, x) in to.chunks_exact_mut(spec.key_dim).enumerate() {
            let weight = if index < spec.key_heads { &query } else { &key };
            level.run(NormRow { x, weight, eps: L2_EPS / d });
        }
    };
    if vectors.len() < PARALLEL {
        vectors.chunks_exact_mut(2 * keys_width).zip(qkv.chunks_exact(spec.width())).for_each(normalize);
    } else {
        vectors.par_chunks_exact_mut(2 * keys_width).zip(qkv.par_chunks_exact(spec.width())).for_each(normalize);
    }
    vectors
}

/// How much of its state a head keeps and how strongly it writes, at one row.
#[derive(Clone, Copy)]
struct Factors {
    decay: f32,
    beta: f32,
}

/// `[m, value_heads]`
fn factors(inputs: &Inputs<'_>) -> Vec<Factors> {
    let Inputs { gates, gate_width, a, dt_bias, spec, .. } = *inputs;
    let mut factors = Vec::with_capacity(gates.len() / gate_width * spec.value_heads);
    for gates in gates.chunks_exact(gate_width) {
        let inputs = gates[spec.a_offset..].iter().zip(&gates[spec.b_offset..]);
        factors.extend(inputs.zip(a.iter().zip(dt_bias)).map(|((x, b), (a, dt_bias))| {
            let x = x + dt_bias;
            let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
            Factors { decay: (a * softplus).exp(), beta: 1.0 / (1.0 + (-b).exp()) }
        }));
    }
    factors
}

/// Some rows of one value head.
struct Head<'a, 'b> {
    head: usize,
    rows: std::ops::Range<usize>,
    qkv: &'a [f32],
    vectors: &'a [f32],
    factors: &'a [Factors],
    spec: &'a DeltaSpec,
    /// `[key_dim, value_dim]`
    state: &'a mut [f32],
    /// `[rows, value_dim]`
    out: &'a mut [&'b mut [f32]],
}

impl Kernel for Head<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let DeltaSpec { key_heads, value_heads, key_dim, value_dim, tiled, .. } = *self.spec;
        let key_head = if tiled { self.head % key_heads } else { self.head / (value_heads / key_heads) };
        let keys_width = key_heads * key_dim;
        if let ([out], WIDE_COLUMNS) = (&mut *self.out, value_dim) {
            let row = self.rows.start;
            let value = bytemuck::from_bytes_mut::<[Unit; WIDE]>(bytemuck::cast_slice_mut(out));
            let from = row * self.spec.width() + 2 * keys_width + self.head * value_dim;
            value.as_flattened_mut().copy_from_slice(&self.qkv[from..][..value_dim]);
            let vectors = &self.vectors[row * 2 * keys_width + key_head * key_dim..];
            let factors = self.factors[row * value_heads + self.head];
            let state = bytemuck::cast_slice_mut(self.state);
            return step(simd, state, &vectors[..key_dim], &vectors[keys_width..][..key_dim], value, factors);
        }
        let mut block = vec![[[0.0; LANES]; BLOCK]; key_dim];
        for start in (0..value_dim).step_by(COLUMNS) {
            let columns = start..value_dim.min(start + COLUMNS);
            for (to, from) in block.iter_mut().zip(self.state.chunks_exact(value_dim)) {
                copy(to.as_flattened_mut(), &from[columns.clone()]);
            }
            for (index, row) in self.rows.clone().enumerate() {
                let vectors = &self.vectors[row * 2 * keys_width + key_head * key_dim..];
                let from = row * self.spec.width() + 2 * keys_width + self.head * value_dim;
                let mut value = [[0.0; LANES]; BLOCK];
                copy(value.as_flattened_mut(), &self.qkv[from..][columns.clone()]);
                let factors = self.factors[row * value_heads + self.head];
                step(simd, &mut block, &vectors[..key_dim], &vectors[keys_width..][..key_dim], &mut value, factors);
                copy(&mut self.out[index][columns.clone()], value.as_flattened());
            }
            for (from, to) in block.iter().zip(self.state.chunks_exact_mut(value_dim)) {
                copy(&mut to[columns.clone()], from.as_flattened());
            }
        }
    }
}

/// Copies as much as both hold; a whole block without a call.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    match (to.first_chunk_mut::<COLUMNS>(), from.first_chunk::<COLUMNS>()) {
        (Some(to), Some(from)) => *to = *from,
        _ => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
    }
}

/// One row's step of `B` vectors of columns; `value` becomes the output.
#[inline(always)]
fn step<S: Simd, const B: usize>(
    simd: S,
    block: &mut [[Unit; B]],
    query: &[f32],
    key: &[f32],
    value: &mut [Unit; B],
    Factors { decay, beta }: Factors,
) {
    // Two sums of each, so that additions need not wait for one another.
    let mut read = [[simd.splat(0.0); B]; 2];
    for (states, keys) in block.as_chunks::<2>().0.iter().zip(key.as_chunks::<2>().0) {
        for ((read, state), key) in read.iter_mut().zip(states).zip(keys) {
            let key = simd.splat(*key);
            for (read, state) in read.iter_mut().zip(state) {
                *read = simd.fma(simd.load(state), key, *read);
            }
        }
    }
    let mut write = [simd.splat(0.0); B];
    for (u, write) in write.iter_mut().enumerate() {
        let read = simd.mul(simd.splat(decay), simd.add(read[0][u], read[1][u]));
        *write = simd.mul(simd.splat(beta), simd.sub(simd.load(&value[u]), read));
    }
    let decay = simd.splat(decay);
    let mut sums = [[simd.splat(0.0); B]; 2];
    let rows = block.as_chunks_mut::<2>().0.iter_mut().zip(key.as_chunks::<2>().0.iter().zip(query.as_chunks::<2>().0));
    for (states, (keys, queries)) in rows {
        for (((sums, state), key), query) in sums.iter_mut().zip(states).zip(keys).zip(queries) {
            let (key, query) = (simd.splat(*key), simd.splat(*query));
            for ((sum, state), write) in sums.iter_mut().zip(state).zip(&write) {
                let next = simd.fma(key, *write, simd.mul(decay, simd.load(state)));
                simd.store(next, state);
                *sum = simd.fma(next, query, *sum);
            }
        }
    }
    for (u, value) in value.iter_mut().enumerate() {
        simd.store(simd.add(sums[0][u], sums[1][u]), value);
    }
}

#[cfg(test)]
mod tests {
    use super::{Inputs, delta_rule_at};
    use crate::flex::simd::Level;
    use crate::flex::test_data::Random;
    use crate::ops::DeltaSpec;
    use crate::reference;

    fn assert_close(level: Level, found: &[f32], expected: impl Iterator<Item = f64>) {
        for (found, expected) in found.iter().zip(expected) {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 1e-5 * expected.abs().max(1.0), "{level:?}: {found} is not {expected}");
        }
    }

    /// At every level, alone and shared by threads; a row outside the state is idle.
    #[test]
    fn rows_follow_the_rule() {
        let mut random = Random::new(21);
        for (m, value_dim, consecutive) in [(2, 20, false), (3, 33, true), (2, 128, false), (40, 128, true)] {
            let spec = DeltaSpec {
                key_heads: 2,
                value_heads: 4,
                key_dim: 24,
                value_dim,
                tiled: m == 3,
                a_offset: 1,
                b_offset: 5,
                consecutive,
            };
            let (gate_width, size) = (9, 4 * 24 * value_dim);
            let (qkv, gates) = (random.normals(m * spec.width()), random.normals(m * gate_width));
            let (a, dt_bias) = ([-0.1, -0.5, -1.0, -2.0], [0.5, -0.5, 1.0, 0.0]);
            let held = random.normals(size);
            // In a batch only the first row has a slot.
            let rows = if consecutive { m } else { 1 };
            let slots = (0..m).map(|row| if row < rows { 0 } else { 7 }).collect::<Vec<_>>();
            let positions = (0..m).map(|row| 5 + row as i32).collect::<Vec<_>>();
            let mut expected_state = held.iter().map(|&s| f64::from(s)).collect::<Vec<_>>();
            let (qkv_rows, gate_rows) = (&qkv[..rows * spec.width()], &gates[..rows * gate_width]);
            let expected =
                reference::delta_rule(qkv_rows, gate_rows, gate_width, &a, &dt_bias, &mut expected_state, &spec);
            for level in Level::available() {
                let (mut state, mut out) = (held.clone(), vec![f32::NAN; m * 4 * value_dim]);
                let inputs = Inputs {
                    qkv: &qkv,
                    gates: &gates,
                    gate_width,
                    a: &a,
                    dt_bias: &dt_bias,
                    positions: &positions,
                    slots: &slots,
                    spec: &spec,
                };
                delta_rule_at(level, &inputs, &mut state, &mut out);
                let (used, idle) = out.split_at(expected.len());
                assert_close(level, used, expected.iter().map(|&x| f64::from(x)));
                assert_close(level, &state, expected_state.iter().copied());
                assert!(idle.iter().all(|&x| x == 0.0), "{level:?}");
            }
        }
    }
}
