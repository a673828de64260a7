//! Causal convolution.

use crate::ops::ConvSpec;

/// What [`crate::ops::causal_conv`] does to neighbouring rows of one slot: x `[rows, width]`, window
/// `[taps - 1, channels]`, which is updated; returns `[rows, channels]`.
pub fn causal_conv(
    x: &[f32],
    width: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    window: &mut [f32],
    spec: &ConvSpec,
) -> Vec<f32> {
    let ConvSpec { channels, taps, offset, .. } = *spec;
    let rows = x.len() / width;
    let mut out = vec![0.0; rows * channels];
    for c in 0..channels {
        let mut inputs = window.iter().copied().skip(c).step_by(channels).collect::<Vec<_>>();
        inputs.extend((0..rows).map(|row| x[row * width + offset + c]));
        for row in 0..rows {
            let weights = weight.iter().skip(c).step_by(channels);
            let products = inputs[row..row + taps].iter().zip(weights).map(|(x, w)| x * w);
            let sum = bias.map_or(0.0, |b| b[c]) + products.sum::<f32>();
            out[row * channels + c] = sum / (1.0 + (-sum).exp());
        }
        for (held, input) in window.iter_mut().skip(c).step_by(channels).zip(&inputs[rows..]) {
            *held = *input;
        }
    }
    out
}
