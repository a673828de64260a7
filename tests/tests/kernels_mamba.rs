//! The recurrence of Mamba2 against its plain reference, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::ops::{self, MambaSpec, Precision};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, ints, tensor};
use burn::tensor::{Device, Tensor};

const SLOTS: usize = 3;
const DT_OFFSET: usize = 5;

/// The operands of `tokens` rows, and the state that they find.
struct Layer {
    spec: MambaSpec,
    xbc: Vec<f32>,
    dt: Vec<f32>,
    parameters: Vec<f32>,
    state: Vec<f32>,
}

impl Layer {
    fn new(heads: usize, head_dim: usize, groups: usize, state_size: usize, tokens: usize) -> Self {
        let spec = MambaSpec { heads, head_dim, groups, state_size, dt_offset: DT_OFFSET, consecutive: true };
        let mut noise = Noise((heads * head_dim + tokens) as u64);
        let a = noise.floats(heads).iter().map(|v| -0.1 - v.abs() * 4.0).collect::<Vec<_>>();
        let rest = noise.floats(2 * heads);
        Self {
            spec,
            xbc: noise.floats(tokens * spec.conv_dim()),
            dt: noise.floats(tokens * (DT_OFFSET + heads + 1)).iter().map(|v| v * 6.0).collect(),
            parameters: [a, rest].concat(),
            state: noise.floats(SLOTS * spec.inner_size() * state_size),
        }
    }

    fn dt_width(&self) -> usize {
        DT_OFFSET + self.spec.heads + 1
    }

    fn device_state(&self, device: &Device) -> Tensor<4> {
        let MambaSpec { heads, head_dim, state_size, .. } = self.spec;
        tensor(&self.state, [SLOTS, heads, head_dim, state_size], device)
    }

    /// Runs rows `first..first + positions.len()`.
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        first: usize,
        positions: &[i32],
        slots: &[i32],
        consecutive: bool,
        state: Tensor<4>,
        precision: Precision,
        device: &Device,
    ) -> (Vec<f32>, Tensor<4>) {
        let (m, spec) = (positions.len(), MambaSpec { consecutive, ..self.spec });
        let (width, dt_width) = (spec.conv_dim(), self.dt_width());
        let (y, state) = ops::mamba_scan(
            tensor(&self.xbc[first * width..(first + m) * width], [m, width], device),
            tensor(&self.dt[first * dt_width..(first + m) * dt_width], [m, dt_width], device),
            tensor(&self.parameters, [3, spec.heads], device),
            ints(positions, device),
            ints(slots, device),
            state,
            spec,
            precision,
        );
        (floats(y), state)
    }

    /// What row `row` gives, and the states after it.
    fn reference(&self, row: usize, position: i32, slot: i32, states: &mut [f32]) -> Vec<f32> {
        let (spec, of_slot) = (&self.spec, self.spec.inner_size() * self.spec.state_size);
        let state = &mut states[slot as usize * of_slot..(slot as usize + 1) * of_slot];
        if position == 0 {
            state.fill(0.0);
        }
        let xbc = &self.xbc[row * spec.conv_dim()..][..spec.conv_dim()];
        let dt = &self.dt[row * self.dt_width() + DT_OFFSET..][..spec.heads];
        reference::mamba_row(xbc, dt, &self.parameters, state, spec)
    }
}

/// heads, head_dim, groups, state_size
const SHAPES: [[usize; 4]; 7] =
    [[1, 1, 1, 1], [8, 16, 2, 16], [6, 8, 2, 16], [4, 24, 2, 20], [8, 80, 8, 128], [4, 64, 1, 256], [3, 17, 3, 7]];

/// In the precisions that tensor cores multiply, where a device has them.
#[test]
fn prompts_in_narrow_numbers_stay_near_the_reference() {
    each_device(|device, name| {
        for (precision, bound) in [(Precision::F16, 5e-3), (Precision::BF16, 4e-2)] {
            for [heads, head_dim, groups, state_size] in [[8, 64, 2, 128], [4, 32, 1, 64], [4, 48, 4, 128]] {
                let tokens = 170;
                let layer = Layer::new(heads, head_dim, groups, state_size, tokens);
                for begin in [0, 7] {
                    let mut states = layer.state.clone();
                    let expected = (0..tokens)
                        .flat_map(|t| layer.reference(t, begin + t as i32, 1, &mut states))
                        .collect::<Vec<_>>();
                    for chunk in [tokens, 64, 70] {
                        let mut state = layer.device_state(device);
                        let mut found = Vec::new();
                        for first in (0..tokens).step_by(chunk) {
                            let m = chunk.min(tokens - first);
                            let positions = (0..m).map(|i| begin + (first + i) as i32).collect::<Vec<_>>();
                            let slots = vec![1; m];
                            let (y, after) = layer.run(first, &positions, &slots, true, state, precision, device);
                            found.extend(y);
                            state = after;
                        }
                        let what = format!("{name} {precision:?} {:?} chunk {chunk}", layer.spec);
                        close(&what, &found, &expected, bound);
                        close(&what, &floats(state), &states, bound);
                    }
                }
            }
        }
    });
}

#[test]
fn prompts_in_any_chunks_equal_the_reference() {
    each_device(|device, name| {
        for [heads, head_dim, groups, state_size] in SHAPES {
            let tokens = 21;
            let layer = Layer::new(heads, head_dim, groups, state_size, tokens);
            for begin in [0, 7] {
                let mut states = layer.state.clone();
                let expected =
                    (0..tokens).flat_map(|t| layer.reference(t, begin + t as i32, 1, &mut states)).collect::<Vec<_>>();
                let mut whole = Vec::new();
                for chunk in [tokens, 8, 5, 1] {
                    let mut state = layer.device_state(device);
                    let mut found = Vec::new();
                    for first in (0..tokens).step_by(chunk) {
                        let m = chunk.min(tokens - first);
                        let positions = (0..m).map(|i| begin + (first + i) as i32).collect::<Vec<_>>();
                        let (y, after) = layer.run(first, &positions, &vec![1; m], true, state, Precision::F32, device);
                        found.extend(y);
                        state = after;
                    }
                    let what = format!("{name} {:?} chunk {chunk}", layer.spec);
                    let state = floats(state);
                    close(&what, &found, &expected, 2e-5);
                    close(&what, &state, &states, 2e-5);
                    found.extend(state);
                    if whole.is_empty() {
                        whole = found;
                    } else {
                        close(&format!("{what}: against one chunk"), &found, &whole, 1e-6);
                    }
                }
            }
        }
    });
}

#[test]
fn decode_batches_equal_the_reference() {
    each_device(|device, name| {
        for [heads, head_dim, groups, state_size] in SHAPES {
            let layer = Layer::new(heads, head_dim, groups, state_size, 4);
            for (positions, slots) in [(vec![9, 0, 3], vec![2, 0, 1]), (vec![5], vec![1]), (vec![0, 1], vec![1, 2])] {
                let mut states = layer.state.clone();
                let expected = (0..positions.len())
                    .flat_map(|i| layer.reference(i, positions[i], slots[i], &mut states))
                    .collect::<Vec<_>>();
                let (y, state) =
                    layer.run(0, &positions, &slots, false, layer.device_state(device), Precision::F32, device);
                let what = format!("{name} {:?} {slots:?}", layer.spec);
                close(&what, &y, &expected, 2e-5);
                close(&what, &floats(state), &states, 2e-5);
            }
        }
    });
}
