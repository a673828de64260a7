//! `mock::` models: fixed, instant answers for tests of client code.
//!
//! `mock::` alone is `mock::fixed`. Sampling parameters have no effect on them; limits, stop
//! strings, choices, log-probabilities, usage and streaming work as with any model.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use atelico_engine::handle::{FinishReason, Timings};
use atelico_engine::text::StopStrings;

use crate::answer::{AnswerEvent, Candidate, TokenInfo};
use crate::error::ApiError;
use crate::limits;

/// Tokens that a mock's context holds, so that clients can meet the error.
pub(crate) const CONTEXT: usize = 8192;

const FIXED: &str = "The lantern by the gate is lit, traveller. Come in and rest.";
const THINKING: &str = "<think>\nThe traveller wants a room. One is free.\n</think>\n\nYes, one room is free tonight.";
/// Time between the tokens of `mock::slow`.
const SLOW: Duration = Duration::from_millis(50);
/// Tokens of `mock::slow` when the request names no limit.
const SLOW_TOKENS: usize = 400;
/// Tokens after which `mock::error` fails.
const TOKENS_BEFORE_ERROR: usize = 3;

/// A mock model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mock {
    /// Always the same sentence.
    Fixed,
    /// The last message or the prompt.
    Echo,
    /// A reasoning block, then an answer.
    Thinking,
    /// The fixed sentence over and over, a token every 50 ms, for as long as asked.
    Slow,
    /// Fails after three tokens.
    Error,
}

impl Mock {
    /// The mocks with their names after `mock::`.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("fixed", Self::Fixed),
        ("echo", Self::Echo),
        ("thinking", Self::Thinking),
        ("slow", Self::Slow),
        ("error", Self::Error),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::Fixed);
        }
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, mock)| mock)
    }

    /// Starts an answer to `prompt`.
    pub(crate) fn start(self, prompt: &MockPrompt, request: MockRequest) -> Result<MockStream, ApiError> {
        let prompt_tokens = prompt.tokens;
        if prompt_tokens >= CONTEXT {
            return Err(ApiError::context_exceeded(prompt_tokens, CONTEXT));
        }
        let text = match self {
            Self::Fixed | Self::Error => FIXED.to_owned(),
            Self::Echo => prompt.text.clone(),
            Self::Thinking => THINKING.to_owned(),
            Self::Slow => {
                let wanted = request.max_tokens.map_or(SLOW_TOKENS, |most| most.min(CONTEXT).saturating_add(1));
                format!("{FIXED} ").repeat(wanted.div_ceil(count_tokens(FIXED)))
            }
        };
        let mut tokens: VecDeque<String> = tokens(&text).map(str::to_owned).collect();
        let most = request.max_tokens.unwrap_or(limits::DEFAULT_MAX_TOKENS).min(CONTEXT - prompt_tokens);
        let reason = if tokens.len() > most { FinishReason::Length } else { FinishReason::Stop };
        tokens.truncate(most);
        Ok(MockStream {
            tokens,
            reason,
            pause: (self == Self::Slow).then_some(SLOW),
            fails_after: (self == Self::Error).then_some(TOKENS_BEFORE_ERROR),
            stops: StopStrings::new(request.stop)?,
            logprobs: request.logprobs,
            prompt_tokens,
            generated: 0,
            held: Vec::new(),
            started: Instant::now(),
            state: State::Running,
        })
    }
}

/// What a mock is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MockPrompt {
    /// The last message or the prompt.
    pub(crate) text: String,
    /// Tokens of all messages.
    pub(crate) tokens: usize,
}

/// What a mock heeds of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct MockRequest {
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stop: Vec<String>,
    pub(crate) logprobs: Option<usize>,
}

/// A mock's tokens: words, each with the blanks before it.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let end = rest[word..].find(char::is_whitespace).map_or(rest.len(), |length| word + length);
        let (token, after) = rest.split_at(end);
        rest = after;
        (!token.is_empty()).then_some(token)
    })
}

/// Tokens of `text` as a mock counts them.
pub(crate) fn count_tokens(text: &str) -> usize {
    tokens(text).count()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// The text is sent; [`AnswerEvent::Done`] is due.
    Ending(FinishReason),
    Over,
}

/// A mock's running answer.
#[derive(Debug)]
pub(crate) struct MockStream {
    tokens: VecDeque<String>,
    /// How the answer ends unless a stop string ends it.
    reason: FinishReason,
    pause: Option<Duration>,
    fails_after: Option<usize>,
    stops: StopStrings,
    logprobs: Option<usize>,
    prompt_tokens: usize,
    generated: usize,
    /// Tokens whose text the stop strings hold back.
    held: Vec<TokenInfo>,
    started: Instant,
    state: State,
}

impl MockStream {
    pub(crate) async fn next(&mut self) -> Option<Result<AnswerEvent, ApiError>> {
        while self.state == State::Running {
            if self.fails_after == Some(self.generated) {
                self.state = State::Over;
                return Some(Err(ApiError::internal("mock::error fails, as its name says")));
            }
            let Some(token) = self.tokens.pop_front() else {
                self.state = State::Ending(self.reason);
                let rest = self.stops.flush();
                match self.delta(rest) {
                    Some(delta) => return Some(Ok(delta)),
                    None => break,
                }
            };
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
            }
            self.generated += 1;
            self.held.push(mock_token(&token, self.logprobs.unwrap_or(0)));
            let outcome = self.stops.push(&token);
            if outcome.stopped {
                self.state = State::Ending(FinishReason::Stop);
            }
            if let Some(delta) = self.delta(outcome.emit) {
                return Some(Ok(delta));
            }
        }
        let State::Ending(reason) = self.state else { return None };
        self.state = State::Over;
        let timings = Timings {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: 0,
            prompt_ms: 0.0,
            generated_tokens: self.generated,
            decode_ms: self.started.elapsed().as_secs_f64() * 1e3,
        };
        Some(Ok(AnswerEvent::Done { reason, timings }))
    }

    fn delta(&mut self, text: String) -> Option<AnswerEvent> {
        if text.is_empty() {
            return None;
        }
        let tokens = std::mem::take(&mut self.held);
        let token_count = tokens.len();
        let tokens = if self.logprobs.is_some() { tokens } else { Vec::new() };
        Some(AnswerEvent::Delta { text, token_count, tokens })
    }
}

/// A token with made-up log-probabilities: the chosen one is certain to 3/4, each rival to a
/// quarter of the one before.
fn mock_token(text: &str, top: usize) -> TokenInfo {
    let candidate = |text: String, logprob| Candidate { bytes: text.clone().into_bytes(), text, logprob };
    let chosen = candidate(text.to_owned(), 0.75f32.ln());
    let rival = |rank: usize| match rank {
        0 => chosen.clone(),
        _ => candidate(format!(" rival{rank}"), 0.75f32.ln() + rank as f32 * 0.25f32.ln()),
    };
    TokenInfo { top: (0..top).map(rival).collect(), chosen }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    async fn run(mock: Mock, request: MockRequest) -> (String, FinishReason, usize) {
        let prompt = MockPrompt { text: "hello there  you".into(), tokens: 3 };
        let mut stream = mock.start(&prompt, request).unwrap();
        let mut all = String::new();
        loop {
            match stream.next().await.unwrap().unwrap() {
                AnswerEvent::Delta { text, .. } => all.push_str(&text),
                AnswerEvent::Done { reason, timings } => {
                    assert!(stream.next().await.is_none());
                    return (all, reason, timings.generated_tokens);
                }
            }
        }
    }

    #[tokio::test]
    async fn answers_are_fixed_and_limits_hold() {
        assert_eq!(run(Mock::Fixed, MockRequest::default()).await, (FIXED.into(), FinishReason::Stop, 12));
        let request = MockRequest { max_tokens: Some(3), ..MockRequest::default() };
        assert_eq!(run(Mock::Fixed, request).await, ("The lantern by".into(), FinishReason::Length, 3));
        assert_eq!(run(Mock::Echo, MockRequest::default()).await.0, "hello there  you");
    }

    #[tokio::test]
    async fn stop_strings_end_the_answer() {
        let request = MockRequest { stop: vec![" gate is".into()], ..MockRequest::default() };
        let (text, reason, _) = run(Mock::Fixed, request).await;
        assert_eq!((text.as_str(), reason), ("The lantern by the", FinishReason::Stop));
    }

    #[test]
    fn tokens_rejoin_to_the_text() {
        for text in ["", " ", "a  b\n", " ü x"] {
            assert_eq!(tokens(text).collect::<String>(), text);
        }
    }
}
