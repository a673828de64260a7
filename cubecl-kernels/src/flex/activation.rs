//! Activations of feed-forward layers.

use super::pool;
use super::simd::{Kernel, LANES, Level, Simd, Unit, exp};
use crate::ops::{Gate, GateScope};

/// Elements from which threads share the work.
const TASK: usize = 1 << 14;

/// `n` columns of rows: the values, elements from row to row, and the first column.
pub(crate) type Columns<'a> = (&'a [f32], usize, usize);

/// `out[i][j] = f(gate[i][j]) * up[i][j]`, f being the nonlinearity `kind`.
///
/// # Shapes
/// gate and up have `n` columns, out `[m, n]`.
pub(crate) fn gated(kind: Gate, gate: Columns<'_>, up: Columns<'_>, n: usize, out: &mut [f32]) {
    gated_at(Level::best(), kind, gate, up, n, out);
}

fn gated_at(level: Level, kind: Gate, gate: Columns<'_>, up: Columns<'_>, n: usize, out: &mut [f32]) {
    if n == 0 {
        return;
    }
    let threads = if out.len() <= TASK { 1 } else { usize::MAX };
    let mut rows: Vec<_> = out.chunks_exact_mut(n).collect();
    pool::for_each_on(threads, &mut rows, |i, out| {
        let columns = |(_, stride, first): Columns<'_>| i * stride + first..i * stride + first + n;
        level.run(GatedRow { kind, gate: &gate.0[columns(gate)], up: &up.0[columns(up)], out });
    });
}

struct GatedRow<'a> {
    kind: Gate,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for GatedRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gates, gate_rest) = self.gate.as_chunks::<LANES>();
        let (ups, up_rest) = self.up.as_chunks::<LANES>();
        let (outs, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            simd.store(product(simd, self.kind, gate, up), out);
        }
        let (mut gate, mut up, mut out) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        gate[..gate_rest.len()].copy_from_slice(gate_rest);
        up[..up_rest.len()].copy_from_slice(up_rest);
        simd.store(product(simd, self.kind, &gate, &up), &mut out);
        out_rest.copy_from_slice(&out[..out_rest.len()]);
    }
}

/// `kind(gate) * up`.
#[inline(always)]
pub(super) fn product<S: Simd>(simd: S, kind: Gate, gate: &Unit, up: &Unit) -> S::F {
    let gate = simd.load(gate);
    let negated = match kind {
        Gate::Silu => simd.sub(simd.splat(0.0), gate),
        // 0.5 x (1 + tanh(u)) = x σ(2 u).
        Gate::GeluTanh => {
            let cubic = simd.fma(simd.mul(gate, gate), simd.splat(0.044_715), simd.splat(1.0));
            simd.mul(simd.mul(gate, cubic), simd.splat(-2.0 * 0.797_884_6))
        }
    };
    let denominator = simd.add(simd.splat(1.0), exp(simd, negated));
    simd.mul(simd.div(gate, denominator), simd.load(up))
}

/// `x = x * sigmoid(gate)`, a gate for each element or each row.
///
/// # Shapes
/// x `[m, width]`, gate `[m, gate_width]` from column `offset` on.
pub(crate) fn sigmoid_gate_in_place(
    x: &mut [f32],
    width: usize,
    gate: &[f32],
    gate_width: usize,
    offset: usize,
    scope: GateScope,
) {
    let level = Level::best();
    for (x, gate) in x.chunks_exact_mut(width.max(1)).zip(gate.chunks_exact(gate_width.max(1))) {
        match scope {
            GateScope::Element => level.run(SigmoidGate { x, gate: &gate[offset..offset + width] }),
            GateScope::Row => {
                let factor = 1.0 / (1.0 + (-gate[offset]).exp());
                x.iter_mut().for_each(|x| *x *= factor);
            }
        }
    }
}

struct SigmoidGate<'a> {
    x: &'a mut [f32],
    gate: &'a [f32],
}

impl Kernel for SigmoidGate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let one = simd.splat(1.0);
        let (units, rest) = self.x.as_chunks_mut::<LANES>();
        let (gates, gate_rest) = self.gate.as_chunks::<LANES>();
        for (x, gate) in units.iter_mut().zip(gates) {
            let denominator = simd.add(one, exp(simd, simd.sub(simd.splat(0.0), simd.load(gate))));
            simd.store(simd.div(simd.load(x), denominator), x);
        }
        for (x, gate) in rest.iter_mut().zip(gate_rest) {
            *x /= 1.0 + (-gate).exp();
        }
    }
}

/// `x = max(x, 0)²`.
pub(crate) fn relu2(x: &mut [f32]) {
    let threads = if x.len() <= TASK { 1 } else { usize::MAX };
    pool::for_each_on(threads, &mut x.chunks_mut(TASK).collect::<Vec<_>>(), |_, x| {
        x.iter_mut().for_each(|x| *x = x.max(0.0).powi(2));
    });
}

#[cfg(test)]
mod tests {
    use super::gated_at;
    use crate::flex::simd::Level;
    use crate::flex::test_data::Random;
    use crate::ops::Gate;

    fn activated(kind: Gate, x: f64) -> f64 {
        match kind {
            Gate::Silu => x / (1.0 + (-x).exp()),
            Gate::GeluTanh => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x.powi(3))).tanh()),
        }
    }

    #[test]
    fn gated_products_agree_with_the_reference() {
        let mut random = Random::new(11);
        for (level, kind) in Level::available().into_iter().flat_map(|l| [(l, Gate::Silu), (l, Gate::GeluTanh)]) {
            for (m, n) in [(1, 1), (1, 80), (3, 37), (2, 16), (9, 5000)] {
                let mut gate_up = random.normals(m * 2 * n);
                gate_up[0] = -200.0;
                let mut out = vec![f32::NAN; m * n];
                gated_at(level, kind, (&gate_up, 2 * n, 0), (&gate_up, 2 * n, n), n, &mut out);
                for (row, out) in gate_up.chunks_exact(2 * n).zip(out.chunks_exact(n)) {
                    for (j, found) in out.iter().enumerate() {
                        let (gate, up) = (f64::from(row[j]), f64::from(row[n + j]));
                        let expected = activated(kind, gate) * up;
                        let error = (f64::from(*found) - expected).abs();
                        // The tanh of the reference cancels where the gate is far below zero.
                        assert!(error <= 1e-5 * expected.abs() + 1e-15, "{level:?}: {found} is not {expected}");
                    }
                }
            }
        }
    }
}
