//! From a request's messages or text to a prompt, and from a prompt to a running answer.

use atelico_engine::handle::Request;
use atelico_engine::reasoning::{ReasoningRouter, ReasoningTags};
use atelico_engine::text_stream::{TextOptions, TextStream};

use crate::answer::AnswerStream;
use crate::error::ApiError;
use crate::limits;
use crate::mock::{MockPrompt, MockRequest, count_tokens};
use crate::models::Model;
use crate::openai::chat::ChatRequest;
use crate::openai::common::GenerationParams;
use crate::openai::completions::PromptInput;

/// A prompt for one model.
#[derive(Clone, Debug)]
pub(crate) enum Prompt {
    /// Token ids, special tokens included.
    Ids(Vec<u32>),
    /// For a mock.
    Mock(MockPrompt),
}

/// A chat as a prompt.
#[derive(Clone, Debug)]
pub(crate) struct ChatPrompt {
    pub(crate) prompt: Prompt,
    /// Tells the reasoning of an answer to it.
    pub(crate) router: ReasoningRouter,
}

impl ChatPrompt {
    /// Renders the chat through the model's template and tokenizes it; takes its time.
    pub(crate) fn render(model: &Model, request: &ChatRequest) -> Result<Self, ApiError> {
        let handle = match model {
            Model::Engine(handle) => handle,
            Model::Mock(_) => {
                let router = ReasoningRouter::new(ReasoningTags::THINK, "");
                return Ok(Self { prompt: mock_chat(request), router });
            }
        };
        let (template, tokenizer) = (handle.chat_template()?, handle.tokenizer()?);
        let text = template.render(
            &request.messages,
            None,
            &request.template_kwargs,
            true,
            tokenizer.bos_token(),
            tokenizer.eos_token(),
        )?;
        // Templates write the special tokens themselves.
        let ids = tokenizer.encode(&text, false)?;
        let router = ReasoningRouter::new(ReasoningTags::of(tokenizer), &text);
        Ok(Self { prompt: Prompt::Ids(ids), router })
    }
}

fn mock_chat(request: &ChatRequest) -> Prompt {
    let contents = || request.messages.as_array().into_iter().flatten().filter_map(|m| m["content"].as_str());
    Prompt::Mock(MockPrompt {
        text: contents().next_back().unwrap_or_default().to_owned(),
        tokens: contents().map(count_tokens).sum(),
    })
}

impl Prompt {
    /// Tokenizes the prompt of a text completion; takes its time.
    pub(crate) fn tokenize(model: &Model, input: &PromptInput) -> Result<Self, ApiError> {
        Ok(match (model, input) {
            (Model::Engine(handle), PromptInput::Text(text)) => Self::Ids(handle.tokenizer()?.encode(text, true)?),
            (Model::Engine(_), PromptInput::Ids(ids)) => Self::Ids(ids.clone()),
            (Model::Mock(_), PromptInput::Text(text)) => {
                Self::Mock(MockPrompt { text: text.clone(), tokens: count_tokens(text) })
            }
            (Model::Mock(_), PromptInput::Ids(ids)) => {
                Self::Mock(MockPrompt { text: ids_text(ids), tokens: ids.len() })
            }
        })
    }

    /// The text that `echo` puts before the answer.
    pub(crate) fn echo(model: &Model, input: &PromptInput) -> Result<String, ApiError> {
        match (model, input) {
            (_, PromptInput::Text(text)) => Ok(text.clone()),
            (Model::Engine(handle), PromptInput::Ids(ids)) => Ok(handle.tokenizer()?.decode(ids, true)?),
            (Model::Mock(_), PromptInput::Ids(ids)) => Ok(ids_text(ids)),
        }
    }

    pub(crate) fn token_count(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Mock(prompt) => prompt.tokens,
        }
    }

    /// Starts the answer that is the prompt's `choice`-th.
    pub(crate) fn start(
        &self,
        model: &Model,
        params: &GenerationParams,
        choice: usize,
    ) -> Result<AnswerStream, ApiError> {
        match (model, self) {
            (Model::Engine(handle), Self::Ids(ids)) => {
                let request = Request {
                    prompt: ids.clone(),
                    max_tokens: Some(params.max_tokens.unwrap_or(limits::DEFAULT_MAX_TOKENS)),
                    sampling: params.sampling.apply(handle.generation_defaults(), choice),
                    stop_tokens: params.stop_token_ids.clone(),
                    ignore_eos: params.ignore_eos,
                    logprobs: params.logprobs,
                    prompt_logits: false,
                    reuse_prefix: params.reuse_prefix,
                };
                let options =
                    TextOptions { stop_strings: params.stop.clone(), continues_prompt: params.continues_prompt };
                let stream = TextStream::start(handle, request, options)?;
                Ok(AnswerStream::Engine { stream, tokenizer: handle.tokenizer().ok().cloned() })
            }
            (Model::Mock(mock), Self::Mock(prompt)) => {
                let request =
                    MockRequest { max_tokens: params.max_tokens, stop: params.stop.clone(), logprobs: params.logprobs };
                Ok(AnswerStream::Mock(mock.start(prompt, request)?))
            }
            _ => Err(ApiError::internal("the prompt was made for another model")),
        }
    }
}

/// Ids as a mock reads them.
fn ids_text(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}
