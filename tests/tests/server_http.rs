//! The server on the wire: what raw sockets see of the real `atelico-server` binary.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server_support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server_support::{Server, chat, events};

#[test]
fn errors_are_json_objects_with_a_request_id() {
    let server = Server::start();
    let cases = [
        ("GET", "/nowhere", "", 404, "unknown_url"),
        ("DELETE", "/v1/models", "", 405, "method_not_allowed"),
        ("GET", "/v1/models/org%2Fnothing", "", 404, "model_not_found"),
        ("GET", "/v1/models/org/nothing", "", 404, "model_not_found"),
        ("GET", "/v1/models/..%2Fsecret", "", 404, "model_not_found"),
        ("GET", "/v1/models/cloud::x", "", 404, "model_not_found"),
        ("POST", "/v1/chat/completions", "{", 400, ""),
        ("POST", "/v1/chat/completions", "[]", 400, ""),
        ("POST", "/v1/chat/completions", "\u{feff}{}", 400, ""),
        ("POST", "/v1/chat/completions", "{}", 400, "invalid_value"),
        (
            "POST",
            "/v1/completions",
            r#"{"model": "mock::", "prompt": "a", "suffix": "b"}"#,
            400,
            "unsupported_parameter",
        ),
        ("POST", "/v1/completions", r#"{"model": "mock::", "prompt": "a", "temperature": 1e400}"#, 400, ""),
    ];
    for (method, path, body, status, code) in cases {
        let answer = server.send(method, path, body);
        let error = &answer.json()["error"];
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{path}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{path}: {error}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{path}: {error}");
        assert_eq!(error["code"].as_str().unwrap_or(""), code, "{path}");
        assert!(!answer.body.contains("fixtures"), "a path of this machine leaked: {}", answer.body);
    }
}

#[test]
fn a_stream_is_framed_as_clients_expect() {
    let server = Server::start();
    let answer = server.post(
        "/v1/chat/completions",
        &json!({
            "model": "mock::", "messages": [{"role": "user", "content": "hi"}], "n": 2, "stream": true,
            "stream_options": {"include_usage": true},
        }),
    );
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
    let events = events(&answer.body);
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
    let chunks: Vec<Value> = chunks.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let firsts: Vec<_> = chunks[..2].iter().map(|chunk| chunk["choices"][0]["index"].as_u64().unwrap()).collect();
    assert_eq!(firsts, [0, 1]);
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 24);
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("error").is_none()));
    for index in 0..2 {
        let of_choice = || chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        assert_eq!(of_choice().filter(|choice| choice["delta"].get("role").is_some()).count(), 1);
        assert_eq!(of_choice().filter(|choice| !choice["finish_reason"].is_null()).count(), 1);
        assert_eq!(of_choice().next_back().unwrap()["finish_reason"], "stop");
    }
}

#[test]
fn an_error_in_mid_stream_ends_it_without_done() {
    let server = Server::start();
    let body = json!({"model": "mock::error", "messages": [{"role": "user", "content": "hi"}], "stream": true});
    let answer = server.post("/v1/chat/completions", &body);
    assert_eq!(answer.status, 200);
    let events = events(&answer.body);
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "server_error");
    assert!(!answer.body.contains("[DONE]"));
}

#[test]
fn the_host_header_must_name_this_machine() {
    let server = Server::start();
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:11434", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.1.2.3", 403),
    ] {
        let answer = server.raw(&format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
        assert_eq!(answer.status, status, "{host}");
    }
    let none = server.raw("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(none.status, 403);
    assert!(none.json()["error"]["message"].as_str().unwrap().contains("--allowed-host"));
}

#[test]
fn only_local_pages_may_read_answers() {
    let server = Server::start();
    let preflight = |origin: &str| {
        server.raw(&format!(
            "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n\
             connection: close\r\n\r\n"
        ))
    };
    let local = preflight("http://localhost:3000");
    assert_eq!(local.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), None);
    // Without a preflight a foreign page can only send what is no JSON.
    let body = r#"{"model": "mock::", "prompt": "a"}"#;
    let plain = server.raw(&format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(plain.status, 415);
}

#[test]
fn what_is_too_large_is_refused_quickly() {
    let server = Server::start();
    let post = |body: &str| server.send("POST", "/v1/chat/completions", body);
    assert_eq!(post(&format!(r#"{{"model": "{}"}}"#, "x".repeat(5 << 20))).status, 413);
    assert_eq!(post(&format!(r#"{{"a": {}"#, "[".repeat(1_000_000))).status, 400);
    let many = json!({"model": "mock::", "messages": vec![json!({"role": "user", "content": "a"}); 100_000]});
    assert_eq!(post(&many.to_string()).json()["error"]["param"], "messages");
    let long_header = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(40 << 10));
    assert_eq!(server.raw(&long_header).status, 431);
    let many_headers = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert_eq!(server.raw(&many_headers).status, 431);
    // Chunked, so that no length is announced.
    let mut chunked = String::from(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n",
    );
    for _ in 0..80 {
        chunked.push_str(&format!("{:x}\r\n{}\r\n", 1 << 16, " ".repeat(1 << 16)));
    }
    chunked.push_str("0\r\n\r\n");
    assert_eq!(server.raw(&chunked).status, 413);
    assert_eq!(server.send("GET", "/health", "").status, 200);
}

#[test]
fn slow_headers_are_cut_off_and_do_not_hold_up_others() {
    let server = Server::start();
    let start = Instant::now();
    let mut slow: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: ").unwrap();
    }
    let asked = Instant::now();
    assert_eq!(server.send("GET", "/health", "").status, 200);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        // Closed, in order or not; the read must not run into its own timeout.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    let took = start.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(18)).contains(&took), "{took:?}");
}

#[test]
fn clients_that_leave_do_no_harm() {
    let server = Server::start();
    let request = chat("mock::slow", json!({"stream": true}));
    for round in 0..300usize {
        let mut stream = server.connect();
        // Cut the request itself at every length, or leave in the midst of the answer.
        let cut = (round * 7) % (request.len() + 40);
        stream.write_all(&request.as_bytes()[..cut.min(request.len())]).unwrap();
        if cut >= request.len() {
            let _ = stream.read(&mut [0; 64]);
        }
    }
    let honest = server.post("/v1/completions", &json!({"model": "mock::", "prompt": "a", "max_tokens": 50}));
    assert_eq!(honest.json()["usage"]["completion_tokens"], 12);
    // Every permit must have come back: as many answers as may run at once start again.
    std::thread::sleep(Duration::from_millis(500));
    let mut streams: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(chat("mock::slow", json!({"stream": true, "n": 8, "max_tokens": 3})).as_bytes()).unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("[DONE]"), "{answer}");
    }
}

#[test]
fn too_many_answers_at_once_are_told_to_come_back() {
    let server = Server::start();
    let slow = chat("mock::slow", json!({"stream": true, "n": 8}));
    let mut streams: Vec<_> = (0..64).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(slow.as_bytes()).unwrap();
        assert!(stream.read(&mut [0; 1]).unwrap() > 0);
    }
    let refused = server.post("/v1/completions", &json!({"model": "mock::", "prompt": "a"}));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    drop(streams);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.post("/v1/completions", &json!({"model": "mock::", "prompt": "a"})).status, 200);
}

#[test]
fn a_signal_lets_running_answers_finish() {
    let mut server = Server::start();
    let mut streams: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(chat("mock::slow", json!({"stream": true, "max_tokens": 40})).as_bytes()).unwrap();
        assert!(stream.read(&mut [0; 1]).unwrap() > 0);
    }
    // An idle connection must not hold up the end.
    let _idle = server.connect();
    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert!(std::net::TcpStream::connect(server.address()).is_err(), "a connection was accepted while draining");
    for stream in &mut streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.trim_end_matches(['\r', '\n', '0']).ends_with("data: [DONE]"), "{rest}");
    }
    assert_eq!(server.wait(Duration::from_secs(15)), Some(0));
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut server = Server::start();
    let mut stream = server.connect();
    stream.write_all(chat("mock::slow", json!({"stream": true})).as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 1]).unwrap() > 0);
    server.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    server.signal("INT");
    assert_eq!(server.wait(Duration::from_secs(3)), Some(130));
}

#[test]
fn an_answer_longer_than_the_drain_ends_with_an_error() {
    let mut server = Server::start();
    let mut stream = server.connect();
    let request = chat("mock::slow", json!({"stream": true, "max_tokens": 5000}));
    stream.write_all(request.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    assert!(stream.read(&mut [0; 1]).unwrap() > 0);
    let start = Instant::now();
    server.signal("TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("shutting down") && !rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.wait(Duration::from_secs(5)), Some(0));
    assert!(start.elapsed() < Duration::from_secs(31));
}

#[test]
fn a_damaged_checkpoint_is_an_error_object_and_no_crash() {
    let cache = std::env::temp_dir().join(format!("atelico-damaged-{}", std::process::id()));
    let folder = cache.join("damaged");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"architectures": ["LlamaForCausalLM"]}"#).unwrap();
    std::fs::write(folder.join("model.safetensors"), b"\xff\xff\xff\xff\xff\xff\xff\xff{").unwrap();
    let server = Server::start_in(&cache);
    for _ in 0..3 {
        let answer = server.post("/v1/completions", &json!({"model": "damaged", "prompt": "a"}));
        assert_eq!((answer.status, answer.header("x-should-retry")), (500, Some("false")), "{answer:?}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "model_load_failed");
        assert!(!error["message"].as_str().unwrap().contains("atelico-damaged"), "{error}");
    }
    assert_eq!(server.send("GET", "/health/ready", "").status, 200);
    std::fs::remove_dir_all(cache).unwrap();
}

#[test]
fn a_prompt_that_begins_like_an_earlier_one_is_not_computed_anew() {
    let server = Server::start();
    let complete = |prompt: &[u32], extra: &Value| {
        let mut body =
            json!({"model": "llama_a", "prompt": prompt, "max_tokens": 4, "temperature": 0, "ignore_eos": true});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = server.post("/v1/completions", &body).json();
        let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert_eq!(answer["usage"]["prompt_tokens"], prompt.len(), "{answer}");
        if answer["choices"].as_array().unwrap().len() == 1 {
            assert_eq!(answer["timings"]["cache_n"], cached, "{answer}");
            assert_eq!(answer["timings"]["prompt_n"], prompt.len() as u64 - cached, "{answer}");
        }
        (cached, answer["choices"][0]["text"].clone())
    };
    let prompt = (5..45).collect::<Vec<_>>();
    let longer = (5..60).collect::<Vec<_>>();
    let (cached, _) = complete(&prompt, &json!({}));
    assert_eq!(cached, 0);
    let (cached, text) = complete(&longer, &json!({}));
    assert_eq!(cached, 40);
    let (cached, anew) = complete(&longer, &json!({"cache_prompt": false}));
    assert_eq!((cached, anew), (0, text));
    // The prompt counts once, however many answers it gets.
    let (cached, _) = complete(&longer, &json!({"n": 2}));
    assert_eq!(cached, 54);
}
