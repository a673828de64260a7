//! RMS norm over groups of channels, with a gate.

use rayon::prelude::*;

use super::activation::product;
use super::norm::NormRow;
use super::simd::{Dots, Kernel, LANES, Level, Simd};
use crate::ops::{Gate, GateOrder, GatedNormSpec};

/// Elements from which threads share the rows.
const PARALLEL: usize = 1 << 14;

/// Norms and gates the rows of `x` in place.
///
/// # Shapes
/// x `[m, width]`, gate `[m, gate_width]`, weight `[group_size]` or `[width]`.
pub(crate) fn gated_rms_norm_in_place(
    x: &mut [f32],
    width: usize,
    gate: &[f32],
    gate_width: usize,
    weight: &[f32],
    eps: f32,
    spec: &GatedNormSpec,
) {
    let level = Level::best();
    let n = spec.group_size;
    let row = |(x, gate): (&mut [f32], &[f32])| {
        let gate = &gate[spec.gate_offset..][..width];
        let weights = weight.chunks_exact(n).cycle();
        for ((x, gate), weight) in x.chunks_exact_mut(n).zip(gate.chunks_exact(n)).zip(weights) {
            level.run(GatedNormGroup { x, gate, weight, eps, order: spec.order });
        }
    };
    if x.len() < PARALLEL {
        x.chunks_exact_mut(width).zip(gate.chunks_exact(gate_width)).for_each(row);
    } else {
        x.par_chunks_exact_mut(width).zip(gate.par_chunks_exact(gate_width)).for_each(row);
    }
}

/// Norms and gates one group in place.
struct GatedNormGroup<'a> {
    x: &'a mut [f32],
    gate: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    order: GateOrder,
}

impl Kernel for GatedNormGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Dots>(self, simd: S) {
        let Self { x, gate, weight, eps, order } = self;
        match order {
            GateOrder::GateFirst => {
                apply_gate(simd, x, gate);
                NormRow { x, weight, eps }.run(simd);
            }
            GateOrder::NormFirst => {
                NormRow { x: &mut *x, weight, eps }.run(simd);
                apply_gate(simd, x, gate);
            }
        }
    }
}

/// `x *= silu(gate)`.
#[inline(always)]
fn apply_gate<S: Simd>(simd: S, x: &mut [f32], gate: &[f32]) {
    let (xs, x_rest) = x.as_chunks_mut::<LANES>();
    let (gates, gate_rest) = gate.as_chunks::<LANES>();
    for (x, gate) in xs.iter_mut().zip(gates) {
        simd.store(product(simd, Gate::Silu, gate, x), x);
    }
    let (mut last_x, mut last_gate) = ([0.0; LANES], [0.0; LANES]);
    last_x[..x_rest.len()].copy_from_slice(x_rest);
    last_gate[..gate_rest.len()].copy_from_slice(gate_rest);
    let mut out = [0.0; LANES];
    simd.store(product(simd, Gate::Silu, &last_gate, &last_x), &mut out);
    x_rest.copy_from_slice(&out[..x_rest.len()]);
}

#[cfg(test)]
mod tests {
    use super::GatedNormGroup;
    use crate::flex::simd::Level;
    use crate::flex::test_data::Random;
    use crate::ops::{GateOrder, GatedNormSpec};
    use crate::reference;

    #[test]
    fn every_level_agrees_with_the_reference() {
        let mut random = Random::new(12);
        for order in [GateOrder::GateFirst, GateOrder::NormFirst] {
            for n in [1, 16, 37, 128] {
                let (x, gate, weight) = (random.normals(n), random.normals(n), random.normals(n));
                let spec = GatedNormSpec { group_size: n, gate_offset: 0, order };
                let expected = reference::gated_rms_norm(&x, n, &gate, n, &weight, 1e-5, &spec);
                for level in Level::available() {
                    let mut found = x.clone();
                    level.run(GatedNormGroup { x: &mut found, gate: &gate, weight: &weight, eps: 1e-5, order });
                    for (found, expected) in found.iter().zip(&expected) {
                        assert!(
                            (found - expected).abs() <= 2e-6 * expected.abs().max(1e-3),
                            "{level:?}: {found} is not {expected}"
                        );
                    }
                }
            }
        }
    }
}
