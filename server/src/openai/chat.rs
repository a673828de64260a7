//! `/v1/chat/completions`.

use serde::Serialize;
use serde_json::{Map, Value};

use super::common::{GenerationParams, UNSUPPORTED, Usage, WireTimings, wire_logprob};
use super::messages;
use crate::answer::{Candidate, TokenInfo};
use crate::error::ApiError;
use crate::limits;
use crate::params::{Fields, Neutral};

/// Fields documented for chat that are not supported, with the values that ask for nothing.
const UNSUPPORTED_CHAT: &[(&str, Neutral)] = &[
    ("audio", Neutral::Never),
    ("echo", Neutral::Bool(false)),
    ("function_call", Neutral::Text(&["none"])),
    ("functions", Neutral::Empty),
    ("modalities", Neutral::Only("text")),
    ("prediction", Neutral::Never),
    ("response_format", Neutral::Type("text")),
    ("tool_choice", Neutral::Text(&["none"])),
    ("tools", Neutral::Empty),
    ("verbosity", Neutral::Text(&["medium"])),
    ("web_search_options", Neutral::Never),
];

/// Names that templates are given by the server; a client's value must not replace them.
const RESERVED_KWARGS: [&str; 12] = [
    "add_generation_prompt",
    "bos_token",
    "chat_template",
    "continue_final_message",
    "documents",
    "eos_token",
    "messages",
    "namespace",
    "raise_exception",
    "strftime_now",
    "tokenize",
    "tools",
];

/// A request for a chat completion.
#[derive(Clone, Debug)]
pub(crate) struct ChatRequest {
    pub(crate) params: GenerationParams,
    /// The messages as templates read them.
    pub(crate) messages: Value,
    /// Further variables of the template.
    pub(crate) template_kwargs: Map<String, Value>,
}

impl ChatRequest {
    pub(crate) fn read(body: &Map<String, Value>) -> Result<Self, ApiError> {
        let fields = Fields::new(body);
        fields.refuse(UNSUPPORTED_CHAT)?;
        fields.refuse(UNSUPPORTED)?;
        let max_tokens = match fields.integer("max_completion_tokens", 1..=u64::MAX)? {
            Some(n) => Some(n),
            None => fields.integer("max_tokens", 1..=u64::MAX)?,
        };
        Ok(Self {
            params: GenerationParams::read(&fields, max_tokens, logprobs(&fields)?, false)?,
            messages: messages::read(&fields)?,
            template_kwargs: template_kwargs(&fields)?,
        })
    }
}

fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    match fields.integer("top_logprobs", 0..=limits::TOP_LOGPROBS)? {
        Some(_) if !wanted => Err(ApiError::invalid_param("top_logprobs", "needs `logprobs` to be true")),
        Some(top) => Ok(Some(top as usize)),
        None => Ok(wanted.then_some(0)),
    }
}

/// The template's variables: `chat_template_kwargs`, and what other servers take as fields.
fn template_kwargs(fields: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let mut kwargs = fields.object("chat_template_kwargs")?.cloned().unwrap_or_default();
    if let Some(name) = RESERVED_KWARGS.into_iter().find(|name| kwargs.contains_key(*name)) {
        return Err(ApiError::invalid_param("chat_template_kwargs", format_args!("may not set `{name}`")));
    }
    if let Some(effort) = fields.string("reasoning_effort")? {
        if !["none", "minimal", "low", "medium", "high", "xhigh"].contains(&effort) {
            let problem = format_args!("is {effort:?}; it must be none, minimal, low, medium, high or xhigh");
            return Err(ApiError::invalid_param("reasoning_effort", problem));
        }
        kwargs.insert("reasoning_effort".into(), effort.into());
        if effort == "none" {
            kwargs.entry("enable_thinking").or_insert(false.into());
        }
    }
    if let Some(enable) = fields.boolean("enable_thinking")? {
        kwargs.insert("enable_thinking".into(), enable.into());
    }
    Ok(kwargs)
}

/// A whole answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChatCompletion<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<ChatChoice>,
    pub(crate) usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<WireTimings>,
}

/// One choice of a whole answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChatChoice {
    pub(crate) index: usize,
    pub(crate) message: AssistantMessage,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// The message of a choice.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AssistantMessage {
    pub(crate) role: &'static str,
    pub(crate) content: String,
    pub(crate) refusal: Option<String>,
    /// DeepSeek's name for the reasoning; vLLM and llama.cpp use it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<String>,
    /// OpenRouter's name for the same text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<String>,
}

/// Part of a streamed answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChatChunk<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<ChunkChoice>,
    /// Left out unless asked for; then `null` but in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<WireTimings>,
}

/// Part of one streamed choice.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChunkChoice {
    pub(crate) index: usize,
    pub(crate) delta: Delta,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// What a chunk adds to the message.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Delta {
    /// Sent once: clients glue repeated strings together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<String>,
}

/// Log-probabilities of a choice's tokens, those of its reasoning included.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ChatLogprobs {
    pub(crate) content: Vec<TokenLogprob>,
    pub(crate) refusal: Option<Vec<TokenLogprob>>,
}

/// One token's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TokenLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<TopLogprob>,
}

/// A rival's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TopLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<TokenInfo> for TokenLogprob {
    fn from(token: TokenInfo) -> Self {
        let Candidate { text, bytes, logprob } = token.chosen;
        let top = |rival: Candidate| TopLogprob {
            token: rival.text,
            logprob: wire_logprob(rival.logprob),
            bytes: rival.bytes,
        };
        Self {
            token: text,
            logprob: wire_logprob(logprob),
            bytes,
            top_logprobs: token.top.into_iter().map(top).collect(),
        }
    }
}

impl From<Vec<TokenInfo>> for ChatLogprobs {
    fn from(tokens: Vec<TokenInfo>) -> Self {
        Self { content: tokens.into_iter().map(TokenLogprob::from).collect(), refusal: None }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(extra: Value) -> Result<ChatRequest, ApiError> {
        let mut body = json!({"model": "mock::", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ChatRequest::read(body.as_object().unwrap())
    }

    #[test]
    fn documented_but_unsupported_fields_are_refused_by_name() {
        let cases = [
            json!({"response_format": {"type": "json_object"}}),
            json!({"tools": [{"type": "function"}]}),
            json!({"tool_choice": "auto"}),
            json!({"functions": [{}]}),
            json!({"modalities": ["text", "audio"]}),
            json!({"audio": {"voice": "alloy", "format": "wav"}}),
            json!({"prediction": {"type": "content", "content": "x"}}),
            json!({"web_search_options": {}}),
            json!({"service_tier": "flex"}),
            json!({"best_of": 2}),
            json!({"store": true}),
            json!({"grammar": "root ::= x"}),
            json!({"mirostat": 2}),
        ];
        for case in cases {
            let name = case.as_object().unwrap().keys().next().unwrap().clone();
            let error = read(case).unwrap_err().body();
            assert_eq!(error["error"]["code"], "unsupported_parameter", "{name}");
            assert_eq!(error["error"]["param"], name.as_str());
            assert!(error["error"]["message"].as_str().unwrap().contains(&name));
        }
    }

    #[test]
    fn neutral_null_and_unknown_fields_pass() {
        let request = read(json!({
            "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "modalities": ["text"],
            "service_tier": "auto", "store": false, "user": "u", "metadata": {"a": "b"}, "temperature": null,
            "parallel_tool_calls": true, "no_such_field": {"x": [1]}, "typical_p": 1, "logit_bias": {"5": null},
        }));
        assert!(request.is_ok(), "{request:?}");
    }

    #[test]
    fn ranges_are_checked() {
        let cases = [
            json!({"temperature": 4.1}),
            json!({"temperature": "1"}),
            json!({"top_p": -0.1}),
            json!({"top_p": 1e300}),
            json!({"max_tokens": 0}),
            json!({"max_tokens": -1}),
            json!({"max_tokens": 1.5}),
            json!({"n": 9}),
            json!({"n": 0}),
            json!({"top_logprobs": 3}),
            json!({"logprobs": true, "top_logprobs": 21}),
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            json!({"stop": ""}),
            json!({"stop": [1]}),
            json!({"seed": 1.5}),
            json!({"logit_bias": {"x": 1}}),
            json!({"logit_bias": {"1": 101}}),
            json!({"stream_options": {"include_usage": true}}),
            json!({"stream": 1}),
            json!({"stop_token_ids": [-1]}),
            json!({"chat_template_kwargs": {"messages": []}}),
            json!({"reasoning_effort": "extreme"}),
            json!({"repeat_penalty": 1.1, "repetition_penalty": 1.2}),
        ];
        for case in cases {
            let error = read(case.clone()).map(|_| ()).unwrap_err().body();
            assert_eq!(error["error"]["type"], "invalid_request_error", "{case}");
            assert!(error["error"]["param"].is_string(), "{case}");
        }
        assert_eq!(read(json!({"seed": -1})).unwrap().params.max_tokens, None);
        assert_eq!(read(json!({"max_tokens": 3, "max_completion_tokens": 5})).unwrap().params.max_tokens, Some(5));
        assert_eq!(read(json!({"logprobs": true})).unwrap().params.logprobs, Some(0));
    }

    #[test]
    fn thinking_switches_reach_the_template() {
        let kwargs = |extra| read(extra).unwrap().template_kwargs;
        assert_eq!(kwargs(json!({"enable_thinking": false}))["enable_thinking"], false);
        let none = kwargs(json!({"reasoning_effort": "none"}));
        assert_eq!((&none["reasoning_effort"], &none["enable_thinking"]), (&json!("none"), &json!(false)));
        assert_eq!(kwargs(json!({"chat_template_kwargs": {"style": "terse"}}))["style"], "terse");
    }
}
