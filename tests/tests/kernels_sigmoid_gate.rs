//! The sigmoid gate against its definition, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::panic)]

use atelico_kernels::ops::{self, GateScope};
use atelico_tests::kernels::{Noise, close, each_device, floats, tensor};

#[test]
fn gates_scale_elements_and_rows() {
    each_device(|device, name| {
        for (m, width, offset, rest) in [(1, 1, 0, 0), (3, 70, 5, 2), (2, 256, 512, 0)] {
            for scope in [GateScope::Element, GateScope::Row] {
                let gates = if scope == GateScope::Row { 1 } else { width };
                let gate_width = offset + gates + rest;
                let mut noise = Noise(width as u64);
                let x = noise.floats(m * width);
                let gate = noise.floats(m * gate_width).iter().map(|v| v * 12.0).collect::<Vec<_>>();
                let expected = (0..m * width).map(|i| {
                    let g = gate[i / width * gate_width + offset + i % width % gates];
                    x[i] / (1.0 + (-g).exp())
                });
                let found = ops::sigmoid_gate(
                    tensor(&x, [m, width], device),
                    tensor(&gate, [m, gate_width], device),
                    offset,
                    scope,
                );
                close(
                    &format!("{name}: {m} x {width}, {scope:?}"),
                    &floats(found),
                    &expected.collect::<Vec<_>>(),
                    1e-6,
                );
            }
        }
    });
}
