//! The Jinja environment that Hugging Face's `apply_chat_template` sets up.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::{methods, python_json, time};

/// Units of work a rendering may take: one per instruction and per 64 bytes handled. A long chat
/// takes some 100 per message.
const FUEL: u64 = 1_000_000;
/// Deepest nesting of macro calls and blocks.
const MAX_RECURSION: usize = 200;

/// An environment without templates.
pub(super) fn new() -> Result<Environment<'static>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_unknown_method_callback(methods::call);
    // Its output grows with the square of a value's depth, before the fuel for it is counted.
    environment.remove_filter("pprint");
    environment.add_filter("tojson", tojson);
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", time::strftime_now);
    Ok(environment)
}

/// As in Python, where None can't be iterated.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// As in Python, where strings and dictionaries have a length and items too.
fn is_sequence(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Iterable | Map | Seq | String | Undefined)
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
}

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[allow(clippy::needless_pass_by_value)] // minijinja hands over arguments by value
fn tojson(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > names.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut arguments = [const { Value::UNDEFINED }; 4];
    for (index, name) in names.into_iter().enumerate() {
        let value = match positional.get(index) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        arguments[index] = value.unwrap_or_default();
    }
    named.assert_all_used()?;
    let [ensure_ascii, indent, separators, sort_keys] = arguments;
    let indent = match indent {
        absent if absent.is_undefined() || absent.is_none() => None,
        text if text.as_str().is_some() => text.as_str().map(str::to_owned),
        count => Some(" ".repeat(usize::try_from(count)?.min(64))),
    };
    let separators = match separators {
        absent if absent.is_undefined() || absent.is_none() => None,
        pair => match (pair.get_item_by_index(0)?.as_str(), pair.get_item_by_index(1)?.as_str()) {
            (Some(item), Some(key)) => Some((item.to_owned(), key.to_owned())),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, "separators are no pair of strings")),
        },
    };
    let style = python_json::Style::new(ensure_ascii.is_true(), indent, separators, sort_keys.is_true());
    python_json::dumps(value, &style)
}

/// Replaces the training-time tags `{% generation %}` and `{% endgeneration %}`, which mark what an
/// assistant said and print nothing, by a block that is always taken.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let body = &tag[2..];
        let opening = &body[..body.len() - body.trim_start_matches(['-', '+']).len()];
        let word = body[opening.len()..].trim_start();
        let replaced = ["generation", "endgeneration"].into_iter().zip(["if true", "endif"]).find_map(|(name, new)| {
            let after = word.strip_prefix(name)?;
            let closing = after.trim_start();
            (closing.starts_with("%}") || closing.starts_with("-%}") || closing.starts_with("+%}"))
                .then_some((new, after))
        });
        match replaced {
            Some((new, after)) => {
                out.push_str("{%");
                out.push_str(opening);
                out.push(' ');
                out.push_str(new);
                rest = after;
            }
            None => {
                out.push_str("{%");
                rest = body;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::without_generation_tags;

    #[test]
    fn generation_tags_become_a_neutral_block() {
        let source = "a{%- generation -%} b {% endgeneration %}{% set generation = 1 %}{% generation_x %}";
        let expected = "a{%- if true -%} b {% endif %}{% set generation = 1 %}{% generation_x %}";
        assert_eq!(without_generation_tags(source), expected);
    }
}
