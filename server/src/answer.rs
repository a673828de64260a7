//! One running answer, of a loaded model or a mock, with its tokens as text.

use std::sync::Arc;

use atelico_engine::handle::{FinishReason, Timings, TokenLogprobs};
use atelico_engine::text::Tokenizer;
use atelico_engine::text_stream::{TextEvent, TextStream, TextToken};

use crate::error::ApiError;
use crate::mock::MockStream;

/// A token that was or might have been chosen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
    /// Natural-log probability.
    pub(crate) logprob: f32,
}

/// A generated token with its most likely rivals, best first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenInfo {
    pub(crate) chosen: Candidate,
    pub(crate) top: Vec<Candidate>,
}

/// What an answer consists of.
#[derive(Clone, Debug)]
pub(crate) enum AnswerEvent {
    /// More text, and how many tokens made it.
    Delta {
        text: String,
        token_count: usize,
        /// The tokens; empty unless log-probabilities were asked for.
        tokens: Vec<TokenInfo>,
    },
    /// The end.
    Done { reason: FinishReason, timings: Timings },
}

/// A running answer; dropping it cancels the generation.
#[derive(Debug)]
pub(crate) enum AnswerStream {
    /// Of a loaded model. The tokenizer is absent when the checkpoint has none.
    Engine { stream: TextStream, tokenizer: Option<Arc<Tokenizer>> },
    /// Of a mock.
    Mock(MockStream),
}

impl AnswerStream {
    /// The next event; `None` after [`AnswerEvent::Done`] or an error.
    pub(crate) async fn next(&mut self) -> Option<Result<AnswerEvent, ApiError>> {
        match self {
            Self::Mock(stream) => stream.next().await,
            Self::Engine { stream, tokenizer } => loop {
                return match stream.next().await? {
                    Ok(TextEvent::PromptLogits(_)) => continue,
                    Ok(TextEvent::Delta { text, tokens }) => {
                        let token_count = tokens.len();
                        let named = |token| token_info(tokenizer.as_deref(), token);
                        let tokens = tokens.into_iter().filter_map(named).collect();
                        Some(Ok(AnswerEvent::Delta { text, token_count, tokens }))
                    }
                    Ok(TextEvent::Done { reason, timings, .. }) => Some(Ok(AnswerEvent::Done { reason, timings })),
                    Err(error) => Some(Err(error.into())),
                };
            },
        }
    }
}

/// A token with its log-probabilities; `None` when it comes without.
fn token_info(tokenizer: Option<&Tokenizer>, token: TextToken) -> Option<TokenInfo> {
    let TokenLogprobs { logprob, top } = token.logprobs?;
    Some(TokenInfo {
        chosen: candidate(tokenizer, token.id, logprob),
        top: top.into_iter().map(|(id, logprob)| candidate(tokenizer, id, logprob)).collect(),
    })
}

fn candidate(tokenizer: Option<&Tokenizer>, id: u32, logprob: f32) -> Candidate {
    let bytes = tokenizer.and_then(|tokenizer| tokenizer.token_bytes(id));
    let text = match &bytes {
        // Part of a character reads as U+FFFD; `bytes` tells what it is.
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => tokenizer.and_then(|tokenizer| tokenizer.token_text(id)).unwrap_or_else(|| format!("token_id:{id}")),
    };
    Candidate { bytes: bytes.unwrap_or_else(|| text.clone().into_bytes()), text, logprob }
}
