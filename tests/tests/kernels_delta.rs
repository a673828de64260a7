//! The gated delta rule against its plain reference, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::panic)]

use atelico_kernels::ops::{self, DeltaSpec, Precision};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, ints, tensor};
use burn::tensor::{Device, Tensor};

const SLOTS: usize = 3;

/// Layers of different shapes: one key head for each value head or several value heads to one, in
/// both orders.
fn shapes() -> impl Iterator<Item = DeltaSpec> {
    let shapes = [
        (1, 1, 4, 1, false),
        (2, 4, 16, 16, false),
        (2, 4, 16, 16, true),
        (1, 3, 128, 40, true),
        (2, 2, 256, 33, false),
        (2, 4, 128, 48, false),
        (1, 2, 64, 32, true),
        (2, 4, 128, 128, true),
        (1, 2, 256, 64, false),
    ];
    shapes.into_iter().map(|(key_heads, value_heads, key_dim, value_dim, tiled)| DeltaSpec {
        key_heads,
        value_heads,
        key_dim,
        value_dim,
        tiled,
        a_offset: 3,
        b_offset: 3 + value_heads,
        consecutive: true,
    })
}

/// The rows' inputs and the layer's parameters.
struct Layer {
    spec: DeltaSpec,
    gate_width: usize,
    a: Vec<f32>,
    dt_bias: Vec<f32>,
}

impl Layer {
    fn new(spec: DeltaSpec, noise: &mut Noise) -> Self {
        let a = noise.floats(spec.value_heads).iter().map(|x| -x.abs()).collect();
        let gate_width = spec.b_offset + spec.value_heads + 1;
        Self { spec, gate_width, a, dt_bias: noise.floats(spec.value_heads) }
    }

    fn reference(&self, qkv: &[f32], gates: &[f32], state: &mut [f64]) -> Vec<f32> {
        reference::delta_rule(qkv, gates, self.gate_width, &self.a, &self.dt_bias, state, &self.spec)
    }

    fn run(
        &self,
        (qkv, gates): (&[f32], &[f32]),
        (positions, slots): (&[i32], &[i32]),
        state: Tensor<4>,
        precision: Precision,
        device: &Device,
    ) -> (Vec<f32>, Tensor<4>) {
        let m = positions.len();
        let (out, state) = ops::delta_rule(
            tensor(qkv, [m, self.spec.width()], device),
            tensor(gates, [m, self.gate_width], device),
            tensor(&self.a, [self.a.len()], device),
            tensor(&self.dt_bias, [self.dt_bias.len()], device),
            ints(positions, device),
            ints(slots, device),
            state,
            self.spec,
            precision,
        );
        (floats(out), state)
    }
}

fn inputs(noise: &mut Noise, rows: usize, layer: &Layer) -> (Vec<f32>, Vec<f32>) {
    let gates = noise.floats(rows * layer.gate_width).iter().map(|x| x * 4.0).collect();
    (noise.floats(rows * layer.spec.width()), gates)
}

fn narrowed(state: &[f64]) -> Vec<f32> {
    state.iter().map(|&s| s as f32).collect()
}

/// A prompt in chunks of any size, into a slot that held another sequence: row by row in float32, and in the
/// precisions that tensor cores multiply, where a device has them.
#[test]
fn chunks_of_a_prompt_follow_the_rule() {
    each_device(|device, name| {
        for (precision, bound) in [(Precision::F32, 1e-5), (Precision::F16, 5e-3), (Precision::BF16, 4e-2)] {
            for spec in shapes() {
                let mut noise = Noise(9);
                let layer = Layer::new(spec, &mut noise);
                let size = spec.value_heads * spec.key_dim * spec.value_dim;
                let held = noise.floats(SLOTS * size);
                let mut states = tensor(&held, [SLOTS, spec.value_heads, spec.key_dim, spec.value_dim], device);
                let mut state = vec![0.0; size];
                let mut position = 0;
                for rows in [1, 3, 8, 70, 1, 128, 150] {
                    let what = format!("{name} {precision:?}: {spec:?}, {rows} rows from {position}");
                    let (qkv, gates) = inputs(&mut noise, rows, &layer);
                    let expected = layer.reference(&qkv, &gates, &mut state);
                    let positions = (position..position + rows as i32).collect::<Vec<_>>();
                    let slots = vec![1; rows];
                    let (found, written) = layer.run((&qkv, &gates), (&positions, &slots), states, precision, device);
                    close(&what, &found, &expected, bound);
                    let now = floats(written.clone());
                    assert_eq!(now[..size], held[..size], "{what}: another slot was written");
                    close(&what, &now[size..2 * size], &narrowed(&state), bound);
                    assert_eq!(now[2 * size..], held[2 * size..], "{what}: another slot was written");
                    states = written;
                    position += rows as i32;
                }
            }
        }
    });
}

/// Rows of different slots, some of which begin anew.
#[test]
fn rows_of_a_batch_follow_the_rule() {
    each_device(|device, name| {
        for spec in shapes() {
            let spec = DeltaSpec { consecutive: false, ..spec };
            let mut noise = Noise(5);
            let layer = Layer::new(spec, &mut noise);
            let size = spec.value_heads * spec.key_dim * spec.value_dim;
            let held = noise.floats(SLOTS * size);
            let (slots, positions) = ([2, 0], [7, 0]);
            let (qkv, gates) = inputs(&mut noise, slots.len(), &layer);
            let state = tensor(&held, [SLOTS, spec.value_heads, spec.key_dim, spec.value_dim], device);
            let (found, written) = layer.run((&qkv, &gates), (&positions, &slots), state, Precision::F32, device);
            let mut states = held.iter().map(|&s| f64::from(s)).collect::<Vec<_>>();
            let mut expected = Vec::new();
            let rows = qkv.chunks(spec.width()).zip(gates.chunks(layer.gate_width));
            for ((qkv, gates), (slot, position)) in rows.zip(slots.into_iter().zip(positions)) {
                let state = &mut states[slot as usize * size..][..size];
                if position == 0 {
                    state.fill(0.0);
                }
                expected.extend(layer.reference(qkv, gates, state));
            }
            let what = format!("{name}: {spec:?}");
            close(&what, &found, &expected, 1e-5);
            close(&what, &floats(written), &narrowed(&states), 1e-5);
        }
    });
}
