//! The endpoints, and what those that generate share.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod health;
pub(crate) mod models;

use std::future::Future;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use crate::error::ApiError;
use crate::limits;
use crate::sse;

/// A running answer that can be sent in chunks or as a whole.
pub(crate) trait Answer: Send + Sized + 'static {
    /// The next chunk as JSON text; `None` after the last.
    fn next_chunk(&mut self) -> impl Future<Output = Option<Result<String, ApiError>>> + Send;

    /// The whole answer as JSON text, once it has ended.
    fn fold(self) -> impl Future<Output = Result<String, ApiError>> + Send;
}

/// Answers with what `start` starts: as a stream or, once it is complete, as a whole.
pub(crate) async fn respond<A: Answer>(
    start: impl Future<Output = Result<A, ApiError>> + Send + 'static,
    stream: bool,
) -> Result<Response, ApiError> {
    if !stream {
        let body = start.await?.fold().await?;
        return Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response());
    }
    let mut start = Box::pin(start);
    let chunks = match tokio::time::timeout(limits::STREAM_START, &mut start).await {
        Ok(answer) => Either::Left(chunks(answer?)),
        // The model is still loading. Headers now: clients give up on a server that sends none.
        Err(_) => Either::Right(stream::once(start).flat_map(|answer| match answer {
            Ok(answer) => chunks(answer).left_stream(),
            Err(error) => stream::once(std::future::ready(Err(error))).right_stream(),
        })),
    };
    Ok(sse::respond(chunks))
}

fn chunks<A: Answer>(answer: A) -> impl stream::Stream<Item = Result<String, ApiError>> + Send {
    stream::unfold(answer, |mut answer| async move {
        let chunk = answer.next_chunk().await?;
        Some((chunk, answer))
    })
}

/// A chunk as JSON text.
fn to_json(chunk: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(chunk).map_err(|error| ApiError::internal(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// An answer of one chunk.
    struct Short(Option<String>);

    impl Answer for Short {
        async fn next_chunk(&mut self) -> Option<Result<String, ApiError>> {
            self.0.take().map(Ok)
        }

        async fn fold(self) -> Result<String, ApiError> {
            Ok(self.0.unwrap_or_default())
        }
    }

    async fn start(after: u64, answer: Result<Short, ApiError>) -> Result<Short, ApiError> {
        sleep(Duration::from_secs(after)).await;
        answer
    }

    async fn body(response: Response) -> String {
        String::from_utf8(axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_start_is_bridged_by_comments() {
        let begun = Instant::now();
        let response = respond(start(105, Ok(Short(Some("{}".into())))), true).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), limits::STREAM_START.as_secs());
        let body = body(response).await;
        assert_eq!(body.matches(": ping\n\n").count(), 8, "{body}");
        assert!(body.ends_with("data: {}\n\ndata: [DONE]\n\n"), "{body}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_has_its_status_before_the_stream_begins_and_an_event_after() {
        let early = respond(start(1, Err(ApiError::model_not_found("none"))), true).await.unwrap_err();
        assert_eq!(early.into_response().status(), axum::http::StatusCode::NOT_FOUND);
        let late = respond(start(100, Err(ApiError::load_failed("damaged"))), true).await.unwrap();
        let body = body(late).await;
        assert!(body.contains(r#"data: {"error":{"message":"damaged""#) && !body.contains("[DONE]"), "{body}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_is_awaited() {
        let response = respond(start(100, Ok(Short(Some("{}".into())))), false).await.unwrap();
        assert_eq!(body(response).await, "{}");
    }
}
