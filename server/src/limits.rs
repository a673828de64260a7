//! The server's limits, and the request body read within them.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Bytes of a request's line and headers.
pub(crate) const HEADER_BYTES: usize = 32 * 1024;
/// Header fields of a request.
pub(crate) const HEADER_COUNT: usize = 100;
/// A connection that has not sent a whole header by then is closed.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a JSON body.
pub(crate) const BODY_BYTES: usize = 4 * 1024 * 1024;
/// A body must have come by then.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// What a client sends beyond [`BODY_BYTES`] is read and dropped for so long.
const OVERSIZE_GRACE: Duration = Duration::from_millis(500);
/// A connection whose peer takes no bytes for so long is closed.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Nesting of a JSON body.
pub(crate) const JSON_DEPTH: usize = 64;
/// Open connections, all peers together; more wait to be accepted.
pub(crate) const CONNECTIONS: usize = 1024;
/// Open connections of one address other than loopback.
pub(crate) const CONNECTIONS_PER_ADDRESS: usize = 64;
/// Generations running or waiting.
pub(crate) const GENERATIONS: usize = 512;
/// Seconds after which a client that was refused for load may try again.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 1;
/// Time between comments in a stream that has nothing to say.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A stream whose model is still loading begins (and keeps its client alive) after this; errors
/// found before it have a status of their own.
pub(crate) const STREAM_START: Duration = Duration::from_secs(20);
/// After a signal, answers still running then are ended with an error.
pub(crate) const DRAIN_ANSWERS: Duration = Duration::from_secs(27);
/// After a signal, the server exits by then.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// Messages of a chat request.
pub(crate) const MESSAGES: usize = 2048;
/// Choices per prompt.
pub(crate) const CHOICES: u64 = 8;
/// Prompts of a completion request.
pub(crate) const PROMPTS: usize = 16;
/// Stop strings of a request.
pub(crate) const STOP_STRINGS: usize = 4;
/// Bytes of one stop string.
pub(crate) const STOP_STRING_BYTES: usize = 256;
/// Rival tokens reported with each token.
pub(crate) const TOP_LOGPROBS: u64 = 20;
/// Tokens of an answer when the request names no limit.
pub(crate) const DEFAULT_MAX_TOKENS: usize = 32_768;

/// Reads a body that must be a JSON object.
pub(crate) async fn read_json(headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, ApiError> {
    // Besides being correct, this makes browsers ask before they send (a CORS preflight).
    if !is_json(headers) {
        return Err(ApiError::unsupported_media_type());
    }
    let bytes = tokio::time::timeout(BODY_TIMEOUT, read_body(body)).await;
    let bytes = bytes.map_err(|_| ApiError::body_timeout(BODY_TIMEOUT))??;
    parse_object(&bytes)
}

fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if nesting(bytes) > JSON_DEPTH {
        return Err(ApiError::invalid_request(format!("the JSON body is nested more than {JSON_DEPTH} deep")));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::invalid_request("the JSON body must be an object")),
        Err(error) => Err(ApiError::invalid_request(format!("the body is not valid JSON: {error}"))),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let media_type = value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// The bytes of `body`, at most [`BODY_BYTES`].
async fn read_body(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::invalid_request("the request body did not arrive whole"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES {
            drop(bytes);
            // A client that still writes when the connection closes would not see the answer.
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(OVERSIZE_GRACE, rest).await;
            return Err(ApiError::body_too_large(BODY_BYTES));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The deepest nesting of arrays and objects in JSON text, without parsing it.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for &byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_brackets_outside_strings() {
        assert_eq!(nesting(br#"{"a": ["[[[\"[[", {"b": 1}], "c": []}"#), 3);
        assert_eq!(nesting(b"]]]}}}"), 0);
    }

    #[test]
    fn deep_json_is_refused_before_it_is_parsed() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(63), "]".repeat(63));
        assert!(parse_object(deep.as_bytes()).is_ok());
        let deeper = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert!(parse_object(deeper.as_bytes()).unwrap_err().to_string().contains("64 deep"));
        assert!(parse_object(&b"[".repeat(1_000_000)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_times_out() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        let start = tokio::time::Instant::now();
        let never = Body::from_stream(futures_util::stream::pending::<Result<&[u8], std::io::Error>>());
        assert!(read_json(&headers, never).await.unwrap_err().to_string().contains("30 s"));
        assert_eq!(start.elapsed(), BODY_TIMEOUT);
        let large = Body::from(vec![b' '; BODY_BYTES + 1]);
        assert!(read_json(&headers, large).await.unwrap_err().to_string().contains("exceeds"));
        assert!(read_json(&headers, Body::from("{\"a\": 1}")).await.is_ok());
    }

    #[test]
    fn only_json_media_types_pass() {
        let media = |value: &'static str| HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
        assert!(is_json(&media("application/json")));
        assert!(is_json(&media("Application/JSON; charset=utf-8")));
        assert!(!is_json(&media("text/plain")));
        assert!(!is_json(&HeaderMap::new()));
    }
}
