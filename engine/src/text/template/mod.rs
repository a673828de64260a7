//! Chat templates: a list of messages to the text that a model was trained on.

mod environment;
mod methods;
mod python_json;
mod sandbox;
mod time;

use std::path::Path;

use minijinja::value::Serde;
use serde::Serialize;
use serde_json::{Map, Value};

use self::sandbox::Sandbox;
use super::tokenizer::{read_file, read_json};
use crate::weights::GgufMetadata;
use crate::{Error, Result};

/// Longest template in bytes; the longest in use hold about 30 KB.
const MAX_SOURCE_BYTES: usize = 128 << 10;
/// Longest rendered text in bytes.
const MAX_OUTPUT_BYTES: usize = 8 << 20;
/// Longest error text in bytes; a template chooses what it says.
const MAX_MESSAGE_BYTES: usize = 2048;

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// Names that a template gets from [`ChatTemplate::render`] itself.
const RESERVED: [&str; 6] = ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"];

/// A checkpoint's chat template: a Jinja program, which is run with a limit on its work, its
/// memory and its output, since checkpoints come from strangers.
pub struct ChatTemplate {
    sandbox: Sandbox,
    source: String,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source_bytes", &self.source.len()).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads the template of a Hugging Face folder: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json` (one, or several by name), else in `chat_template.json`; `None` when
    /// there is none.
    ///
    /// # Errors
    /// [`Error::Io`] when a file can't be read, [`Error::Template`] when the template is malformed.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>> {
        if let Some(bytes) = read_file(&folder.join("chat_template.jinja"), MAX_SOURCE_BYTES as u64)? {
            let source = String::from_utf8(bytes)
                .map_err(|error| Error::Template(format!("chat_template.jinja is no UTF-8: {error}")))?;
            return Self::from_source(source).map(Some);
        }
        for file in ["tokenizer_config.json", "chat_template.json"] {
            let Some(mut config) = read_json(&folder.join(file))? else { continue };
            match config.get_mut("chat_template").map(Value::take) {
                None | Some(Value::Null) => {}
                Some(Value::String(source)) => return Self::from_source(source).map(Some),
                Some(Value::Array(list)) => return Self::from_named(named_templates(list)?).map(Some),
                Some(other) => {
                    let problem = format!("{file}: `chat_template` is neither a string nor a list: {other}");
                    return Err(Error::Template(limited(problem)));
                }
            }
        }
        Ok(None)
    }

    /// Reads the template of a GGUF (`tokenizer.chat_template`, and `tokenizer.chat_template.tool_use`
    /// for requests with tools); `None` when it has none.
    ///
    /// # Errors
    /// [`Error::Weights`] when a key has the wrong type, [`Error::Template`] when the template is
    /// malformed.
    pub fn from_gguf(meta: &GgufMetadata) -> Result<Option<Self>> {
        let Some(source) = meta.get_str("tokenizer.chat_template")? else { return Ok(None) };
        let mut templates = vec![(DEFAULT.to_owned(), source.to_owned())];
        if let Some(source) = meta.get_str("tokenizer.chat_template.tool_use")? {
            templates.push((TOOL_USE.to_owned(), source.to_owned()));
        }
        Self::from_named(templates).map(Some)
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// [`Error::Template`] when it is malformed or too long.
    pub fn from_source(source: String) -> Result<Self> {
        Self::from_named(vec![(DEFAULT.to_owned(), source)])
    }

    fn from_named(templates: Vec<(String, String)>) -> Result<Self> {
        let mut environment = environment::new().map_err(template_error)?;
        let mut default = None;
        for (name, source) in templates {
            if source.len() > MAX_SOURCE_BYTES {
                let length = source.len();
                return Err(Error::Template(format!("`{name}` holds {length} bytes; at most {MAX_SOURCE_BYTES}")));
            }
            let compiled = environment::without_generation_tags(&source);
            environment.add_template_owned(name.clone(), compiled).map_err(template_error)?;
            if name == DEFAULT {
                default = Some(source);
            }
        }
        let source = default.ok_or_else(|| Error::Template(format!("none of the templates is called `{DEFAULT}`")))?;
        Ok(Self { sandbox: Sandbox::new(environment), source })
    }

    /// The source of the default template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders `messages`, an array of objects. `tools`, a non-empty array, selects the checkpoint's
    /// template for tools where it has one. `kwargs` become variables of the template (e.g.
    /// `enable_thinking`). The text already holds the BOS: encode it without adding specials.
    ///
    /// # Errors
    /// [`Error::Template`] when the template fails, refuses the messages (`raise_exception`) or
    /// exceeds its limits, when `messages` or `tools` is no array, or when `kwargs` holds a name
    /// that is reserved.
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        kwargs: &Map<String, Value>,
        add_generation_prompt: bool,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<String> {
        if let Some(name) = RESERVED.iter().find(|name| kwargs.contains_key(**name)) {
            return Err(Error::Template(format!("the variable `{name}` is reserved")));
        }
        if !messages.as_array().is_some_and(|list| list.iter().all(Value::is_object)) {
            return Err(Error::Template("`messages` is no array of objects".into()));
        }
        if tools.is_some_and(|tools| !tools.is_array()) {
            return Err(Error::Template("`tools` is no array".into()));
        }
        let tools = tools.filter(|tools| tools.as_array().is_some_and(|list| !list.is_empty()));
        let name = if tools.is_some() && self.sandbox.has(TOOL_USE) { TOOL_USE } else { DEFAULT };

        let variable = |name: &str, value: minijinja::Value| (name.to_owned(), value);
        let mut context: Vec<_> = kwargs.iter().map(|(name, value)| variable(name, serialized(value))).collect();
        context.push(variable("messages", serialized(messages)));
        context.push(variable("tools", serialized(tools)));
        context.push(variable("documents", minijinja::Value::from(())));
        context.push(variable("add_generation_prompt", add_generation_prompt.into()));
        // Absent tokens stay undefined, as in Hugging Face's `special_tokens_map`.
        context.extend(bos_token.map(|token| variable("bos_token", token.into())));
        context.extend(eos_token.map(|token| variable("eos_token", token.into())));

        self.sandbox.render(name, minijinja::Value::from_pairs(context))
    }
}

fn serialized(value: impl Serialize) -> minijinja::Value {
    minijinja::Value::from(Serde(value))
}

fn named_templates(list: Vec<Value>) -> Result<Vec<(String, String)>> {
    let entry = |mut entry: Value| match (entry["name"].take(), entry["template"].take()) {
        (Value::String(name), Value::String(source)) => Ok((name, source)),
        _ => Err(Error::Template("an entry of `chat_template` lacks its `name` or `template`".into())),
    };
    list.into_iter().map(entry).collect()
}

#[allow(clippy::needless_pass_by_value)] // fits `map_err`
fn template_error(error: minijinja::Error) -> Error {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    Error::Template(limited(text))
}

/// `text`, cut to [`MAX_MESSAGE_BYTES`].
fn limited(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        text.push('…');
    }
    text
}
