//! Causal convolution over time.

use rayon::prelude::*;

use super::simd::{Kernel, LANES, Level, Simd, Unit, exp};
use crate::ops::{ConvSpec, MAX_TAPS};

/// Outputs from which threads share the rows.
const PARALLEL: usize = 1 << 15;

/// Convolves the rows and writes the windows of their slots. A row whose slot lies outside the
/// state is idle: its output is zeros.
///
/// # Shapes
/// As [`crate::ops::causal_conv`]; x `[m, width]`, out `[m, channels]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn causal_conv(
    x: &[f32],
    width: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    positions: &[i32],
    slots: &[i32],
    window: &mut [f32],
    spec: &ConvSpec,
    out: &mut [f32],
) {
    let ConvSpec { channels, taps, offset, consecutive } = *spec;
    let run = if consecutive { positions.len().max(1) } else { 1 };
    let runs = x.chunks(run * width).zip(out.chunks_mut(run * channels)).zip(positions.iter().zip(slots).step_by(run));
    for ((x, out), (position, slot)) in runs {
        let size = channels * (taps - 1);
        let Some(window) = usize::try_from(*slot).ok().and_then(|slot| window.get_mut(slot * size..(slot + 1) * size))
        else {
            out.fill(0.0);
            continue;
        };
        if *position == 0 {
            window.fill(0.0);
        }
        let before = &*window; // [taps - 1, channels]
        // The input `index - (taps - 1)` rows after the first.
        let input = |index: usize| match index.checked_sub(taps - 1) {
            None => &before[index * channels..][..channels],
            Some(row) => &x[row * width + offset..][..channels],
        };
        let level = Level::best();
        let convolve = |(row, out): (usize, &mut [f32])| {
            let mut inputs: [&[f32]; MAX_TAPS] = [&[]; MAX_TAPS];
            inputs.iter_mut().take(taps).enumerate().for_each(|(tap, from)| *from = input(row + tap));
            level.run(ConvRow { inputs: &inputs[..taps], weights: weight, bias, out });
        };
        if out.len() < PARALLEL {
            out.chunks_exact_mut(channels).enumerate().for_each(convolve);
        } else {
            out.par_chunks_exact_mut(channels).enumerate().for_each(convolve);
        }
        let rows = x.len() / width;
        for tap in 0..taps - 1 {
            match (rows + tap).checked_sub(taps - 1) {
                None => window.copy_within((rows + tap) * channels..(rows + tap + 1) * channels, tap * channels),
                Some(row) => {
                    window[tap * channels..][..channels].copy_from_slice(&x[row * width + offset..][..channels]);
                }
            }
        }
    }
}

/// One row of the convolution: `inputs` holds the row that each tap weighs.
struct ConvRow<'a> {
    inputs: &'a [&'a [f32]],
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Kernel for ConvRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.out.len();
        for (unit, out) in self.out.chunks_mut(LANES).enumerate() {
            let at = unit * LANES;
            let mut sum = self.bias.map_or(simd.splat(0.0), |bias| load(simd, &bias[at..]));
            for (tap, input) in self.inputs.iter().enumerate() {
                let weight = load(simd, &self.weights[tap * channels + at..(tap + 1) * channels]);
                sum = simd.fma(weight, load(simd, &input[at..]), sum);
            }
            let denominator = simd.add(simd.splat(1.0), exp(simd, simd.sub(simd.splat(0.0), sum)));
            let mut silu: Unit = [0.0; LANES];
            simd.store(simd.div(sum, denominator), &mut silu);
            out.copy_from_slice(&silu[..out.len()]);
        }
    }
}

/// Up to sixteen elements of `from`; lanes past its end are zeros.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::F {
    match from.first_chunk::<LANES>() {
        Some(unit) => simd.load(unit),
        None => {
            let mut unit = [0.0; LANES];
            unit[..from.len()].copy_from_slice(from);
            simd.load(&unit)
        }
    }
}
