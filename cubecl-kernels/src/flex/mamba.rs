//! The selective state-space recurrence of Mamba2, a task a head.

use super::linear::cut;
use super::pool;
use super::simd::{Kernel, LANES, Level, Simd};
use crate::ops::MambaSpec;

/// State elements times tokens from which threads share the heads.
const PARALLEL: usize = 1 << 16;

/// Tokens whose B and C stay in the processor's first cache while a head's rows pass over them.
const TOKENS: usize = 16;

/// Advances the state by the rows' tokens. A row whose slot lies outside the state is idle: its
/// output is zeros.
///
/// # Shapes
/// As [`crate::ops::mamba_scan`]; y `[m, heads head_dim]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn mamba_scan(
    xbc: &[f32],
    dt: &[f32],
    dt_width: usize,
    parameters: &[f32],
    positions: &[i32],
    slots: &[i32],
    state: &mut [f32],
    spec: &MambaSpec,
    y: &mut [f32],
) {
    let level = Level::best();
    let MambaSpec { heads, head_dim, state_size, .. } = *spec;
    let (of_slot, of_head) = (heads * head_dim * state_size, head_dim * state_size);
    let rows = positions.len();
    let run = if spec.consecutive { rows } else { 1 };
    for first in (0..rows).step_by(run.max(1)) {
        let state =
            usize::try_from(slots[first]).ok().and_then(|slot| state.get_mut(slot * of_slot..(slot + 1) * of_slot));
        let Some(state) = state else { continue };
        let rows = y[first * spec.inner_size()..][..run * spec.inner_size()].chunks_exact_mut(spec.inner_size());
        let mut tasks: Vec<_> = state.chunks_exact_mut(of_head).zip(cut(rows.collect(), head_dim)).collect();
        let most = if of_slot * run < PARALLEL { 1 } else { usize::MAX };
        pool::for_each_on(most, &mut tasks, |head, (state, y)| {
            if positions[first] == 0 {
                state.fill(0.0);
            }
            level.run(Head {
                xbc: &xbc[first * spec.conv_dim()..][..run * spec.conv_dim()],
                dt: &dt[first * dt_width..][..run * dt_width],
                dt_width,
                parameters: [parameters[head], parameters[heads + head], parameters[2 * heads + head]],
                head,
                spec,
                state,
                y,
            });
        });
    }
}

/// One head over the tokens of one slot.
struct Head<'a, 'b> {
    /// `[tokens, conv_dim]`
    xbc: &'a [f32],
    /// `[tokens, dt_width]`
    dt: &'a [f32],
    dt_width: usize,
    /// A, D and dt_bias.
    parameters: [f32; 3],
    head: usize,
    spec: &'a MambaSpec,
    /// `[head_dim, state_size]`
    state: &'a mut [f32],
    /// `[tokens, head_dim]`
    y: &'a mut [&'b mut [f32]],
}

impl Kernel for Head<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { xbc, dt, dt_width, parameters: [a, d, dt_bias], head, spec, state, y } = self;
        let MambaSpec { heads, head_dim, groups, state_size, .. } = *spec;
        let b_at = spec.inner_size() + head * groups / heads * state_size;
        let c_at = b_at + groups * state_size;
        let tiles = xbc.chunks(TOKENS * spec.conv_dim()).zip(dt.chunks(TOKENS * dt_width));
        for ((xbc, dt), y) in tiles.zip(y.chunks_mut(TOKENS)) {
            let (mut steps, mut decays) = ([0.0; TOKENS], [0.0; TOKENS]);
            for ((dt, step), decay) in dt.chunks_exact(dt_width).zip(&mut steps).zip(&mut decays) {
                *step = softplus(dt[spec.dt_offset + head] + dt_bias);
                *decay = (a * *step).exp();
            }
            for (p, h) in state.chunks_exact_mut(state_size).enumerate() {
                for (token, xbc) in xbc.chunks_exact(spec.conv_dim()).enumerate() {
                    let x = xbc[head * head_dim + p];
                    let (b, c) = (&xbc[b_at..][..state_size], &xbc[c_at..][..state_size]);
                    y[token][p] = advance(simd, h, b, c, decays[token], steps[token] * x) + d * x;
                }
            }
        }
    }
}

/// `h = decay h + input b`; returns `h · c`.
#[inline(always)]
fn advance<S: Simd>(simd: S, h: &mut [f32], b: &[f32], c: &[f32], decay: f32, input: f32) -> f32 {
    let (hs, h_rest) = h.as_chunks_mut::<LANES>();
    let ((bs, b_rest), (cs, c_rest)) = (b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    let (decays, inputs) = (simd.splat(decay), simd.splat(input));
    let mut sum = simd.splat(0.0);
    for ((h, b), c) in hs.iter_mut().zip(bs).zip(cs) {
        let next = simd.fma(inputs, simd.load(b), simd.mul(decays, simd.load(h)));
        simd.store(next, h);
        sum = simd.fma(next, simd.load(c), sum);
    }
    let mut total = simd.sum(sum);
    for ((h, b), c) in h_rest.iter_mut().zip(b_rest).zip(c_rest) {
        *h = *h * decay + input * b;
        total += *h * c;
    }
    total
}

/// `ln(1 + exp(x))`, without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{advance, softplus};
    use crate::flex::simd::{Kernel, Level, Simd};
    use crate::flex::test_data::Random;

    struct Advance<'a>(&'a mut [f32], &'a [f32], &'a [f32], f32, f32);

    impl Kernel for Advance<'_> {
        type Output = f32;

        fn run<S: Simd>(self, simd: S) -> f32 {
            advance(simd, self.0, self.1, self.2, self.3, self.4)
        }
    }

    #[test]
    fn every_level_advances_alike() {
        let mut random = Random::new(13);
        for n in [1, 16, 37, 128] {
            let (h, b, c) = (random.normals(n), random.normals(n), random.normals(n));
            let next = h.iter().zip(&b).map(|(h, b)| 0.9 * h + 0.3 * b).collect::<Vec<_>>();
            let expected = next.iter().zip(&c).map(|(h, c)| f64::from(*h) * f64::from(*c)).sum::<f64>();
            for level in Level::available() {
                let mut found = h.clone();
                let sum = level.run(Advance(&mut found, &b, &c, 0.9, 0.3));
                assert!((f64::from(sum) - expected).abs() < 1e-5, "{level:?}: {sum} is not {expected}");
                assert!(found.iter().zip(&next).all(|(a, b)| (a - b).abs() < 1e-6), "{level:?}");
            }
        }
    }

    #[test]
    fn softplus_holds_at_both_ends() {
        assert_eq!(softplus(200.0), 200.0);
        assert!((softplus(-20.0) - (-20.0f32).exp()).abs() < 1e-15);
        assert!((softplus(0.0) - 2.0f32.ln()).abs() < 1e-7);
        assert_eq!(softplus(-200.0), 0.0);
    }
}
