//! Starts the real `atelico-server` and speaks HTTP to it over plain sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]
#![allow(dead_code, unreachable_pub, reason = "each test file uses part of it")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running server; it ends with this value.
pub struct Server {
    child: Child,
    address: String,
}

/// The binary beside this test's: `target/<profile>/atelico-server`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let beside = profile.join(format!("atelico-server{}", std::env::consts::EXE_SUFFIX));
    let binary = std::env::var_os("ATELICO_SERVER_BIN").map_or(beside, PathBuf::from);
    let hint = "build it first with the same profile and features: cargo build -p atelico-server";
    assert!(binary.is_file(), "{} is missing; {hint}", binary.display());
    binary
}

impl Server {
    /// A server of the test checkpoints, on a free port.
    pub fn start() -> Self {
        Self::start_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/llm_dense"))
    }

    /// A server of the models in `cache`.
    pub fn start_in(cache: &Path) -> Self {
        let mut command = Command::new(binary());
        command.args(["--port", "0", "--device", "cpu"]).env("ATELICO_CACHE_DIR", cache).env_remove("RUST_LOG");
        command.env_remove("ATELICO_HOST").env_remove("ATELICO_ALLOWED_HOSTS").env_remove("ATELICO_ALLOWED_ORIGINS");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().rsplit_once("http://").unwrap_or_else(|| panic!("no address in {line:?}")).1.to_owned();
        Self { child, address }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends `bytes` and reads until the server closes the connection.
    pub fn raw(&self, text: &str) -> Answer {
        let mut stream = self.connect();
        let sent = stream.write_all(text.as_bytes());
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        // A server that refuses may close before it has read everything.
        for error in [sent.err(), read.err()].into_iter().flatten() {
            let closed = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
            assert!(closed && !bytes.is_empty(), "{error}");
        }
        Answer::parse(&bytes)
    }

    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.raw(&request(method, path, body))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &body.to_string())
    }

    pub fn signal(&self, name: &str) {
        let killed = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// The exit code; `None` after a crash. Panics when the server is still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < limit, "the server is still running after {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request that asks the server to close the connection afterwards.
pub fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A chat request with `more` fields.
pub fn chat(model: &str, more: Value) -> String {
    let mut body = serde_json::json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request("POST", "/v1/chat/completions", &body.to_string())
}

/// An answer, its chunks joined.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let mut answer = Self { status, headers: lines.filter_map(header).collect(), body: String::new() };
        let chunked = answer.header("transfer-encoding") == Some("chunked");
        answer.body = if chunked { joined(body) } else { body.to_owned() };
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn joined(mut chunked: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunked.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.push_str(&rest[..length]);
        chunked = &rest[length + 2..];
    }
    panic!("the chunked body ends without its last chunk: {body}");
}

/// The data of each event of a stream.
pub fn events(body: &str) -> Vec<String> {
    let data = |event: &str| event.strip_prefix("data: ").map(str::to_owned);
    body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')).map(|e| data(e).unwrap()).collect()
}
