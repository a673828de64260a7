//! Caches of eight bits: what a prompt and decode steps write and read, against plain attention over
//! the rounded keys and values, on every device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::ops::{self, AttentionSpec, KvSource, Q8_BLOCK, RopePairing, RopeSpec};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, ints, tensor};
use burn::tensor::{Device, Tensor};

const SLOTS: usize = 3;
const CAPACITY: usize = 67;

/// Slot and position.
type Row = (usize, usize);

/// A layer, its inputs, and the keys and values that a plain cache would hold.
struct Layer {
    rope: RopeSpec,
    attention: AttentionSpec,
    width: usize,
    q_norm: Vec<f32>,
    k_norm: Vec<f32>,
    table: Vec<f32>,
    noise: Noise,
    /// `[slots, kv_heads, capacity, head_dim]`, rounded.
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Layer {
    fn new(heads: usize, kv_heads: usize, d: usize, pairing: RopePairing, window: Option<usize>) -> Self {
        let mut noise = Noise(d as u64);
        let eps = (d != 64).then(|| 1e-5f32.to_bits());
        Self {
            rope: RopeSpec { heads, kv_heads, head_dim: d, pairing, qk_norm_eps_bits: eps, kv: KvSource::Projected },
            attention: AttentionSpec {
                heads,
                kv_heads,
                head_dim: d,
                scale: (d as f32).powf(-0.5),
                window,
                consecutive: false,
                narrow: false,
            },
            width: (heads + 2 * kv_heads) * d,
            q_norm: noise.floats(d),
            k_norm: noise.floats(d),
            table: noise.floats(CAPACITY * d),
            keys: vec![0.0; SLOTS * kv_heads * CAPACITY * d],
            values: vec![0.0; SLOTS * kv_heads * CAPACITY * d],
            noise,
        }
    }

    /// Rows `(slot, position)` of random inputs, and what they should give.
    fn rows(&mut self, rows: &[Row]) -> (Vec<f32>, Vec<f32>) {
        let (d, kv_heads) = (self.rope.head_dim, self.rope.kv_heads);
        let qkv = self.noise.floats(rows.len() * self.width).iter().map(|v| v * 2.0).collect::<Vec<_>>();
        let mut expected = Vec::new();
        for (&(slot, position), qkv) in rows.iter().zip(qkv.chunks(self.width)) {
            let table = &self.table[position * d..][..d];
            let (q, k, v) = reference::rope_row(qkv, &self.q_norm, &self.k_norm, table, &self.rope);
            for head in 0..kv_heads {
                let at = ((slot * kv_heads + head) * CAPACITY + position) * d;
                self.keys[at..at + d].copy_from_slice(&rounded(&k[head * d..][..d]));
                self.values[at..at + d].copy_from_slice(&rounded(&v[head * d..][..d]));
            }
            let of_slot = slot * kv_heads * CAPACITY * d..(slot + 1) * kv_heads * CAPACITY * d;
            let (k, v) = (&self.keys[of_slot.clone()], &self.values[of_slot]);
            expected.extend(reference::attention_row(&q, k, v, CAPACITY, position, &self.attention));
        }
        (qkv, expected)
    }

    /// Runs rows on the device; returns the heads' outputs and the caches.
    fn run(
        &self,
        qkv: &[f32],
        rows: &[Row],
        consecutive: bool,
        [k, v]: [Tensor<4>; 2],
        device: &Device,
    ) -> (Vec<f32>, [Tensor<4>; 2]) {
        let d = self.rope.head_dim;
        let positions = rows.iter().map(|row| row.1 as i32).collect::<Vec<_>>();
        let slots = rows.iter().map(|row| row.0 as i32).collect::<Vec<_>>();
        let (out, k, v) = ops::rope_attention(
            tensor(qkv, [rows.len(), self.width], device),
            tensor(&self.q_norm, [d], device),
            tensor(&self.k_norm, [d], device),
            tensor(&self.table, [CAPACITY, d], device),
            ints(&positions, device),
            ints(&slots, device),
            k,
            v,
            ints(&vec![0; rows.len() * self.rope.heads], device),
            self.rope,
            AttentionSpec { consecutive, ..self.attention },
            None,
        );
        (floats(out), [k, v])
    }
}

/// What eight bits leave of the values.
fn rounded(values: &[f32]) -> Vec<f32> {
    let block = |block: &[f32]| {
        let scale = block.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
        block.iter().map(|v| if scale > 0.0 { (v / scale).round() * scale } else { 0.0 }).collect::<Vec<_>>()
    };
    values.chunks(Q8_BLOCK).flat_map(block).collect()
}

#[test]
fn a_prompt_and_its_answer_are_remembered_in_eight_bits() {
    each_device(|device, name| {
        for (heads, kv_heads, d, pairing, window) in [
            (4, 2, 32, RopePairing::Half, None),
            (8, 2, 64, RopePairing::Interleaved, None),
            (3, 3, 96, RopePairing::None, Some(9)),
            (16, 2, 128, RopePairing::Half, None),
            (4, 1, 256, RopePairing::Half, Some(20)),
        ] {
            let mut layer = Layer::new(heads, kv_heads, d, pairing, window);
            let shape = [SLOTS, kv_heads, CAPACITY, ops::q8_width(d).unwrap()];
            let mut caches = [(); 2].map(|()| tensor(&vec![0.0; shape.iter().product()], shape, device));
            let prompt = (0..40).map(|position| (1, position)).collect::<Vec<_>>();
            // A decode kernel may use what it writes before it is rounded: half of 1/127.
            let steps: [(&[Row], bool, f32); 4] = [
                (&prompt, true, 2e-3),
                (&[(1, 40), (2, 0)], false, 1e-2),
                (&[(1, 41), (2, 1)], false, 1e-2),
                (&[(1, 42)], false, 1e-2),
            ];
            for (rows, consecutive, bound) in steps {
                let (qkv, expected) = layer.rows(rows);
                let (found, written) = layer.run(&qkv, rows, consecutive, caches, device);
                caches = written;
                close(&format!("{name}: {:?}, rows {rows:?}", layer.rope), &found, &expected, bound);
            }
        }
    });
}

#[test]
fn heads_that_do_not_divide_have_no_width() {
    assert_eq!(ops::q8_width(80), None);
    assert_eq!(ops::q8_width(128), Some(36));
}
