//! Finding the weight files of a Hugging Face folder.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;

use super::WeightError;

/// Largest `config.json` or `generation_config.json` in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Largest shard index in bytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;

pub(super) const CONFIG: &str = "config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
/// What the names of torch files begin with.
pub(super) const TORCH: &str = "pytorch_model.bin";
/// Weight files of a whole model, each beside the index of the same in shards; the first that is
/// there counts.
const WEIGHTS: [(&str, &str); 2] =
    [("model.safetensors", "model.safetensors.index.json"), (TORCH, "pytorch_model.bin.index.json")];
/// All files that make a folder a Hugging Face checkpoint.
pub(crate) const WEIGHT_FILES: [&str; 4] = [WEIGHTS[0].0, WEIGHTS[0].1, WEIGHTS[1].0, WEIGHTS[1].1];

/// What a checkpoint folder holds.
pub(super) enum Contents {
    /// A file of all weights.
    Single(&'static str),
    /// Shards and the index of this name.
    Sharded(&'static str),
    /// One GGUF model: a file, or the first part of a split one.
    Gguf(PathBuf),
}

/// Looks at the file names of `folder`.
pub(super) fn contents(folder: &Path) -> Result<Contents, WeightError> {
    for (single, index) in WEIGHTS {
        if folder.join(single).is_file() {
            return Ok(Contents::Single(single));
        }
        if folder.join(index).is_file() {
            return Ok(Contents::Sharded(index));
        }
    }
    let mut ggufs = Vec::new();
    let io = |source| WeightError::Io { file: folder.to_path_buf(), source };
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && path.is_file() {
            ggufs.push(path);
        }
    }
    ggufs.sort();
    let problem = match ggufs.as_slice() {
        [] => format!("the folder holds no `{}` or `.gguf` file", WEIGHT_FILES.join("`, `")),
        [one] => return Ok(Contents::Gguf(one.clone())),
        [first, ..] if super::gguf::is_split_set(&ggufs) => return Ok(Contents::Gguf(first.clone())),
        several => {
            let names: Vec<_> = several.iter().filter_map(|p| p.file_name()?.to_str()).take(8).collect();
            format!("the folder holds {} `.gguf` files; name one of them ({}…)", several.len(), names.join(", "))
        }
    };
    Err(WeightError::NotACheckpoint { path: folder.to_path_buf(), problem })
}

/// The JSON object in `file`. Python's `NaN` and `Infinity`, which JSON does not have, become
/// strings.
pub(super) fn read_object(file: &Path) -> Result<Value, WeightError> {
    let text = quote_non_finite(&read_limited(file, MAX_CONFIG_BYTES)?);
    let value: Value = parse_json(file, &text)?;
    if !value.is_object() {
        return Err(WeightError::Json { file: file.to_path_buf(), message: "it is not an object".into() });
    }
    Ok(value)
}

/// The shards that the index at `file` names: tensor names by shard file name, in the index's order.
pub(super) fn read_index(file: &Path) -> Result<IndexMap<String, Vec<String>>, WeightError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: IndexMap<String, String>,
    }
    let index: Index = parse_json(file, &read_limited(file, MAX_INDEX_BYTES)?)?;
    let mut shards = IndexMap::<String, Vec<String>>::new();
    for (tensor, shard) in index.weight_map {
        if !is_plain_file_name(&shard) {
            return Err(WeightError::ShardName { file: file.to_path_buf(), tensor, shard });
        }
        shards.entry(shard).or_default().push(tensor);
    }
    Ok(shards)
}

fn read_limited(file: &Path, limit: u64) -> Result<Vec<u8>, WeightError> {
    let io = |source| WeightError::Io { file: file.to_path_buf(), source };
    let mut text = Vec::new();
    // One byte more than allowed tells a file of the limit from a longer one.
    let read = File::open(file).map_err(io)?.take(limit + 1).read_to_end(&mut text).map_err(io)?;
    if read as u64 > limit {
        let found = fs::metadata(file).map_err(io)?.len();
        return Err(WeightError::JsonTooLarge { file: file.to_path_buf(), found, limit });
    }
    Ok(text)
}

fn parse_json<T: serde::de::DeserializeOwned>(file: &Path, text: &[u8]) -> Result<T, WeightError> {
    serde_json::from_slice(text)
        .map_err(|error| WeightError::Json { file: file.to_path_buf(), message: error.to_string() })
}

/// Puts quotes around the numbers that Python's `json` writes and no other parser reads.
fn quote_non_finite(text: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut quoted = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(&byte) = rest.first() {
        let word = WORDS.into_iter().find(|word| !in_string && rest.starts_with(word));
        let length = match word {
            Some(word) => word.len(),
            // An escape sequence goes over as a whole, so that `\"` does not end the string.
            None if in_string && byte == b'\\' => rest.len().min(2),
            None => 1,
        };
        let (token, after) = rest.split_at(length);
        if word.is_some() {
            quoted.extend([b"\"", token, b"\""].concat());
        } else {
            quoted.extend(token);
            in_string ^= byte == b'"';
        }
        rest = after;
    }
    quoted
}

/// True for a name that can only mean a file of the folder itself, on every system.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(c)), None) if c == name);
    single && name.len() <= 255 && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::{is_plain_file_name, quote_non_finite};

    #[test]
    fn only_bare_non_finite_numbers_are_quoted() {
        let quoted = |text: &str| String::from_utf8(quote_non_finite(text.as_bytes()));
        let text = r#"{"limit": [0.0, Infinity], "NaN": -Infinity, "a\"NaN": "Infinity", "x": NaN}"#;
        let expected = r#"{"limit": [0.0, "Infinity"], "NaN": "-Infinity", "a\"NaN": "Infinity", "x": "NaN"}"#;
        assert_eq!(quoted(text).as_deref(), Ok(expected));
        for same in ["", "{}", r#""\"#, r#"{"a": "NaN\\"}"#, "\"\\"] {
            assert_eq!(quoted(same).as_deref(), Ok(same));
        }
    }

    #[test]
    fn only_plain_names_pass() {
        for name in ["model-00001-of-00002.safetensors", "a", "..a", "a b.safetensors"] {
            assert!(is_plain_file_name(name), "{name:?}");
        }
        let long = "a".repeat(256);
        for name in ["", ".", "..", "../a", "a/../b", "/a", "a/", "./a", "a\\b", "C:a", "C:\\a", "a\0b", &long] {
            assert!(!is_plain_file_name(name), "{name:?}");
        }
    }
}
