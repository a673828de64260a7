//! Errors: why the server can't run ([`ServerError`]) and what a client is told ([`ApiError`]).

use std::net::SocketAddr;
use std::time::Duration;

use atelico_engine::Error;
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::limits;

/// Why the server did not start or did not end in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}{hint}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
        /// What the user may do about it; begins with a separator when not empty.
        hint: String,
    },
    /// The signals that end the server can't be caught.
    #[error("can't catch signals: {0}")]
    Signals(std::io::Error),
    /// An allowed host or origin is malformed.
    #[error("`{value}` is no {expected}")]
    Argument {
        /// What was given.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The model cache or the device can't be used.
    #[error(transparent)]
    Engine(#[from] Error),
    /// A second signal came while the server drained.
    #[error("interrupted")]
    Interrupted,
}

/// An error as a client sees it: OpenAI's error object and its status.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// The prompt's tokens and the context's, when the one exceeds the other.
    context: Option<(usize, usize)>,
    /// The client may try again soon.
    retry_later: bool,
    /// Clients retry errors of 500 and above unless told that it can't help.
    doomed: bool,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            context: None,
            retry_later: false,
            doomed: false,
        }
    }

    fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    fn param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    fn doomed(self) -> Self {
        Self { doomed: true, ..self }
    }

    /// A request that can't be understood as a whole.
    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A parameter with a wrong value; `problem` follows its name.
    pub(crate) fn invalid_param(param: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self::invalid_request(format!("`{param}` {problem}")).code("invalid_value").param(param)
    }

    /// A documented parameter that this server does not support; `detail` follows its name.
    pub(crate) fn unsupported_param(param: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self::invalid_request(format!("`{param}` {detail}")).code("unsupported_parameter").param(param)
    }

    /// No model has this name.
    pub(crate) fn model_not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message).code("model_not_found").param("model")
    }

    /// A model of the cache did not load.
    pub(crate) fn load_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message).code("model_load_failed").doomed()
    }

    pub(crate) fn context_exceeded(prompt_tokens: usize, context: usize) -> Self {
        let message = format!(
            "the request exceeds the available context size: the prompt holds {prompt_tokens} tokens, the context \
             {context} (prompt and answer); shorten the prompt"
        );
        let error = Self::invalid_request(message).code("context_length_exceeded");
        Self { context: Some((prompt_tokens, context)), ..error }
    }

    /// Too much work waits already.
    pub(crate) fn overloaded(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).code("queue_full");
        Self { retry_later: true, ..error }
    }

    /// The server is ending.
    pub(crate) fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "the server is shutting down")
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    pub(crate) fn unknown_route(method: &str, path: &str) -> Self {
        let message = format!("there is no {method} {path}");
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message).code("unknown_url")
    }

    pub(crate) fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).code("method_not_allowed")
    }

    pub(crate) fn forbidden_host(host: Option<&str>) -> Self {
        let host = host.map_or_else(|| "none".into(), |host| format!("{host:?}"));
        let message =
            format!("the Host header ({host}) is not one that this server answers to; --allowed-host adds names");
        Self::new(StatusCode::FORBIDDEN, "permission_error", message).code("host_not_allowed")
    }

    pub(crate) fn unsupported_media_type() -> Self {
        let message = "the request needs the header `content-type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body exceeds {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    pub(crate) fn body_timeout(limit: Duration) -> Self {
        let message = format!("the request body did not arrive within {} s", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// Logs the error if it is the server's and not the client's.
    pub(crate) fn log(&self) {
        if self.status.is_server_error() {
            tracing::error!(code = self.code, "{self}");
        }
    }

    /// The error as a body or as an event of a stream that has begun.
    pub(crate) fn body(&self) -> Value {
        let mut error = Map::new();
        error.insert("message".into(), self.message.clone().into());
        error.insert("type".into(), self.kind.into());
        error.insert("param".into(), self.param.clone().into());
        error.insert("code".into(), self.code.into());
        if let Some((prompt_tokens, context)) = self.context {
            error.insert("n_prompt_tokens".into(), prompt_tokens.into());
            error.insert("n_ctx".into(), context.into());
        }
        json!({ "error": error })
    }
}

/// How a request that reached a loaded model fails.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match &error {
            Error::ContextExceeded { prompt_tokens, context } => Self::context_exceeded(*prompt_tokens, *context),
            Error::Parameter { name, problem } => Self::invalid_param(*name, problem),
            Error::QueueFull { .. } => Self::overloaded(error.to_string()),
            Error::Model { .. } => Self::model_not_found(error.to_string()),
            // The template speaks about the messages: an unknown role, a broken alternation.
            Error::Template(_) => Self::invalid_request(error.to_string()).param("messages"),
            Error::Tokenizer(_) => Self::invalid_request(error.to_string()),
            Error::Stopped => {
                let kind = "service_unavailable";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, error.to_string()).code("engine_stopped").doomed()
            }
            Error::NonFinite { .. } => Self::internal(error.to_string()).code("non_finite_logits").doomed(),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if self.retry_later {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER_SECONDS));
        }
        if self.doomed {
            headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        }
        response
    }
}
