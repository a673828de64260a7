//! Reading the fields of a request: types and ranges are checked here, and every refusal names
//! the field.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ApiError;

/// A request's JSON object. A field that is `null` counts as not given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// What stands before a field's name in messages: empty, or `parent.`.
    prefix: &'a str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>) -> Self {
        Self { object, prefix: "" }
    }

    pub(crate) fn nested(object: &'a Map<String, Value>, prefix: &'a str) -> Self {
        Self { object, prefix }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> ApiError {
        ApiError::invalid_param(self.path(name), format_args!("must be {expected}, not {}", kind(found)))
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong_type(name, expected, value))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.read(name, "a string", Value::as_str)
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "a boolean", Value::as_bool)
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
        self.read(name, "an object", Value::as_object)
    }

    pub(crate) fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, ApiError> {
        self.read(name, "an array", Value::as_array)
    }

    pub(crate) fn number(&self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.read(name, "a number", Value::as_f64)? else { return Ok(None) };
        let narrow = value as f32;
        if range.contains(&narrow) {
            return Ok(Some(narrow));
        }
        let (low, high) = range.into_inner();
        Err(ApiError::invalid_param(self.path(name), format_args!("is {value}; it must be in {low}..={high}")))
    }

    pub(crate) fn integer(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        if !value.is_number() {
            return Err(self.wrong_type(name, "an integer", value));
        }
        if let Some(integer) = value.as_u64().filter(|integer| range.contains(integer)) {
            return Ok(Some(integer));
        }
        let (low, high) = range.into_inner();
        let bound = if high == u64::MAX { format!("at least {low}") } else { format!("in {low}..={high}") };
        Err(ApiError::invalid_param(self.path(name), format_args!("is {value}; it must be an integer, {bound}")))
    }

    /// A seed: any 64-bit integer, signed or not.
    pub(crate) fn seed(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.read(name, "a 64-bit integer", |value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)))
    }

    /// Token ids, for a field that must be an array of them.
    pub(crate) fn token_ids(&self, name: &str) -> Result<Option<Vec<u32>>, ApiError> {
        let Some(values) = self.array(name)? else { return Ok(None) };
        token_ids(values).map(Some).ok_or_else(|| ApiError::invalid_param(self.path(name), "must hold token ids"))
    }

    /// `stop`: a string or an array of strings.
    pub(crate) fn strings(&self, name: &str, most: usize, most_bytes: usize) -> Result<Vec<String>, ApiError> {
        let strings = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::String(string)) => vec![string.clone()],
            Some(Value::Array(values)) => {
                let strings: Option<Vec<_>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
                strings.ok_or_else(|| ApiError::invalid_param(self.path(name), "must hold strings"))?
            }
            Some(other) => return Err(self.wrong_type(name, "a string or an array of strings", other)),
        };
        if strings.len() > most {
            let problem = format_args!("holds {} strings; at most {most}", strings.len());
            return Err(ApiError::invalid_param(self.path(name), problem));
        }
        if let Some(bad) = strings.iter().find(|string| string.is_empty() || string.len() > most_bytes) {
            let problem = format_args!("holds a string of {} bytes; it must be in 1..={most_bytes}", bad.len());
            return Err(ApiError::invalid_param(self.path(name), problem));
        }
        Ok(strings)
    }

    /// Refuses the fields of `table` unless their value asks for what happens anyway.
    pub(crate) fn refuse(&self, table: &[(&str, Neutral)]) -> Result<(), ApiError> {
        for (name, neutral) in table {
            if let Some(value) = self.get(name)
                && !neutral.allows(value)
            {
                let detail = match neutral.describe() {
                    None => "is not supported by this server".into(),
                    Some(allowed) => format!("is not supported by this server, other than {allowed}"),
                };
                return Err(ApiError::unsupported_param(self.path(name), detail));
            }
        }
        Ok(())
    }
}

/// Values of an unsupported field that change nothing and are let through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Neutral {
    /// None.
    Never,
    /// This boolean.
    Bool(bool),
    /// This number.
    Number(f64),
    /// Any of these strings.
    Text(&'static [&'static str]),
    /// `""`, `[]` or `{}`.
    Empty,
    /// An array of just this string.
    Only(&'static str),
    /// An object of just this `type`.
    Type(&'static str),
}

impl Neutral {
    fn allows(self, value: &Value) -> bool {
        match self {
            Self::Never => false,
            Self::Bool(neutral) => value.as_bool() == Some(neutral),
            Self::Number(neutral) => value.as_f64() == Some(neutral),
            Self::Text(neutral) => value.as_str().is_some_and(|text| neutral.contains(&text)),
            Self::Empty => match value {
                Value::String(string) => string.is_empty(),
                Value::Array(array) => array.is_empty(),
                Value::Object(object) => object.is_empty(),
                _ => false,
            },
            Self::Only(neutral) => value.as_array().is_some_and(|array| matches!(&array[..], [one] if one == neutral)),
            Self::Type(neutral) => value
                .as_object()
                .is_some_and(|object| object.len() == 1 && object.get("type").is_some_and(|t| t == neutral)),
        }
    }

    fn describe(self) -> Option<String> {
        match self {
            Self::Never | Self::Empty => None,
            Self::Bool(neutral) => Some(neutral.to_string()),
            Self::Number(neutral) => Some(neutral.to_string()),
            Self::Text(neutral) => Some(format!("\"{}\"", neutral.join("\" or \""))),
            Self::Only(neutral) => Some(format!("[\"{neutral}\"]")),
            Self::Type(neutral) => Some(format!("{{\"type\": \"{neutral}\"}}")),
        }
    }
}

/// `values` as token ids; `None` when one is no `u32`.
pub(crate) fn token_ids(values: &[Value]) -> Option<Vec<u32>> {
    values.iter().map(|value| value.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

/// What a JSON value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
