//! The messages of a chat request, checked and brought into the form that chat templates read.

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::limits;
use crate::params::{Fields, kind};

/// Keys of a message that templates may see besides `role` and `content`.
const PASSED_ON: [&str; 4] = ["name", "tool_call_id", "reasoning_content", "tool_calls"];

/// Reads `messages` into an array of objects whose `content` is a string.
pub(crate) fn read(fields: &Fields<'_>) -> Result<Value, ApiError> {
    let messages = fields.array("messages")?.ok_or_else(|| ApiError::invalid_param("messages", "is missing"))?;
    if messages.is_empty() || messages.len() > limits::MESSAGES {
        let problem = format_args!("holds {} messages; it must be in 1..={}", messages.len(), limits::MESSAGES);
        return Err(ApiError::invalid_param("messages", problem));
    }
    messages.iter().enumerate().map(|(index, message)| read_message(index, message)).collect()
}

fn read_message(index: usize, message: &Value) -> Result<Value, ApiError> {
    let prefix = format!("messages[{index}].");
    let Value::Object(object) = message else {
        let problem = format_args!("must be an object, not {}", kind(message));
        return Err(ApiError::invalid_param(format!("messages[{index}]"), problem));
    };
    let fields = Fields::nested(object, &prefix);
    let role = fields.string("role")?.ok_or_else(|| ApiError::invalid_param(format!("{prefix}role"), "is missing"))?;
    // Templates know the newer name of system messages under its old one.
    let template_role = match role {
        "developer" => "system",
        "system" | "user" | "assistant" | "tool" => role,
        _ => {
            let problem = format_args!("is {role:?}; it must be system, developer, user, assistant or tool");
            return Err(ApiError::invalid_param(format!("{prefix}role"), problem));
        }
    };
    for name in ["audio", "function_call"] {
        if fields.get(name).is_some() {
            return Err(ApiError::unsupported_param(format!("{prefix}{name}"), "is not supported by this server"));
        }
    }
    let mut read = Map::new();
    read.insert("role".into(), template_role.into());
    read.insert("content".into(), read_content(&fields, &prefix, role)?.into());
    for name in PASSED_ON {
        let value = match name {
            "tool_calls" => fields.array(name)?.map(|calls| calls.iter().map(read_tool_call).collect()),
            _ => fields.string(name)?.map(Value::from),
        };
        if let Some(value) = value {
            read.insert(name.into(), value);
        }
    }
    Ok(Value::Object(read))
}

/// The text of a message; its parts, when it has some, are joined by line ends.
fn read_content(fields: &Fields<'_>, prefix: &str, role: &str) -> Result<String, ApiError> {
    match fields.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts: Result<Vec<_>, _> =
                parts.iter().enumerate().map(|(i, part)| read_part(part, &format!("{prefix}content[{i}]"))).collect();
            Ok(texts?.join("\n"))
        }
        Some(other) => {
            let problem = format_args!("must be a string or an array of parts, not {}", kind(other));
            Err(ApiError::invalid_param(format!("{prefix}content"), problem))
        }
        // Beside tool calls or reasoning there may be none.
        None if role == "assistant" => Ok(String::new()),
        None => Err(ApiError::invalid_param(format!("{prefix}content"), "is missing")),
    }
}

fn read_part<'a>(part: &'a Value, path: &str) -> Result<&'a str, ApiError> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => part
            .get("text")
            .and_then(Value::as_str)
            .ok_or_else(|| ApiError::invalid_param(path, "must hold a string under `text`")),
        Some(other) => {
            Err(ApiError::unsupported_param(path, format_args!("is a part of type {other:?}; only text is supported")))
        }
        None => Err(ApiError::invalid_param(path, "must be an object with a `type`")),
    }
}

/// A call of an earlier turn. On the wire its arguments are JSON text; templates expect the object.
fn read_tool_call(call: &Value) -> Value {
    let mut call = call.clone();
    if let Some(arguments) = call.pointer_mut("/function/arguments")
        && let Some(Ok(parsed @ Value::Object(_))) = arguments.as_str().map(serde_json::from_str)
    {
        *arguments = parsed;
    }
    call
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::needless_pass_by_value)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json(messages: Value) -> Result<Value, ApiError> {
        read(&Fields::new(json!({ "messages": messages }).as_object().unwrap()))
    }

    #[test]
    fn messages_take_the_form_of_templates() {
        let read = read_json(json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "hi", "name": "Ann", "unknown": 1},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "2"},
        ]));
        let expected = json!([
            {"role": "system", "content": "a\nb"},
            {"role": "user", "content": "hi", "name": "Ann"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
            {"role": "tool", "content": "2", "tool_call_id": "1"},
        ]);
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn refusals_name_the_message() {
        let cases = [
            (json!([]), "messages"),
            (json!("hi"), "messages"),
            (json!([{"role": "user", "content": "a"}, 3]), "messages[1]"),
            (json!([{"role": "wizard", "content": "a"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 7}]), "messages[0].content"),
            (json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), "messages[0].content[0]"),
            (json!([{"role": "assistant", "audio": {"id": "x"}}]), "messages[0].audio"),
        ];
        for (messages, param) in cases {
            let body = read_json(messages.clone()).unwrap_err().body();
            assert_eq!(body["error"]["param"], param, "{messages}");
        }
    }
}
