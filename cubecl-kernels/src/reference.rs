//! Plain reference implementations over host slices, in double precision where sums are long.
//!
//! The tests hold the CPU and the CubeCL kernels to these. They state each operation as its
//! definition reads; nothing here is meant to be fast.

mod conv;
mod delta;
mod moe;

pub use conv::causal_conv;
pub use delta::delta_rule;
pub use moe::{expert_linear, moe_gate_row};

use crate::formats::Format;
use crate::ops::{AttentionSpec, GateOrder, GatedNormSpec, IN_PROMPT, KvSource, MambaSpec, RopePairing, RopeSpec};

/// `x wᵀ`; x `[m, cols]`, w `rows` stored rows; returns `[m, rows]`.
pub fn linear(x: &[f32], format: Format, bytes: &[u8], rows: usize, cols: usize) -> Vec<f32> {
    let mut w = vec![0.0; rows * cols];
    format.dequantize(bytes, &mut w);
    x.chunks_exact(cols).flat_map(|x| w.chunks_exact(cols).map(move |w| dot(x, w) as f32).collect::<Vec<_>>()).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `x * rsqrt(mean(x²) + eps) * weight` per row of `weight`'s length.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let norm = |x: &[f32]| {
        let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
        x.iter().zip(weight).map(|(x, w)| (f64::from(*x) * scale) as f32 * w).collect::<Vec<_>>()
    };
    x.chunks_exact(weight.len()).flat_map(norm).collect()
}

/// [`crate::ops::gated_rms_norm`] over rows of `width` elements of x and of `gate_width` of the gate.
pub fn gated_rms_norm(
    x: &[f32],
    width: usize,
    gate: &[f32],
    gate_width: usize,
    weight: &[f32],
    eps: f32,
    spec: &GatedNormSpec,
) -> Vec<f32> {
    let gated = |x: &[f32], gate: &[f32]| {
        x.iter().zip(gate).map(|(x, g)| x * (f64::from(*g) / (1.0 + (-f64::from(*g)).exp())) as f32).collect::<Vec<_>>()
    };
    let n = spec.group_size;
    let row = |(x, gate): (&[f32], &[f32])| {
        let groups =
            x.chunks_exact(n).zip(gate[spec.gate_offset..].chunks_exact(n)).zip(weight.chunks_exact(n).cycle());
        let group = |((x, gate), weight): ((&[f32], &[f32]), &[f32])| match spec.order {
            GateOrder::GateFirst => rms_norm(&gated(x, gate), weight, eps),
            GateOrder::NormFirst => gated(&rms_norm(x, weight, eps), gate),
        };
        groups.flat_map(group).collect::<Vec<_>>()
    };
    x.chunks_exact(width).zip(gate.chunks_exact(gate_width)).flat_map(row).collect()
}

/// `silu(gate) * up` of rows that hold `n` gates and then `n` ups.
pub fn silu_mul(gate_up: &[f32], n: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let (gate, up) = row.split_at(n);
        gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect::<Vec<_>>()
    };
    gate_up.chunks_exact(2 * n).flat_map(row).collect()
}

/// What [`crate::ops::add_value_embeds`] does to one row: gate `[kv_heads, channels]`, embeds
/// `[kv_heads head_dim]`.
pub fn value_embeds_row(qkv: &[f32], x: &[f32], gate: &[f32], kv_heads: usize, embeds: &[f32]) -> Vec<f32> {
    let (channels, head_dim) = (gate.len() / kv_heads, embeds.len() / kv_heads);
    let scale = |head: usize| 2.0 / (1.0 + (-dot(&gate[head * channels..(head + 1) * channels], x)).exp());
    let mut out = qkv.to_vec();
    let values = &mut out[qkv.len() - embeds.len()..];
    for (i, (v, embed)) in values.iter_mut().zip(embeds).enumerate() {
        *v += (scale(i / head_dim) * f64::from(*embed)) as f32;
    }
    out
}

/// `gelu(gate) * up`, the tanh form of GELU.
pub fn gelu_mul(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh());
    gate.iter().zip(up).map(|(g, u)| (gelu(f64::from(*g)) * f64::from(*u)) as f32).collect()
}

/// What [`crate::ops::rope_append`] does to one row; as many elements of a head are rotated as
/// `table_row` has. Returns its prepared queries
/// `[heads head_dim]`, keys and values `[kv_heads head_dim]`.
pub fn rope_row(
    qkv: &[f32],
    q_norm: &[f32],
    k_norm: &[f32],
    table_row: &[f32],
    spec: &RopeSpec,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let d = spec.head_dim;
    let half = table_row.len() / 2;
    let (cos, sin) = table_row.split_at(half);
    let prepare = |head: &[f32], weight: &[f32]| {
        let x = match spec.qk_norm_eps_bits {
            Some(bits) => rms_norm(head, weight, f32::from_bits(bits)),
            None => head.to_vec(),
        };
        let mut y = x.clone();
        for i in 0..half {
            let (a, b) = match spec.pairing {
                RopePairing::Half => (i, i + half),
                RopePairing::Interleaved => (2 * i, 2 * i + 1),
                RopePairing::None => break,
            };
            y[a] = x[a] * cos[i] - x[b] * sin[i];
            y[b] = x[b] * cos[i] + x[a] * sin[i];
        }
        y
    };
    let (q, kv) = qkv.split_at(spec.heads * d);
    let kv = &kv[..spec.kv.parts() * spec.kv_heads * d];
    let (k, v) = kv.split_at(spec.kv_heads * d * usize::from(spec.kv != KvSource::Shared));
    let v = if spec.kv == KvSource::KeysAsValues { k } else { v };
    let v = match spec.qk_norm_eps_bits {
        Some(bits) if spec.kv.norms_values() => rms_norm(v, &vec![1.0; d], f32::from_bits(bits)),
        _ => v.to_vec(),
    };
    let q = q.chunks_exact(d).flat_map(|h| prepare(h, q_norm)).collect();
    let k = k.chunks_exact(d).flat_map(|h| prepare(h, k_norm)).collect();
    (q, k, v)
}

/// Attention of one row at `position`: q `[heads head_dim]`, keys and values of its slot
/// `[kv_heads, capacity, head_dim]`.
pub fn attention_row(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    capacity: usize,
    position: usize,
    spec: &AttentionSpec,
) -> Vec<f32> {
    let d = spec.head_dim;
    let low = spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
    let head = |(h, q): (usize, &[f32])| {
        let base = h / (spec.heads / spec.kv_heads) * capacity;
        let at = |key: usize| (base + key) * d..(base + key + 1) * d;
        let scores = (low..=position).map(|key| dot(q, &k[at(key)]) * f64::from(spec.scale)).collect::<Vec<_>>();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights = scores.iter().map(|s| (s - largest).exp()).collect::<Vec<_>>();
        let total = weights.iter().sum::<f64>();
        (0..d)
            .map(|i| {
                let keys = low..=position;
                let sum = keys.zip(&weights).map(|(key, w)| w * f64::from(v[at(key)][i])).sum::<f64>();
                (sum / total) as f32
            })
            .collect::<Vec<_>>()
    };
    q.chunks_exact(d).enumerate().flat_map(head).collect()
}

/// One token through [`crate::ops::mamba_scan`]: a row of xbc and the time steps of its heads, the
/// parameters `[3, heads]` and the state of its slot, which is advanced; returns y.
pub fn mamba_row(xbc: &[f32], dt: &[f32], parameters: &[f32], state: &mut [f32], spec: &MambaSpec) -> Vec<f32> {
    let MambaSpec { heads, head_dim, groups, state_size, .. } = *spec;
    let (x, bc) = xbc.split_at(spec.inner_size());
    let (b, c) = bc.split_at(groups * state_size);
    let mut y = Vec::with_capacity(x.len());
    for (i, h) in state.chunks_exact_mut(state_size).enumerate() {
        let head = i / head_dim;
        let [a, d, dt_bias] = [0, 1, 2].map(|p| f64::from(parameters[p * heads + head]));
        let step = (f64::from(dt[head]) + dt_bias).exp().ln_1p();
        let of_group = head * groups / heads * state_size..(head * groups / heads + 1) * state_size;
        let mut sum = d * f64::from(x[i]);
        for ((h, b), c) in h.iter_mut().zip(&b[of_group.clone()]).zip(&c[of_group]) {
            let next = (a * step).exp() * f64::from(*h) + step * f64::from(x[i]) * f64::from(*b);
            *h = next as f32;
            sum += next * f64::from(*c);
        }
        y.push(sum as f32);
    }
    y
}

/// A row's sampling parameters, as [`crate::ops::SAMPLE_PARAMS`] lists them.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Sampling {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition: f32,
    pub presence: f32,
    pub frequency: f32,
    pub seed: u64,
}

/// The ids that sampling may choose from, and their logits after penalties, biases and temperature.
pub fn candidates(logits: &[f32], counts: &[i32], bias: &[(usize, f32)], s: &Sampling) -> Vec<(usize, f32)> {
    let mut z = logits
        .iter()
        .zip(counts)
        .map(|(&l, &count)| {
            if count == 0 {
                return l;
            }
            let l = if l > 0.0 { l / s.repetition } else { l * s.repetition };
            match count & (IN_PROMPT - 1) {
                0 => l,
                times => l - (s.presence + times as f32 * s.frequency),
            }
        })
        .collect::<Vec<_>>();
    bias.iter().for_each(|&(id, b)| z[id] += b);
    z.iter_mut().for_each(|z| *z /= s.temperature);
    let mut kept = z.iter().copied().enumerate().collect::<Vec<_>>();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1));
    let largest = kept[0].1;
    if s.top_k > 0 && s.top_k < kept.len() {
        let last = kept[s.top_k - 1].1;
        kept.retain(|k| k.1 >= last);
    }
    if s.top_p < 1.0 {
        let mass = |z: f32| f64::from((z - largest).exp());
        let target = kept.iter().map(|k| mass(k.1)).sum::<f64>() * f64::from(s.top_p);
        let mut sum = 0.0;
        let last = kept.iter().find(|k| {
            sum += mass(k.1);
            sum >= target
        });
        let last = last.map_or(f32::MIN, |k| k.1);
        kept.retain(|k| k.1 >= last);
    }
    if s.min_p > 0.0 {
        kept.retain(|k| k.1 >= largest + s.min_p.ln());
    }
    kept.sort_by_key(|k| k.0);
    kept
}

/// The Gumbel noise of one token at one position.
pub fn gumbel(seed: u64, position: u32, token: u32) -> f32 {
    let mix = |h: u32| {
        let h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        let h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^ (h >> 16)
    };
    let key = mix(seed as u32 ^ mix((seed >> 32) as u32 ^ mix(position)));
    let bits = mix(key ^ mix(token.wrapping_add(0x9e37_79b9)));
    let uniform = ((bits >> 9) as f32 + 0.5) / 8_388_608.0;
    -(-uniform.ln()).ln()
}
