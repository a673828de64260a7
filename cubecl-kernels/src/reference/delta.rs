//! The gated delta rule.

use crate::ops::DeltaSpec;

/// What [`crate::ops::delta_rule`] does to neighbouring rows of one slot: qkv `[rows, spec.width()]`,
/// gates `[rows, gate_width]`, state `[value_heads, key_dim, value_dim]`, which is updated; returns
/// `[rows, value_heads value_dim]`.
pub fn delta_rule(
    qkv: &[f32],
    gates: &[f32],
    gate_width: usize,
    a: &[f32],
    dt_bias: &[f32],
    state: &mut [f64],
    spec: &DeltaSpec,
) -> Vec<f32> {
    let DeltaSpec { key_heads, value_heads, key_dim, value_dim, tiled, .. } = *spec;
    let mut out = Vec::new();
    for (row, gates) in qkv.chunks_exact(spec.width()).zip(gates.chunks_exact(gate_width)) {
        let (queries, rest) = row.split_at(key_heads * key_dim);
        let (keys, values) = rest.split_at(key_heads * key_dim);
        for h in 0..value_heads {
            let state = &mut state[h * key_dim * value_dim..][..key_dim * value_dim];
            let key_head = if tiled { h % key_heads } else { h / (value_heads / key_heads) };
            let unit = |from: &[f32]| {
                let x = from[key_head * key_dim..][..key_dim].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                x.into_iter().map(|x| x / length).collect::<Vec<_>>()
            };
            let (q, k) = (unit(queries), unit(keys));
            let v = &values[h * value_dim..][..value_dim];
            let dt = f64::from(gates[spec.a_offset + h] + dt_bias[h]);
            let decay = (f64::from(a[h]) * (1.0 + dt.exp()).ln()).exp();
            let beta = 1.0 / (1.0 + (-f64::from(gates[spec.b_offset + h])).exp());
            for (j, v) in v.iter().enumerate() {
                let column = || (j..state.len()).step_by(value_dim);
                let mut cells = column().map(|at| state[at] * decay).collect::<Vec<_>>();
                let read = cells.iter().zip(&k).map(|(s, k)| s * k).sum::<f64>();
                let delta = beta * (f64::from(*v) - read);
                cells.iter_mut().zip(&k).for_each(|(s, k)| *s += k * delta);
                let sum = cells.iter().zip(&q).map(|(s, q)| s * q).sum::<f64>();
                out.push((sum * (key_dim as f64).powf(-0.5)) as f32);
                column().zip(cells).for_each(|(at, s)| state[at] = s);
            }
        }
    }
    out
}
