//! Python's methods on strings, lists and dictionaries, as templates call them.

use minijinja::value::{Tuple, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Calls `method` on `value`: what `minijinja-contrib` knows, and a few more.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => match method {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                Ok(text.strip_prefix(prefix).unwrap_or(text).into())
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                Ok(text.strip_suffix(suffix).unwrap_or(text).into())
            }
            "partition" => {
                let (separator,) = from_args(args)?;
                let parts = text.split_once(separator).map(|(left, right)| [left, separator, right]);
                Ok(tuple(parts.unwrap_or([text, "", ""])))
            }
            "rpartition" => {
                let (separator,) = from_args(args)?;
                let parts = text.rsplit_once(separator).map(|(left, right)| [left, separator, right]);
                Ok(tuple(parts.unwrap_or(["", "", text])))
            }
            "rsplit" => rsplit(text, args),
            // Its widths would be paid for only after the text is there.
            "format" if has_wide_field(text) => {
                Err(Error::new(ErrorKind::InvalidOperation, "format: a field is too wide or computes its width"))
            }
            _ => pycompat::unknown_method_callback(state, value, method, args),
        },
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Whether a format string asks for a width of five digits or more, or takes one from an argument.
fn has_wide_field(format: &str) -> bool {
    let wide = format.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 4);
    let nested = format.replace("{{", "").split('{').skip(1).any(|field| !field.contains('}'));
    wide || nested
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let Some(separator) = separator.filter(|separator| !separator.is_empty()) else {
        return Err(Error::new(ErrorKind::InvalidOperation, "rsplit needs a separator"));
    };
    let most = most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<Value> = text.rsplitn(most, separator).map(Value::from).collect();
    parts.reverse();
    Ok(parts.into())
}

fn tuple(parts: [&str; 3]) -> Value {
    Value::from(Tuple::from(parts.map(Value::from)))
}
