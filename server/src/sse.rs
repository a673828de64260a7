//! Server-sent events: an answer's chunks as OpenAI's clients expect them.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};

use crate::error::ApiError;
use crate::limits;

/// Streams `chunks` (JSON texts), then `[DONE]`. An error is sent as an event of its own and ends
/// the stream without `[DONE]`. Silence is filled with comments, which keep clients from giving up.
pub(crate) fn respond(chunks: impl Stream<Item = Result<String, ApiError>> + Send + 'static) -> Response {
    let events = stream::unfold(Some(Box::pin(chunks)), |chunks| async move {
        let mut chunks = chunks?;
        Some(match chunks.next().await {
            Some(Ok(json)) => (Event::default().data(json), Some(chunks)),
            Some(Err(error)) => {
                error.log();
                (Event::default().data(error.body().to_string()), None)
            }
            None => (Event::default().data("[DONE]"), None),
        })
    });
    let keep_alive = KeepAlive::new().interval(limits::KEEP_ALIVE).text("ping");
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response()
}
