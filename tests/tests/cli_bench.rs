//! `atelico bench`: the shape of its report and that its figures belong together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;

use cli_support::run_on_cpu;
use serde_json::Value;

fn bench(args: &[&str]) -> Value {
    run_on_cpu(&[&["bench", "--format", "json"], args].concat()).json()
}

#[test]
fn reports_both_parts() {
    let report = bench(&["llama_a", "-p", "48", "-n", "12", "-r", "3"]);
    assert_eq!(report["model"], "llama_a");
    assert_eq!(report["device"], "cpu");
    assert_eq!(report["architecture"], "llama");
    assert!(report["load_ms"].as_f64().unwrap() > 0.0);
    let results = report["results"].as_array().unwrap();
    let tests: Vec<_> = results.iter().map(|result| result["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp48", "tg12"]);
    for result in results {
        let samples: Vec<_> =
            result["samples"].as_array().unwrap().iter().map(|sample| sample.as_f64().unwrap()).collect();
        assert_eq!(samples.len(), 3);
        assert!(samples.iter().all(|sample| sample.is_finite() && *sample > 0.0), "{samples:?}");
        let mean = samples.iter().sum::<f64>() / 3.0;
        assert!((result["tokens_per_second"].as_f64().unwrap() / mean - 1.0).abs() < 1e-9);
    }
    // llama_a is tied: every weight is read for every token.
    assert_eq!(report["bytes_read_per_token"], report["weight_bytes"]);
    assert!(report["memory_bandwidth_gb_s"].as_f64().unwrap() > 0.1);
    assert_eq!(report["memory_bandwidth_of"], "read");
    assert!(results[0]["bandwidth_share"].is_null());
    assert!(results[1]["bandwidth_share"].as_f64().unwrap() > 0.0);
    assert!(report["first_token_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn zero_skips_a_part() {
    let tests = |args: &[&str]| {
        let report = bench(&[&["qwen3_a", "-r", "1"], args].concat());
        report["results"].as_array().unwrap().iter().map(|result| result["test"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(tests(&["-p", "0", "-n", "4"]), ["tg4"]);
    assert_eq!(tests(&["-p", "8", "-n", "0"]), ["pp8"]);
}

#[test]
fn text_shows_spread_and_bandwidth() {
    let text = run_on_cpu(&["bench", "gguf_llama_q4_0", "-p", "16", "-n", "8", "-r", "2"]).ok();
    let line = |test: &str| text.lines().find(|line| line.starts_with(test)).unwrap().to_owned();
    assert!(line("pp16").contains(" ± "), "{text}");
    assert!(line("tg8").contains(" GB/s") && line("tg8").contains(" % of "), "{text}");
}

#[test]
fn what_does_not_fit_the_context_is_refused() {
    let run = run_on_cpu(&["bench", "llama_a", "-p", "64", "-n", "0", "--context", "32"]);
    assert!(run.error(1).contains("32"));
}

/// The second start finds what the first has compiled, also beside other processes; a damaged or
/// unwritable cache is done without.
#[cfg(feature = "vulkan")]
#[test]
fn compiled_kernels_are_kept_from_run_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |folder: &std::path::Path| {
        let args = ["bench", "qwen3_a", "--device", "vulkan", "-p", "8", "-n", "2", "-r", "1", "--format", "json"];
        cli_support::atelico(&args).env("ATELICO_KERNEL_CACHE_DIR", folder).output().unwrap()
    };
    let state = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["kernel_cache"].clone()
    };
    assert_eq!(state(bench(folder.path())), "cold");
    assert_eq!(state(bench(folder.path())), "warm");
    std::thread::scope(|scope| {
        let runs = [(); 3].map(|()| scope.spawn(|| state(bench(folder.path()))));
        assert!(runs.into_iter().all(|run| run.join().unwrap() == "warm"));
    });
    for file in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::write(file.unwrap().path(), b"not a database").unwrap();
    }
    state(bench(folder.path()));
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    state(bench(&file));
}

/// A kernel that is compiled for the length of a prompt would make nearly every prompt wait for the compiler.
#[cfg(feature = "vulkan")]
#[test]
fn prompts_of_about_the_same_length_share_their_kernels() {
    let hybrid = |name: &str| cli_support::fixtures().join("../llm_hybrid").join(name).display().to_string();
    let hybrids = ["qwen35_gguf_q4_k_m", "nemotron3_moe_gguf_q4_k_m"].map(hybrid);
    for model in ["qwen3_a", "gguf_llama_q4_k_m"].map(str::to_owned).into_iter().chain(hybrids) {
        let folder = tempfile::tempdir().unwrap();
        let size_after = |tokens: &str| {
            let args = ["bench", &model, "--device", "vulkan", "-p", tokens, "-n", "0", "-r", "1", "--context", "256"];
            let run = cli_support::atelico(&args).env("ATELICO_KERNEL_CACHE_DIR", folder.path()).output().unwrap();
            assert!(run.status.success(), "{model}: {}", String::from_utf8_lossy(&run.stderr));
            let files = std::fs::read_dir(folder.path()).unwrap();
            files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>()
        };
        let first = size_after("66");
        for tokens in ["67", "70"] {
            assert_eq!(size_after(tokens), first, "{model}: kernels compiled for a prompt of {tokens} tokens");
        }
    }
}
