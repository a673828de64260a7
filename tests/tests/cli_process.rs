//! How `atelico` behaves as a process: exit codes, messages, pipes, signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;

use std::io::Read;
use std::process::{Child, Stdio};

use cli_support::{atelico, finished, fixtures, run, run_on_cpu};

const COMMANDS: [&str; 7] = ["generate", "chat", "serve", "models", "inspect", "bench", "completions"];

#[test]
fn every_command_explains_itself_with_examples() {
    let help = run(&["--help"]).ok();
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let help = run(&[command, "--help"]).ok();
        let examples = help.split("Examples:").nth(1).unwrap_or_else(|| panic!("`{command}` has no examples"));
        assert!(examples.contains("atelico"), "{command}");
    }
    assert!(run(&["--version"]).ok().starts_with("atelico "));
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&["completions", shell]).ok();
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
    assert!(run(&["completions", "cmd.exe"]).error(2).contains("bash"));
}

#[test]
fn wrong_usage_exits_2() {
    for args in
        [&[][..], &["nonsense"], &["generate", "--nonsense"], &["bench", "-p", "0", "-n", "0"], &["inspect", "a", "b"]]
    {
        let run = run(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
    }
    let terminal = run(&["generate", "llama_a", "--temperature"]);
    assert!(terminal.error(2).contains("--temperature"));
}

#[test]
fn models_that_are_not_there_are_named_with_the_next_step() {
    for command in ["generate", "chat", "bench"] {
        let message = run(&[command, "no/such-model"]).error(1);
        assert!(message.contains("`no/such-model`") && message.contains("atelico models"), "{message}");
        assert!(message.contains(fixtures().to_str().unwrap()), "{message}");
    }
    for id in ["../llm_dense/llama_a", "/etc", "llama_a/../llama_a", "a\\..\\b", "CON", ""] {
        // Those that exist as paths are tried as checkpoints and fail as such.
        let message = run(&["bench", id]).error(1);
        assert!(!message.is_empty(), "{id:?}");
    }
}

#[test]
fn devices_that_are_not_there_are_refused_with_those_that_are() {
    let message = run(&["generate", "llama_a", "-p", "x", "--device", "abacus"]).error(2);
    assert!(message.contains("abacus") && message.contains("cpu"), "{message}");
    for device in ["cuda:97", "vulkan:97"] {
        let message = run(&["generate", "llama_a", "-p", "x", "--device", device]).error(1);
        assert!(message.contains(device) && message.contains("cpu"), "{message}");
    }
    let output = atelico(&["generate", "llama_a", "-p", "x"]).env("ATELICO_DEVICE", "abacus").output().unwrap();
    assert!(finished(output).error(2).contains("abacus"));
}

#[test]
fn logs_go_to_standard_error_as_rust_log_says() {
    let args = ["generate", "llama_a", "-p", "x", "--max-tokens", "2", "--format", "json", "--device", "cpu"];
    let quiet = finished(atelico(&args).output().unwrap());
    assert_eq!(quiet.stderr, "", "no bar, no log without a terminal");
    let loud = finished(atelico(&args).env("RUST_LOG", "trace").output().unwrap());
    loud.json();
    let wrong = finished(atelico(&["models"]).env("RUST_LOG", "a=b=c").output().unwrap());
    assert!(wrong.error(2).contains("RUST_LOG"));
}

#[test]
fn odd_environments_do_no_harm() {
    for (name, value) in
        [("COLUMNS", "0"), ("LC_ALL", "C"), ("TERM", "dumb"), ("NO_COLOR", "1"), ("HOME", "/proc/none")]
    {
        for args in [&["generate", "--help"][..], &["models"], &["generate", "llama_a", "-p", "é", "--max-tokens", "2"]]
        {
            let run = finished(atelico(args).env(name, value).output().unwrap());
            assert_eq!(run.code, Some(0), "{name}={value} {args:?}: {run:?}");
        }
    }
}

#[test]
fn without_a_model_the_built_in_one_answers() {
    let run = run_on_cpu(&["generate", "-p", "Once upon a time", "--max-tokens", "16", "--temperature", "0"]);
    let text = run.ok();
    assert!(text.split_whitespace().count() > 3, "{text:?}");
    assert!(text.chars().filter(|c| c.is_ascii_alphabetic()).count() * 2 > text.len(), "{text:?}");
}

/// A generation that goes on for seconds.
fn long_generation() -> Child {
    let args = ["generate", "smollm2_a", "-p", "On", "--ignore-eos", "--max-tokens", "1900", "--device", "cpu"];
    atelico(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_closed_pipe_ends_the_generation_silently() {
    let mut child = long_generation();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap();
    drop(stdout);
    let run = finished(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[cfg(unix)]
mod unix {
    use std::process::Command;

    use super::*;

    fn interrupt(child: &Child) {
        let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn ctrl_c_stops_a_generation_with_130() {
        let mut child = long_generation();
        let mut stdout = child.stdout.take().unwrap();
        let mut text = vec![0; 8];
        stdout.read_exact(&mut text).unwrap();
        interrupt(&child);
        stdout.read_to_end(&mut text).unwrap();
        let run = finished(child.wait_with_output().unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (Some(130), ""));
        assert!(text.ends_with(b"\n"), "the line is ended");
    }

    #[test]
    fn closed_standard_streams_do_no_harm() {
        let binary = cli_support::binary();
        for redirections in [">&-", "2>&-", "<&-", ">&- 2>&- <&-"] {
            let script = format!("'{}' models {redirections}", binary.display());
            let status =
                Command::new("sh").args(["-c", &script]).env("ATELICO_CACHE_DIR", fixtures()).output().unwrap().status;
            assert_eq!(status.code(), Some(0), "{redirections}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        if !std::path::Path::new("/dev/full").exists() {
            return;
        }
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = finished(atelico(&["models"]).stdout(full).output().unwrap());
        assert!(run.error(1).contains("standard output"));
    }
}
