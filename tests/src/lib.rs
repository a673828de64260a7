//! What the tests share: the fixtures and the devices to run them on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod kernels;

use std::path::{Path, PathBuf};

use atelico_engine::device::DeviceSpec;
use serde_json::Value;

/// The folder of the fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A tiny checkpoint and what the reference implementation computes with it.
#[derive(Debug)]
pub struct Case {
    /// Name of its folder.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// `golden.json`.
    pub golden: Value,
}

impl Case {
    /// Spread of the logits after the prompt, to measure differences by.
    pub fn spread(&self) -> f32 {
        let stated = ["logits_std", "logits_last_std"].iter().find_map(|key| self.golden[key].as_f64());
        stated.unwrap_or_else(|| panic!("{}: no spread", self.name)) as f32
    }
}

/// All language-model fixtures, in order of their names: those of the repository, and those below the
/// folder that `ATELICO_TEST_FIXTURES` names. `ATELICO_TEST_CASES` keeps those whose names begin with
/// one of its comma-separated words.
pub fn language_model_cases() -> Vec<Case> {
    let mut roots = vec![fixtures().join("llm_dense"), fixtures().join("llm_hybrid")];
    roots.extend(std::env::var_os("ATELICO_TEST_FIXTURES").map(PathBuf::from));
    let mut cases = roots
        .iter()
        .flat_map(|root| std::fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display())))
        .map(|entry| {
            let folder = entry.unwrap().path();
            let golden = std::fs::read_to_string(folder.join("golden.json")).unwrap();
            let golden = serde_json::from_str(&golden).unwrap();
            Case { name: folder.file_name().unwrap().to_string_lossy().into_owned(), folder, golden }
        })
        .collect::<Vec<_>>();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases.dedup_by(|a, b| a.name == b.name);
    if let Ok(kept) = std::env::var("ATELICO_TEST_CASES") {
        cases.retain(|case| kept.split(',').any(|word| case.name.starts_with(word)));
    }
    assert!(!cases.is_empty());
    cases
}

/// The integers of a JSON list.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// The devices that tests run on: the CPU, and what `ATELICO_TEST_DEVICES` names (comma-separated)
/// or else every kind that is compiled in but CUDA. A device that is named or compiled in but not
/// present fails the test.
pub fn devices() -> Vec<DeviceSpec> {
    let named = std::env::var("ATELICO_TEST_DEVICES").unwrap_or_else(|_| {
        let mut names = vec!["cpu"];
        names.extend(cfg!(feature = "vulkan").then_some("vulkan"));
        names.extend(cfg!(feature = "metal").then_some("metal"));
        names.extend(cfg!(feature = "webgpu").then_some("webgpu"));
        names.join(",")
    });
    named.split(',').map(|name| name.parse().unwrap()).collect()
}
