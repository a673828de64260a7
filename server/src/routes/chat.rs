//! `POST /v1/chat/completions`.

use std::collections::VecDeque;

use atelico_engine::handle::Timings;
use atelico_engine::reasoning::{ReasoningRouter, Routed};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::{Answer, respond, to_json};
use crate::answer::{AnswerEvent, TokenInfo};
use crate::app::AppState;
use crate::choices::Choices;
use crate::error::ApiError;
use crate::limits;
use crate::models::blocking;
use crate::openai::chat::{
    AssistantMessage, ChatChoice, ChatChunk, ChatCompletion, ChatLogprobs, ChatRequest, ChunkChoice, Delta,
};
use crate::openai::common::{Usage, answer_id, finish_reason, unix_now};
use crate::prompt::ChatPrompt;

/// Answers a chat.
pub(crate) async fn create(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = limits::read_json(&headers, body).await?;
    let request = ChatRequest::read(&body)?;
    let stream = request.params.stream;
    respond(ChatAnswer::start(state, request), stream).await
}

/// Part of one choice.
#[derive(Debug, Default)]
struct Part {
    index: usize,
    routed: Routed,
    tokens: Vec<TokenInfo>,
    /// With a choice's last part, which has no text.
    finish_reason: Option<&'static str>,
    timings: Option<Timings>,
}

/// What is known of a running choice.
#[derive(Debug)]
struct ChoiceState {
    router: ReasoningRouter,
    /// Tokens whose text the router holds back.
    held: Vec<TokenInfo>,
}

/// A running answer to a chat.
struct ChatAnswer {
    id: String,
    created: u64,
    model: String,
    with_logprobs: bool,
    include_usage: bool,
    choices: Choices,
    states: Vec<ChoiceState>,
    cached_tokens: usize,
    completion_tokens: usize,
    reasoning_tokens: usize,
    ready: VecDeque<Part>,
    /// Choices whose role has been sent.
    roles_sent: usize,
    usage_sent: bool,
}

impl ChatAnswer {
    async fn start(state: AppState, request: ChatRequest) -> Result<Self, ApiError> {
        let model = state.models.get(&request.params.model).await?;
        let (prompt, model, request) = blocking(move || {
            let prompt = ChatPrompt::render(&model, &request);
            (prompt, model, request)
        })
        .await?;
        let ChatPrompt { prompt, router } = prompt?;
        let choices = Choices::start(&state, &model, &[prompt], &request.params)?;
        let new_state = |_| ChoiceState { router: router.clone(), held: Vec::new() };
        Ok(Self {
            id: answer_id("chatcmpl"),
            created: unix_now(),
            model: request.params.model,
            with_logprobs: request.params.logprobs.is_some(),
            include_usage: request.params.include_usage,
            states: (0..choices.count()).map(new_state).collect(),
            choices,
            cached_tokens: 0,
            completion_tokens: 0,
            reasoning_tokens: 0,
            ready: VecDeque::new(),
            roles_sent: 0,
            usage_sent: false,
        })
    }

    async fn next_part(&mut self) -> Option<Result<Part, ApiError>> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(Ok(part));
            }
            match self.choices.next().await? {
                Ok((index, event)) => self.take(index, event),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn take(&mut self, index: usize, event: AnswerEvent) {
        let Some(state) = self.states.get_mut(index) else { return };
        match event {
            AnswerEvent::Delta { text, token_count, tokens } => {
                let was_reasoning = state.router.in_reasoning();
                let routed = state.router.push(&text);
                if was_reasoning || state.router.in_reasoning() {
                    self.reasoning_tokens += token_count;
                }
                state.held.extend(tokens);
                if routed != Routed::default() {
                    let tokens = std::mem::take(&mut state.held);
                    self.ready.push_back(Part { index, routed, tokens, ..Part::default() });
                }
            }
            AnswerEvent::Done { reason, timings } => {
                // The prompt counts once, whatever the number of choices.
                self.cached_tokens += if index == 0 { timings.cached_tokens } else { 0 };
                self.completion_tokens += timings.generated_tokens;
                let routed = state.router.flush();
                let tokens = std::mem::take(&mut state.held);
                if routed != Routed::default() || !tokens.is_empty() {
                    self.ready.push_back(Part { index, routed, tokens, ..Part::default() });
                }
                let finish_reason = Some(finish_reason(reason));
                let timings = (self.choices.count() == 1).then_some(timings);
                self.ready.push_back(Part { index, finish_reason, timings, ..Part::default() });
            }
        }
    }

    fn usage(&self) -> Usage {
        Usage::new(self.choices.prompt_tokens(), self.cached_tokens, self.completion_tokens, self.reasoning_tokens)
    }

    fn logprobs(&self, tokens: Vec<TokenInfo>) -> Option<ChatLogprobs> {
        (self.with_logprobs && !tokens.is_empty()).then(|| tokens.into())
    }

    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk<'_> {
        ChatChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.include_usage.then_some(None),
            timings: None,
        }
    }

    fn role_chunk(&self, index: usize) -> ChatChunk<'_> {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        self.chunk(vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }])
    }

    fn part_chunk(&self, part: Part) -> ChatChunk<'_> {
        let text = |text: String| (!text.is_empty()).then_some(text);
        let reasoning = text(part.routed.reasoning);
        let delta =
            Delta { role: None, content: text(part.routed.content), reasoning_content: reasoning.clone(), reasoning };
        let logprobs = self.logprobs(part.tokens);
        let choice = ChunkChoice { index: part.index, delta, logprobs, finish_reason: part.finish_reason };
        ChatChunk { timings: part.timings.map(Into::into), ..self.chunk(vec![choice]) }
    }
}

impl Answer for ChatAnswer {
    async fn next_chunk(&mut self) -> Option<Result<String, ApiError>> {
        // All roles first, in order: Python's helper takes choices only as they count up.
        if self.roles_sent < self.choices.count() {
            let index = self.roles_sent;
            self.roles_sent += 1;
            return Some(to_json(&self.role_chunk(index)));
        }
        if self.usage_sent {
            return None;
        }
        match self.next_part().await {
            Some(Ok(part)) => Some(to_json(&self.part_chunk(part))),
            Some(Err(error)) => Some(Err(error)),
            None if self.include_usage => {
                self.usage_sent = true;
                Some(to_json(&ChatChunk { usage: Some(Some(self.usage())), ..self.chunk(Vec::new()) }))
            }
            None => None,
        }
    }

    async fn fold(mut self) -> Result<String, ApiError> {
        let message = || AssistantMessage { role: "assistant", ..AssistantMessage::default() };
        let new_choice = |index| ChatChoice {
            index,
            message: message(),
            logprobs: self.with_logprobs.then(ChatLogprobs::default),
            finish_reason: None,
        };
        let mut choices: Vec<ChatChoice> = (0..self.choices.count()).map(new_choice).collect();
        let mut timings = None;
        while let Some(part) = self.next_part().await {
            let part = part?;
            let Some(choice) = choices.get_mut(part.index) else { continue };
            choice.message.content.push_str(&part.routed.content);
            if !part.routed.reasoning.is_empty() {
                choice.message.reasoning_content.get_or_insert_default().push_str(&part.routed.reasoning);
            }
            if let (Some(all), Some(more)) = (&mut choice.logprobs, self.logprobs(part.tokens)) {
                all.content.extend(more.content);
            }
            choice.finish_reason = choice.finish_reason.or(part.finish_reason);
            timings = timings.or(part.timings);
        }
        for choice in &mut choices {
            choice.message.reasoning.clone_from(&choice.message.reasoning_content);
        }
        let completion = ChatCompletion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.usage(),
            timings: timings.map(Into::into),
        };
        to_json(&completion)
    }
}
