//! Drives the real `atelico` binary over the fixtures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The folder of test checkpoints, which serves as the model cache.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/llm_dense")
}

/// The names of all test checkpoints.
pub(crate) fn cases() -> Vec<String> {
    let mut cases: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "fixtures are missing: {cases:?}");
    cases
}

/// What the reference implementation made of a checkpoint.
pub(crate) fn golden(case: &str) -> Value {
    let text = std::fs::read_to_string(fixtures().join(case).join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A golden array as the `--prompt-ids` option takes it.
pub(crate) fn joined(ids: &Value) -> String {
    ids.as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join(",")
}

/// The binary beside this test's: `target/<profile>/atelico`.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let binary = profile.join(format!("atelico{}", std::env::consts::EXE_SUFFIX));
    let hint = "build it first with the same profile and features: cargo build -p atelico-cli";
    assert!(binary.is_file(), "{} is missing; {hint}", binary.display());
    binary
}

/// `atelico` with `args`, the fixtures as its cache and no other settings from outside.
pub(crate) fn atelico(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env("ATELICO_CACHE_DIR", fixtures()).stdin(Stdio::null());
    for variable in ["ATELICO_DEVICE", "ATELICO_PRECISION", "ATELICO_KV_CACHE", "RUST_LOG"] {
        command.env_remove(variable);
    }
    // Without one, the windowing library that Vulkan loads complains on standard error.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Standard output of a run that must have gone well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard output of a run that must have gone well, as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The message of a run that must have failed with `code`: one line on standard error, nothing
    /// on standard output, no trace of a panic.
    pub(crate) fn error(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        assert!(self.stderr.starts_with("error: ") && !self.stderr.contains("panicked"), "{self:?}");
        if code != 2 {
            assert_eq!(self.stderr.trim_end().lines().count(), 1, "{self:?}");
        }
        self.stderr
    }
}

/// Runs `command` to its end with `input` on standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read its input is no failure of the test.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    finished(child.wait_with_output().unwrap())
}

/// Runs `atelico` with `args` to its end.
pub(crate) fn run(args: &[&str]) -> Run {
    finished(atelico(args).output().unwrap())
}

/// [`run`] on the CPU.
pub(crate) fn run_on_cpu(args: &[&str]) -> Run {
    finished(atelico(args).args(["--device", "cpu"]).output().unwrap())
}

/// Collects what a process left behind.
pub(crate) fn finished(output: std::process::Output) -> Run {
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
