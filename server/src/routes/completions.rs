//! `POST /v1/completions`.

use atelico_engine::handle::Timings;
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
use crate::openai::common::{Usage, answer_id, finish_reason, unix_now};
use crate::openai::completions::{Completion, CompletionChoice, CompletionLogprobs, CompletionRequest};
use crate::prompt::Prompt;

/// Completes text.
pub(crate) async fn create(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = limits::read_json(&headers, body).await?;
    let request = CompletionRequest::read(&body)?;
    let stream = request.params.stream;
    respond(CompletionAnswer::start(state, request), stream).await
}

/// A running completion.
struct CompletionAnswer {
    id: String,
    created: u64,
    model: String,
    /// Rivals per token; `None` without log-probabilities.
    logprobs: Option<usize>,
    include_usage: bool,
    choices: Choices,
    /// Per choice the prompt that is still to be echoed.
    echoes: Vec<Option<String>>,
    /// Per choice the characters whose tokens have been reported.
    offsets: Vec<usize>,
    /// Choices of a prompt.
    n: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    usage_sent: bool,
}

impl CompletionAnswer {
    async fn start(state: AppState, request: CompletionRequest) -> Result<Self, ApiError> {
        let model = state.models.get(&request.params.model).await?;
        let CompletionRequest { params, prompts: inputs, echo } = request;
        let prepare = {
            let model = model.clone();
            move || {
                let tokenize = |input| Prompt::tokenize(&model, input);
                let prompts = inputs.iter().map(tokenize).collect::<Result<Vec<_>, _>>()?;
                let text = |input| if echo { Prompt::echo(&model, input).map(Some) } else { Ok(None) };
                let echoes = inputs.iter().map(text).collect::<Result<Vec<_>, _>>()?;
                Ok::<_, ApiError>((prompts, echoes))
            }
        };
        let (prompts, echoes) = blocking(prepare).await??;
        let choices = Choices::start(&state, &model, &prompts, &params)?;
        Ok(Self {
            id: answer_id("cmpl"),
            created: unix_now(),
            model: params.model,
            logprobs: params.logprobs,
            include_usage: params.include_usage,
            echoes: echoes.into_iter().flat_map(|echo| std::iter::repeat_n(echo, params.n)).collect(),
            offsets: vec![0; choices.count()],
            choices,
            n: params.n,
            cached_tokens: 0,
            completion_tokens: 0,
            usage_sent: false,
        })
    }

    /// The next part of a choice, with timings when it is the only one and has ended.
    async fn next_part(&mut self) -> Option<Result<(CompletionChoice, Option<Timings>), ApiError>> {
        if let Some((index, echo)) = self.echoes.iter_mut().enumerate().find(|(_, echo)| echo.is_some()) {
            let text = echo.take().unwrap_or_default();
            return Some(Ok((CompletionChoice { index, text, logprobs: None, finish_reason: None }, None)));
        }
        loop {
            match self.choices.next().await? {
                Err(error) => return Some(Err(error)),
                Ok((index, AnswerEvent::Delta { text, tokens, .. })) => {
                    if text.is_empty() && tokens.is_empty() {
                        continue;
                    }
                    let logprobs = self.logprobs(index, tokens);
                    return Some(Ok((CompletionChoice { index, text, logprobs, finish_reason: None }, None)));
                }
                Ok((index, AnswerEvent::Done { reason, timings })) => {
                    // A prompt counts once, whatever the number of choices.
                    self.cached_tokens += if index % self.n == 0 { timings.cached_tokens } else { 0 };
                    self.completion_tokens += timings.generated_tokens;
                    let finish_reason = Some(finish_reason(reason));
                    let choice = CompletionChoice { index, text: String::new(), logprobs: None, finish_reason };
                    return Some(Ok((choice, (self.choices.count() == 1).then_some(timings))));
                }
            }
        }
    }

    fn logprobs(&mut self, index: usize, tokens: Vec<TokenInfo>) -> Option<CompletionLogprobs> {
        let (top, offset) = (self.logprobs?, self.offsets.get_mut(index)?);
        (!tokens.is_empty()).then(|| CompletionLogprobs::new(tokens, top, offset))
    }

    fn usage(&self) -> Usage {
        Usage::new(self.choices.prompt_tokens(), self.cached_tokens, self.completion_tokens, 0)
    }

    fn completion(&self, choices: Vec<CompletionChoice>, timings: Option<Timings>) -> Completion<'_> {
        Completion {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.include_usage.then_some(None),
            timings: timings.map(Into::into),
        }
    }
}

impl Answer for CompletionAnswer {
    async fn next_chunk(&mut self) -> Option<Result<String, ApiError>> {
        if self.usage_sent {
            return None;
        }
        match self.next_part().await {
            Some(Ok((choice, timings))) => Some(to_json(&self.completion(vec![choice], timings))),
            Some(Err(error)) => Some(Err(error)),
            None if self.include_usage => {
                self.usage_sent = true;
                Some(to_json(&Completion { usage: Some(Some(self.usage())), ..self.completion(Vec::new(), None) }))
            }
            None => None,
        }
    }

    async fn fold(mut self) -> Result<String, ApiError> {
        let new_choice = |index| CompletionChoice {
            index,
            text: String::new(),
            logprobs: self.logprobs.map(|top| CompletionLogprobs::new(Vec::new(), top, &mut 0)),
            finish_reason: None,
        };
        let mut choices: Vec<CompletionChoice> = (0..self.choices.count()).map(new_choice).collect();
        let mut timings = None;
        while let Some(part) = self.next_part().await {
            let (part, part_timings) = part?;
            let Some(choice) = choices.get_mut(part.index) else { continue };
            choice.text.push_str(&part.text);
            if let (Some(all), Some(more)) = (&mut choice.logprobs, part.logprobs) {
                all.extend(more);
            }
            choice.finish_reason = choice.finish_reason.or(part.finish_reason);
            timings = timings.or(part_timings);
        }
        let usage = Some(Some(self.usage()));
        let completion = Completion { usage, ..self.completion(choices, timings) };
        to_json(&completion)
    }
}
