//! `/v1/completions`.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::common::{GenerationParams, UNSUPPORTED, Usage, WireTimings, wire_logprob};
use crate::answer::{Candidate, TokenInfo};
use crate::error::ApiError;
use crate::limits;
use crate::params::{Fields, Neutral, kind, token_ids};

/// Fields documented for completions that are not supported, with the values that ask for nothing.
const UNSUPPORTED_COMPLETIONS: &[(&str, Neutral)] =
    &[("suffix", Neutral::Empty), ("response_format", Neutral::Type("text"))];

/// Tokens of an answer when the request names no limit, as OpenAI documents for this endpoint.
const DEFAULT_MAX_TOKENS: u64 = 16;

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PromptInput {
    /// Text; the tokenizer adds its special tokens.
    Text(String),
    /// Ids, taken as they are.
    Ids(Vec<u32>),
}

/// A request for text completions.
#[derive(Clone, Debug)]
pub(crate) struct CompletionRequest {
    pub(crate) params: GenerationParams,
    pub(crate) prompts: Vec<PromptInput>,
    /// Answers begin with their prompt.
    pub(crate) echo: bool,
}

impl CompletionRequest {
    pub(crate) fn read(body: &Map<String, Value>) -> Result<Self, ApiError> {
        let fields = Fields::new(body);
        fields.refuse(UNSUPPORTED_COMPLETIONS)?;
        fields.refuse(UNSUPPORTED)?;
        let max_tokens = match fields.integer("max_tokens", 1..=u64::MAX)? {
            Some(n) => n,
            None => fields.integer("max_completion_tokens", 1..=u64::MAX)?.unwrap_or(DEFAULT_MAX_TOKENS),
        };
        let logprobs = fields.integer("logprobs", 0..=limits::TOP_LOGPROBS)?.map(|n| n as usize);
        let echo = fields.boolean("echo")?.unwrap_or(false);
        if echo && logprobs.is_some() {
            let detail = "together with `logprobs` (log-probabilities of the prompt) is not supported by this server";
            return Err(ApiError::unsupported_param("echo", detail));
        }
        let params = GenerationParams::read(&fields, Some(max_tokens), logprobs, true)?;
        Ok(Self { params, prompts: prompts(&fields)?, echo })
    }
}

/// `prompt`: text, token ids, or an array of either.
fn prompts(fields: &Fields<'_>) -> Result<Vec<PromptInput>, ApiError> {
    let invalid = |problem: String| ApiError::invalid_param("prompt", problem);
    let values = match fields.get("prompt") {
        None => return Err(invalid("is missing".into())),
        Some(Value::String(text)) => return Ok(vec![PromptInput::Text(text.clone())]),
        Some(Value::Array(values)) => values,
        Some(other) => {
            return Err(invalid(format!("must be a string, token ids or an array of them, not {}", kind(other))));
        }
    };
    if values.is_empty() {
        return Err(invalid("is empty".into()));
    }
    if values.iter().all(Value::is_number) {
        let ids = token_ids(values).ok_or_else(|| invalid("holds a number that is no token id".into()))?;
        return Ok(vec![PromptInput::Ids(ids)]);
    }
    if values.len() > limits::PROMPTS {
        return Err(invalid(format!("holds {} prompts; at most {}", values.len(), limits::PROMPTS)));
    }
    let read = |(index, value): (usize, &Value)| match value {
        Value::String(text) => Ok(PromptInput::Text(text.clone())),
        Value::Array(ids) => token_ids(ids)
            .filter(|ids| !ids.is_empty())
            .map(PromptInput::Ids)
            .ok_or_else(|| invalid(format!("[{index}] must be a string or token ids"))),
        _ => Err(invalid(format!("[{index}] must be a string or token ids, not {}", kind(value)))),
    };
    values.iter().enumerate().map(read).collect()
}

/// A whole answer, or part of a streamed one: they have one form.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Completion<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<CompletionChoice>,
    /// In a stream left out unless asked for; then `null` but in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<WireTimings>,
}

/// One choice.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CompletionChoice {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// Log-probabilities of a choice's tokens, as parallel arrays.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// Per token its most likely rivals; `null` when none were asked for.
    top_logprobs: Option<Vec<TopLogprobs>>,
    /// Per token the characters of text before it.
    text_offset: Vec<usize>,
}

/// The most likely tokens of one place, as an object from text to log-probability.
#[derive(Clone, Debug, PartialEq)]
struct TopLogprobs(Vec<(String, f32)>);

impl TopLogprobs {
    /// Tokens of one text (parts of characters all read U+FFFD) count as the likeliest of them.
    fn new(candidates: Vec<Candidate>) -> Self {
        let mut entries: Vec<(String, f32)> = Vec::with_capacity(candidates.len());
        for Candidate { text, logprob, .. } in candidates {
            if entries.iter().all(|(known, _)| *known != text) {
                entries.push((text, wire_logprob(logprob)));
            }
        }
        Self(entries)
    }
}

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

impl CompletionLogprobs {
    /// Of `tokens`, the first of which begins after `offset` characters; moves `offset` on.
    pub(crate) fn new(tokens: Vec<TokenInfo>, top: usize, offset: &mut usize) -> Self {
        let mut logprobs = Self { top_logprobs: (top > 0).then(Vec::new), ..Self::default() };
        for token in tokens {
            logprobs.text_offset.push(*offset);
            // Of a character in several tokens, the first one counts.
            *offset += token.chosen.bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
            logprobs.token_logprobs.push(wire_logprob(token.chosen.logprob));
            if let Some(tops) = &mut logprobs.top_logprobs {
                tops.push(TopLogprobs::new(token.top));
            }
            logprobs.tokens.push(token.chosen.text);
        }
        logprobs
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        self.token_logprobs.extend(other.token_logprobs);
        self.text_offset.extend(other.text_offset);
        match (&mut self.top_logprobs, other.top_logprobs) {
            (Some(all), Some(more)) => all.extend(more),
            (all @ None, more) => *all = more,
            (Some(_), None) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<CompletionRequest, ApiError> {
        CompletionRequest::read(body.as_object().unwrap())
    }

    #[test]
    fn prompts_come_as_text_ids_or_arrays_of_them() {
        let text = |text: &str| PromptInput::Text(text.into());
        let cases = [
            (json!("a"), vec![text("a")]),
            (json!(["a"]), vec![text("a")]),
            (json!(["a", "b"]), vec![text("a"), text("b")]),
            (json!([1, 2]), vec![PromptInput::Ids(vec![1, 2])]),
            (json!([[1, 2]]), vec![PromptInput::Ids(vec![1, 2])]),
            (json!([[1], "b"]), vec![PromptInput::Ids(vec![1]), text("b")]),
        ];
        for (prompt, expected) in cases {
            assert_eq!(read(json!({"model": "m", "prompt": prompt})).unwrap().prompts, expected);
        }
        for prompt in [json!([]), json!([-1]), json!([1.5]), json!([[1], 2]), json!({}), json!([[]]), json!(null)] {
            let error = read(json!({"model": "m", "prompt": prompt.clone()})).unwrap_err().body();
            assert_eq!(error["error"]["param"], "prompt", "{prompt}");
        }
    }

    #[test]
    fn unsupported_fields_are_refused() {
        for (name, value) in [("suffix", json!("x")), ("best_of", json!(3))] {
            let error = read(json!({"model": "m", "prompt": "a", name: value})).unwrap_err().body();
            assert_eq!(error["error"]["code"], "unsupported_parameter");
            assert_eq!(error["error"]["param"], name);
        }
        let echoed = read(json!({"model": "m", "prompt": "a", "echo": true, "logprobs": 0})).unwrap_err().body();
        assert_eq!(echoed["error"]["param"], "echo");
        assert_eq!(read(json!({"model": "m", "prompt": "a"})).unwrap().params.max_tokens, Some(16));
    }
}
