//! The tokenizer of a Hugging Face folder: `tokenizer.json` and what its neighbours name.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use tokenizers::AddedToken;

use super::{Affixes, NamedToken, Specials, Tokenizer, guarded};
use crate::{Error, Result};

/// The texts of the tokens that start and end a text where no file beside `tokenizer.json` names
/// them: Parcae's is released alone.
const UNNAMED: [(&str, &str); 2] = [("bos_token", "<|bos|>"), ("eos_token", "<|eos|>")];

/// Largest tokenizer file read; Gemma's holds 33 MB.
const MAX_FILE_BYTES: u64 = 512 << 20;

impl Tokenizer {
    /// Reads `tokenizer.json`, with the bos, eos and added tokens of `tokenizer_config.json`;
    /// `None` when the folder has no `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Tokenizer`] when a file can't be read or is malformed.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("tokenizer.json");
        let Some(bytes) = read_file(&path, MAX_FILE_BYTES)? else { return Ok(None) };
        let what = path.display().to_string();
        let mut encoder = guarded(&what, || tokenizers::Tokenizer::from_bytes(&bytes))?;
        drop(bytes);

        let config = read_json(&folder.join("tokenizer_config.json"))?;
        // Older repositories keep the names in a file of their own.
        let map = read_json(&folder.join("special_tokens_map.json"))?;
        let alone = config.is_none() && map.is_none();
        let (config, map) = (config.unwrap_or_default(), map.unwrap_or_default());
        add_tokens(&mut encoder, &config)?;
        let unnamed = |key: &str| {
            let (_, text) = UNNAMED.into_iter().find(|(known, _)| alone && *known == key)?;
            encoder.token_to_id(text).map(|_| text)
        };
        let named = |key: &str| {
            let text = token_content(&config[key]).or_else(|| token_content(&map[key])).or_else(|| unnamed(key))?;
            Some(NamedToken { id: encoder.token_to_id(text), text: text.to_owned() })
        };
        let (bos, eos) = (named("bos_token"), named("eos_token"));
        let eos_token_ids = eos.as_ref().and_then(|token| token.id).into_iter().collect();
        Self::assemble(encoder, Affixes::default(), Specials { bos, eos, eos_token_ids }).map(Some)
    }
}

/// Adds the tokens that only `tokenizer_config.json` lists. They must get the ids that it states.
fn add_tokens(encoder: &mut tokenizers::Tokenizer, config: &Value) -> Result<()> {
    let Some(listed) = config["added_tokens_decoder"].as_object() else { return Ok(()) };
    let mut missing = Vec::new();
    for (id, token) in listed {
        let malformed = || Error::Tokenizer(format!("tokenizer_config.json: added_tokens_decoder `{id}` is malformed"));
        let content = token["content"].as_str().ok_or_else(malformed)?;
        let number: u32 = id.parse().map_err(|_| malformed())?;
        if encoder.token_to_id(content).is_none() {
            let flag = |key: &str| token[key].as_bool().unwrap_or(false);
            let token = AddedToken::from(content, flag("special"))
                .single_word(flag("single_word"))
                .lstrip(flag("lstrip"))
                .rstrip(flag("rstrip"))
                .normalized(flag("normalized"));
            missing.push((number, token));
        }
    }
    missing.sort_by_key(|(id, _)| *id);
    for (id, token) in missing {
        let content = token.content.clone();
        encoder.add_tokens(&[token]);
        let found = encoder.token_to_id(&content);
        if found != Some(id) {
            return Err(Error::Tokenizer(format!(
                "tokenizer_config.json gives `{content}` the id {id}, but tokenizer.json leaves it {found:?}"
            )));
        }
    }
    Ok(())
}

/// A token named as a string or as an object with its `content`.
fn token_content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A JSON file's value; `None` when there is no such file.
pub(in crate::text) fn read_json(path: &Path) -> Result<Option<Value>> {
    let Some(bytes) = read_file(path, MAX_FILE_BYTES)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Tokenizer(format!("{}: {error}", path.display())))
}

/// A file's bytes; `None` when there is no such file.
pub(in crate::text) fn read_file(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if metadata.len() > most {
        let problem = format!("{} holds {} bytes; at most {most}", path.display(), metadata.len());
        return Err(Error::Tokenizer(problem));
    }
    std::fs::read(path).map(Some).map_err(io)
}
