//! JSON as Python's `json.dumps` writes it, which is what models saw in training.

use std::borrow::Cow;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::MAX_OUTPUT_BYTES;

/// Deepest nesting; `serde_json` reads no deeper either.
const MAX_DEPTH: usize = 128;

/// The options of `json.dumps`.
#[derive(Debug)]
pub(super) struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: Cow<'static, str>,
    key_separator: Cow<'static, str>,
    sort_keys: bool,
}

impl Style {
    /// `separators` are those between items and after keys; by default ", " (without the blank
    /// at a line's end, with `indent`) and ": ".
    pub(super) fn new(
        ensure_ascii: bool,
        indent: Option<String>,
        separators: Option<(String, String)>,
        sort_keys: bool,
    ) -> Self {
        let (item_separator, key_separator) = match separators {
            Some((item, key)) => (item.into(), key.into()),
            None if indent.is_some() => (",".into(), ": ".into()),
            None => (", ".into(), ": ".into()),
        };
        Self { ensure_ascii, indent, item_separator, key_separator, sort_keys }
    }
}

/// Writes `value` as JSON.
///
/// # Errors
/// When it holds something that JSON lacks, is nested too deeply or its JSON is too long.
pub(super) fn dumps(value: &Value, style: &Style) -> Result<String, Error> {
    let mut writer = Writer { out: String::new(), style };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        // Values share their parts: a small program can build one whose JSON is without end.
        if depth > MAX_DEPTH || self.out.len() > MAX_OUTPUT_BYTES {
            return Err(refuse("tojson: the value is nested too deeply or too long"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.list(value.try_iter()?.checked(), depth, ['[', ']'], |this, item| this.value(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                if self.style.sort_keys {
                    keys.sort();
                }
                self.list(keys.into_iter().map(Ok), depth, ['{', '}'], |this, key| {
                    this.key(&key)?;
                    this.out.push_str(&this.style.key_separator);
                    this.value(&value.get_item(&key)?, depth + 1)
                })?;
            }
            kind => return Err(refuse(&format!("tojson: a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn list(
        &mut self,
        items: impl Iterator<Item = Result<Value, Error>>,
        depth: usize,
        brackets: [char; 2],
        mut write: impl FnMut(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(brackets[0]);
        let mut empty = true;
        for item in items {
            if !empty {
                self.out.push_str(&self.style.item_separator);
            }
            empty = false;
            self.new_line(depth + 1);
            write(self, item?)?;
        }
        if !empty {
            self.new_line(depth);
        }
        self.out.push(brackets[1]);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    /// A key; Python turns numbers, booleans and None into strings.
    fn key(&mut self, key: &Value) -> Result<(), Error> {
        let text = match key.kind() {
            ValueKind::String => Cow::Borrowed(key.as_str().unwrap_or_default()),
            ValueKind::None => "null".into(),
            ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
            ValueKind::Number if key.is_integer() => key.to_string().into(),
            ValueKind::Number => float(f64::try_from(key.clone())?).into(),
            kind => return Err(refuse(&format!("tojson: a key of type {kind} is not JSON serializable"))),
        };
        self.string(&text);
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                control if control < ' ' => self.escape(u32::from(control)),
                other if self.style.ensure_ascii && !(' '..='~').contains(&other) => {
                    for unit in other.encode_utf16(&mut [0; 2]) {
                        self.escape(u32::from(*unit));
                    }
                }
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u32) {
        self.out.push_str(&format!("\\u{unit:04x}"));
    }
}

/// A float as Python's `repr` writes it.
fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    // Both print the shortest digits that read back as `x`; Python's exponents have two digits and
    // begin at 1e16 and below 1e-4.
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = x.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

fn refuse(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use minijinja::Value;
    use minijinja::value::Serde;
    use serde_json::json;

    use super::{Style, dumps, float};

    fn from_json(value: serde_json::Value) -> Value {
        Value::from(Serde(value))
    }

    fn style() -> Style {
        Style::new(false, None, None, false)
    }

    #[test]
    fn writes_what_python_writes() {
        let value = from_json(json!({"b": [1, 2.0, true, null], "a": {"é\n\u{1f}\"": "🙂"}, "c": [], "d": {}}));
        assert_eq!(
            dumps(&value, &style()).unwrap(),
            "{\"b\": [1, 2.0, true, null], \"a\": {\"é\\n\\u001f\\\"\": \"🙂\"}, \"c\": [], \"d\": {}}"
        );
        let sorted = Style::new(true, Some("  ".into()), None, true);
        assert_eq!(
            dumps(&value, &sorted).unwrap(),
            "{\n  \"a\": {\n    \"\\u00e9\\n\\u001f\\\"\": \"\\ud83d\\ude42\"\n  },\n  \"b\": [\n    1,\n    2.0,\n    true,\n    null\n  ],\n  \"c\": [],\n  \"d\": {}\n}"
        );
        let compact = Style::new(false, None, Some((",".into(), ":".into())), false);
        assert_eq!(dumps(&from_json(json!({"a": [1, 2]})), &compact).unwrap(), "{\"a\":[1,2]}");
    }

    #[test]
    fn floats_are_pythons() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (123456.789, "123456.789"),
            (f64::INFINITY, "Infinity"),
        ];
        for (x, expected) in cases {
            assert_eq!(float(x), expected);
        }
    }

    #[test]
    fn depth_and_length_end() {
        let mut deep = Value::from(0);
        let mut wide = Value::from("x");
        for _ in 0..200 {
            deep = Value::from(vec![deep]);
        }
        for _ in 0..60 {
            wide = Value::from(vec![wide.clone(), wide]);
        }
        assert!(dumps(&deep, &style()).is_err());
        assert!(dumps(&wide, &style()).is_err());
        assert!(dumps(&Value::from_bytes(vec![1]), &style()).is_err());
    }
}
