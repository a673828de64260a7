//! Typed, range-checked access to a `config.json`.

use serde_json::Value;

use crate::{Error, Result};

/// Largest size that a shape in a config may name; far above any released model.
const MAX_SIZE: u64 = 1 << 26;

/// A `config.json`, or the same made from GGUF metadata.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    value: &'a Value,
}

impl<'a> Config<'a> {
    /// Reads from `value`, which should be an object.
    pub fn new(value: &'a Value) -> Self {
        Self { value }
    }

    /// The settings of the language model: `text_config` in files of a multimodal model, else all.
    pub fn text(&self) -> Self {
        self.value.get("text_config").filter(|text| text.is_object()).map_or(*self, Self::new)
    }

    /// The value of `key` unless it is absent or null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    /// The string at `key`.
    pub fn str(&self, key: &str) -> Option<&'a str> {
        self.value(key)?.as_str()
    }

    fn error<T>(key: &str, problem: impl Into<String>) -> Result<T> {
        Err(Error::Config { key: key.into(), problem: problem.into() })
    }

    /// The size at `key`, `1..=2^26`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is absent, no integer or out of range; so for all that follow.
    pub fn size(&self, key: &str) -> Result<usize> {
        match self.value(key).map(|v| (v, v.as_u64())) {
            None => Self::error(key, "is missing"),
            Some((_, Some(n @ 1..=MAX_SIZE))) => Ok(n as usize),
            Some((v, _)) => Self::error(key, format!("is {v}; expected an integer in 1..={MAX_SIZE}")),
        }
    }

    /// The size at `key`, or `default` when absent.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.value(key).is_none() { Ok(default) } else { self.size(key) }
    }

    /// The size at `key`, which may be 0, or 0 when absent.
    pub fn size_or_zero(&self, key: &str) -> Result<usize> {
        if self.value(key).is_none_or(|v| v.as_u64() == Some(0)) { Ok(0) } else { self.size(key) }
    }

    /// The positive finite number at `key`.
    pub fn positive(&self, key: &str) -> Result<f64> {
        match self.value(key).map(|v| (v, v.as_f64())) {
            None => Self::error(key, "is missing"),
            Some((_, Some(x))) if x.is_finite() && x > 0.0 => Ok(x),
            Some((v, _)) => Self::error(key, format!("is {v}; expected a positive number")),
        }
    }

    /// The positive finite number at `key`, or `default` when absent.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.value(key).is_none() { Ok(default) } else { self.positive(key) }
    }

    /// The boolean at `key`, or `default` when absent.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.value(key).map(|v| (v, v.as_bool())) {
            None => Ok(default),
            Some((_, Some(flag))) => Ok(flag),
            Some((v, None)) => Self::error(key, format!("is {v}; expected true or false")),
        }
    }

    /// The list of integers at `key`, of `length` entries, when present.
    pub fn sizes(&self, key: &str, length: usize) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let list = value
            .as_array()
            .map(|list| list.iter().map(|v| v.as_u64().map(|n| n as usize)).collect::<Option<Vec<_>>>())
            .unwrap_or_default();
        match list {
            Some(list) if list.len() == length => Ok(Some(list)),
            _ => Self::error(key, format!("is not a list of {length} integers")),
        }
    }

    /// An integer or a list of them, as `eos_token_id` comes.
    pub fn ids(&self, key: &str) -> Vec<u32> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.value(key) {
            Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
            Some(v) => id(v).into_iter().collect(),
            None => Vec::new(),
        }
    }
}
