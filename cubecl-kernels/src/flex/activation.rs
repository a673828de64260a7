//! Gated activations.

use rayon::prelude::*;

use super::simd::{Kernel, LANES, Level, Simd, Unit, exp};
use crate::ops::GateScope;

/// Elements of a task.
const TASK: usize = 1 << 14;

/// `out[i][j] = silu(gate_up[i][j]) * gate_up[i][n + j]`.
///
/// # Shapes
/// gate_up `[m, 2 n]`, out `[m, n]`.
pub(crate) fn silu_mul(gate_up: &[f32], n: usize, out: &mut [f32]) {
    silu_mul_at(Level::best(), gate_up, n, out);
}

fn silu_mul_at(level: Level, gate_up: &[f32], n: usize, out: &mut [f32]) {
    if n == 0 {
        return;
    }
    let row = |(gate_up, out): (&[f32], &mut [f32])| {
        let (gate, up) = gate_up.split_at(n);
        level.run(SiluMul { gate, up, out });
    };
    let rows = TASK.div_ceil(n);
    if out.len() <= TASK {
        gate_up.chunks_exact(2 * n).zip(out.chunks_exact_mut(n)).for_each(row);
    } else {
        gate_up.par_chunks_exact(2 * n).zip(out.par_chunks_exact_mut(n)).with_min_len(rows).for_each(row);
    }
}

/// `x = max(x, 0)²`.
pub(crate) fn relu_squared_in_place(x: &mut [f32]) {
    // Plain loops of this kind become vectors by themselves.
    let square = |x: &mut [f32]| {
        for x in x {
            let kept = x.max(0.0);
            *x = kept * kept;
        }
    };
    if x.len() <= TASK { square(x) } else { x.par_chunks_mut(TASK).for_each(square) }
}

struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (gates, gate_rest) = self.gate.as_chunks::<LANES>();
        let (ups, up_rest) = self.up.as_chunks::<LANES>();
        let (outs, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            simd.store(silu_times(simd, gate, up), out);
        }
        let (mut gate, mut up, mut out) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        gate[..gate_rest.len()].copy_from_slice(gate_rest);
        up[..up_rest.len()].copy_from_slice(up_rest);
        simd.store(silu_times(simd, &gate, &up), &mut out);
        out_rest.copy_from_slice(&out[..out_rest.len()]);
    }
}

/// `silu(gate) * up`.
#[inline(always)]
pub(super) fn silu_times<S: Simd>(simd: S, gate: &Unit, up: &Unit) -> S::F {
    let gate = simd.load(gate);
    let denominator = simd.add(simd.splat(1.0), exp(simd, simd.sub(simd.splat(0.0), gate)));
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

#[cfg(test)]
mod tests {
    use super::silu_mul_at;
    use crate::flex::simd::Level;
    use crate::flex::test_data::Random;

    #[test]
    fn silu_mul_agrees_with_the_reference() {
        let mut random = Random::new(11);
        for level in Level::available() {
            for (m, n) in [(1, 1), (1, 80), (3, 37), (2, 16), (9, 5000)] {
                let mut gate_up = random.normals(m * 2 * n);
                gate_up[0] = -200.0;
                let mut out = vec![f32::NAN; m * n];
                silu_mul_at(level, &gate_up, n, &mut out);
                for (row, out) in gate_up.chunks_exact(2 * n).zip(out.chunks_exact(n)) {
                    for (j, found) in out.iter().enumerate() {
                        let (gate, up) = (f64::from(row[j]), f64::from(row[n + j]));
                        let expected = gate / (1.0 + (-gate).exp()) * up;
                        let error = (f64::from(*found) - expected).abs();
                        assert!(error <= 1e-6 * expected.abs() + 1e-30, "{level:?}: {found} is not {expected}");
                    }
                }
            }
        }
    }
}
