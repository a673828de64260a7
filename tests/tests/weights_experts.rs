//! Experts and the one that all tokens share, from each way that checkpoints spell them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use atelico_engine::arithmetic::CacheType;
use atelico_engine::load::{Placement, Weights};
use atelico_engine::weights::Checkpoint;
use atelico_kernels::formats::Format;
use atelico_kernels::ops::{self, Activation, MoeGatingSpec, MoeScores, Precision};
use atelico_kernels::reference;
use atelico_tests::kernels::{Noise, close, each_device, floats, tensor};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

const COUNT: usize = 3;
const TOP_K: usize = 2;
const HIDDEN: usize = 32;
const WIDTH: usize = 8;

/// Gate and up of every expert, the shared one last, `[COUNT + 1, 2 WIDTH, HIDDEN]`, in bfloat16.
fn gates_and_ups(noise: &mut Noise) -> Vec<u8> {
    noise.blocks(Format::BF16, (COUNT + 1) * 2 * WIDTH * HIDDEN)
}

/// Writes `all` with the experts stacked, or in tensors of their own; `apart` is the shared one's type.
fn write(folder: &Path, all: &[u8], stacked: bool, apart: Dtype) {
    let (matrix, row) = (WIDTH * HIDDEN * 2, vec![WIDTH, HIDDEN]);
    let (experts, shared) = all.split_at(COUNT * 2 * matrix);
    let mut tensors = Vec::new();
    if stacked {
        let shape = vec![COUNT, 2 * WIDTH, HIDDEN];
        tensors.push(("experts.gate_up_proj".to_owned(), TensorView::new(Dtype::BF16, shape, experts).unwrap()));
    } else {
        for (e, halves) in experts.chunks_exact(2 * matrix).enumerate() {
            for (name, bytes) in ["gate_proj", "up_proj"].into_iter().zip(halves.chunks_exact(matrix)) {
                let view = TensorView::new(Dtype::BF16, row.clone(), bytes).unwrap();
                tensors.push((format!("experts.{e}.{name}.weight"), view));
            }
        }
    }
    for (name, bytes) in ["gate_proj", "up_proj"].into_iter().zip(shared.chunks_exact(matrix)) {
        tensors.push((format!("shared.{name}.weight"), TensorView::new(apart, row.clone(), bytes).unwrap()));
    }
    serialize_to_file(tensors, None, &folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
}

#[test]
fn a_shared_expert_stored_as_the_others_becomes_the_last() {
    each_device(|device, name| {
        for (stacked, apart) in [(true, Dtype::BF16), (false, Dtype::BF16), (true, Dtype::F16), (false, Dtype::F16)] {
            let what = format!("{name}, stacked: {stacked}, the shared one in {apart:?}");
            let mut noise = Noise(7);
            let all = gates_and_ups(&mut noise);
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &all, stacked, apart);
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            let placement = Placement {
                device: device.clone(),
                precision: Precision::F32,
                cache: CacheType::F32,
                context: 1,
                slots: 1,
                prefill_chunk: 1,
            };
            let weights = Weights::new(&checkpoint, &placement, None);
            let (experts, shared) = (weights.at("experts"), weights.at("shared"));
            let parts = [("gate_proj", WIDTH), ("up_proj", WIDTH)];
            let takes = experts.experts_take("gate_up_proj", &parts, COUNT, HIDDEN, &shared).unwrap();
            // A CPU keeps it apart.
            assert_eq!(takes, apart == Dtype::BF16 && !ops::is_cpu(device), "{what}");
            let shared = takes.then_some(&shared);
            let loaded = experts.experts("gate_up_proj", &parts, COUNT, HIDDEN, shared).unwrap();

            let gating = MoeGatingSpec {
                experts: COUNT,
                top_k: TOP_K,
                shared: takes,
                scores: MoeScores::Softmax,
                groups: 1,
                top_groups: 1,
                normalize: true,
                scale: 1.0,
            };
            // Few rows, and as many as are grouped by expert.
            for m in [2, 20] {
                let logits = tensor(&noise.floats(m * gating.logits()), [m, gating.logits()], device);
                let route = ops::moe_gate(logits, None, None, gating);
                let ids = route.ids.clone().into_data().try_to_vec::<i32>().unwrap();
                assert_eq!(ids.contains(&(COUNT as i32)), takes, "{what}");
                let x = noise.floats(m * HIDDEN);
                let found = loaded.forward(&tensor(&x, [m, HIDDEN], device), None, &route, Activation::SwiGlu);
                let product = ids.iter().enumerate().flat_map(|(choice, id)| {
                    let x = &x[choice / gating.taken() * HIDDEN..][..HIDDEN];
                    reference::expert_linear(x, Format::BF16, &all, 2 * WIDTH, HIDDEN, *id as usize)
                });
                let product = product.collect::<Vec<_>>();
                close(&what, &floats(found), &reference::silu_mul(&product, WIDTH), 1e-4);
            }
        }
    });
}
