//! The causal convolution against its plain reference, over odd shapes, on every device.
#![allow(clippy::unwrap_used, clippy::panic)]

use atelico_kernels::ops::{self, ConvSpec};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, ints, tensor};

const SLOTS: usize = 3;

/// A prompt in chunks of any size, into a slot that held another sequence.
#[test]
fn chunks_of_a_prompt_are_convolved() {
    each_device(|device, name| {
        for (channels, taps, offset, rest, bias) in
            [(1, 2, 0, 0, true), (70, 4, 5, 3, false), (64, 8, 0, 9, true), (129, 3, 1, 0, false)]
        {
            let spec = ConvSpec { channels, taps, offset, consecutive: true };
            let (width, size) = (offset + channels + rest, channels * (taps - 1));
            let mut noise = Noise(channels as u64);
            let (weight, bias) = (noise.floats(channels * taps), bias.then(|| noise.floats(channels)));
            let held = noise.floats(SLOTS * size);
            let mut windows = tensor(&held, [SLOTS, taps - 1, channels], device);
            let mut window = vec![0.0; size];
            let mut position = 0;
            for rows in [1, 2, 40, 1, 16, 5] {
                let what = format!("{name}: {spec:?}, {rows} rows from {position}");
                let x = noise.floats(rows * width);
                let expected = reference::causal_conv(&x, width, &weight, bias.as_deref(), &mut window, &spec);
                let positions = (position..position + rows as i32).collect::<Vec<_>>();
                let (found, written) = ops::causal_conv(
                    tensor(&x, [rows, width], device),
                    tensor(&weight, [taps, channels], device),
                    bias.as_ref().map(|b| tensor(b, [channels], device)),
                    ints(&positions, device),
                    ints(&vec![1; rows], device),
                    windows,
                    spec,
                );
                close(&what, &floats(found), &expected, 1e-5);
                let now = floats(written.clone());
                assert_eq!(now[..size], held[..size], "{what}: another slot was written");
                assert_eq!(now[size..2 * size], window, "{what}: the window");
                assert_eq!(now[2 * size..], held[2 * size..], "{what}: another slot was written");
                windows = written;
                position += rows as i32;
            }
        }
    });
}

/// Rows of different slots, some of which begin anew.
#[test]
fn rows_of_a_batch_are_convolved() {
    each_device(|device, name| {
        for (channels, taps, offset) in [(3, 2, 1), (200, 4, 0), (65, 8, 7)] {
            let spec = ConvSpec { channels, taps, offset, consecutive: false };
            let (width, size) = (offset + channels, channels * (taps - 1));
            let mut noise = Noise(taps as u64);
            let (weight, bias) = (noise.floats(channels * taps), noise.floats(channels));
            let (slots, positions) = ([2, 0], [7, 0]);
            let mut held = noise.floats(SLOTS * size);
            let x = noise.floats(slots.len() * width);
            let (found, written) = ops::causal_conv(
                tensor(&x, [slots.len(), width], device),
                tensor(&weight, [taps, channels], device),
                Some(tensor(&bias, [channels], device)),
                ints(&positions, device),
                ints(&slots, device),
                tensor(&held, [SLOTS, taps - 1, channels], device),
                spec,
            );
            let mut expected = Vec::new();
            for ((x, slot), position) in x.chunks(width).zip(slots).zip(positions) {
                let window = &mut held[slot as usize * size..][..size];
                if position == 0 {
                    window.fill(0.0);
                }
                expected.extend(reference::causal_conv(x, width, &weight, Some(&bias), window, &spec));
            }
            let what = format!("{name}: {spec:?}");
            close(&what, &floats(found), &expected, 1e-5);
            assert_eq!(floats(written), held, "{what}: the windows");
        }
    });
}
