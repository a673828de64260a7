//! The answers to one request, running at the same time, as one stream of events.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, SelectAll, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::answer::{AnswerEvent, AnswerStream};
use crate::app::AppState;
use crate::error::ApiError;
use crate::limits;
use crate::models::Model;
use crate::openai::common::GenerationParams;
use crate::prompt::Prompt;

type ChoiceStream = Pin<Box<dyn Stream<Item = (usize, Result<AnswerEvent, ApiError>)> + Send>>;

/// Running answers; dropping them cancels all.
pub(crate) struct Choices {
    streams: SelectAll<ChoiceStream>,
    count: usize,
    prompt_tokens: usize,
    /// Turns true when answers must end because the server does.
    must_end: watch::Receiver<bool>,
    _running: OwnedSemaphorePermit,
}

impl Choices {
    /// Starts `params.n` answers to each prompt. The k-th answer to the i-th prompt has the index
    /// `i * n + k`.
    pub(crate) fn start(
        state: &AppState,
        model: &Model,
        prompts: &[Prompt],
        params: &GenerationParams,
    ) -> Result<Self, ApiError> {
        let count = prompts.len() * params.n;
        let permits = u32::try_from(count).unwrap_or(u32::MAX);
        let running = Arc::clone(&state.generations).try_acquire_many_owned(permits).map_err(|_| {
            ApiError::overloaded(format!("{} answers are being generated already", limits::GENERATIONS))
        })?;
        let mut streams = SelectAll::new();
        for (index, (prompt, choice)) in
            prompts.iter().flat_map(|prompt| (0..params.n).map(move |choice| (prompt, choice))).enumerate()
        {
            streams.push(indexed(index, prompt.start(model, params, choice)?));
        }
        Ok(Self {
            streams,
            count,
            prompt_tokens: prompts.iter().map(Prompt::token_count).sum(),
            must_end: state.must_end.clone(),
            _running: running,
        })
    }

    /// How many answers there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Tokens of all prompts.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The next event and the index of its choice; `None` when all have ended.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, AnswerEvent), ApiError>> {
        tokio::select! {
            biased;
            Ok(_) = self.must_end.wait_for(|must_end| *must_end) => Some(Err(ApiError::shutting_down())),
            event = self.streams.next() => {
                let (index, event) = event?;
                Some(event.map(|event| (index, event)))
            }
        }
    }
}

fn indexed(index: usize, answer: AnswerStream) -> ChoiceStream {
    Box::pin(stream::unfold(answer, move |mut answer| async move {
        let event = answer.next().await?;
        Some(((index, event), answer))
    }))
}
