//! The gated norm against its plain reference, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use atelico_kernels::ops::{self, GateOrder, GatedNormSpec};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, tensor};

#[test]
fn gated_norms_equal_the_reference() {
    each_device(|device, name| {
        for (m, groups, n) in [(1, 1, 1), (1, 8, 512), (3, 4, 33), (5, 2, 128), (2, 3, 700), (4, 2, 64), (150, 8, 64)] {
            for order in [GateOrder::GateFirst, GateOrder::NormFirst] {
                for (weights, gate_offset, after) in [(n, 0, 0), (groups * n, 0, 3), (groups * n, 7, 2)] {
                    let spec = GatedNormSpec { group_size: n, gate_offset, order };
                    let width = groups * n;
                    let gate_width = gate_offset + width + after;
                    let mut noise = Noise(n as u64);
                    let (x, weight) = (noise.floats(m * width), noise.floats(weights));
                    let gate = noise.floats(m * gate_width).iter().map(|g| g * 8.0).collect::<Vec<_>>();
                    let found = ops::gated_rms_norm(
                        tensor(&x, [m, width], device),
                        tensor(&gate, [m, gate_width], device),
                        tensor(&weight, [weights], device),
                        1e-5,
                        spec,
                    );
                    let expected = reference::gated_rms_norm(&x, width, &gate, gate_width, &weight, 1e-5, &spec);
                    close(&format!("{name} {m}x{groups} {spec:?}"), &floats(found), &expected, 1e-5);
                }
            }
        }
    });
}
