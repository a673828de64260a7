//! The tokenizer embedded in a GGUF: the vocabulary of its metadata, put into the same parts that
//! a `tokenizer.json` of that model has.

mod build;
mod pre_types;
mod sentencepiece;
mod vocabulary;

use tokenizers::AddedToken;

use self::build::Parts;
use self::vocabulary::{Kind, Vocabulary};
use super::{Affixes, NamedToken, Specials, Tokenizer, guarded};
use crate::weights::GgufMetadata;
use crate::{Error, Result};

/// Tokens that end a turn or a text. A GGUF stores one id; the others are known by their text.
const END_TOKENS: [&str; 16] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<EOT>",
    "[EOT]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
];

impl Tokenizer {
    /// Builds the tokenizer whose vocabulary a GGUF holds (`tokenizer.ggml.*`); `None` when it
    /// holds none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the vocabulary is of an unknown type or contradicts itself,
    /// [`Error::Weights`] when a key has the wrong type.
    pub fn from_gguf(meta: &GgufMetadata) -> Result<Option<Self>> {
        let model = match meta.get_str("tokenizer.ggml.model")? {
            None | Some("no_vocab" | "none") => return Ok(None),
            Some(model) => model,
        };
        let mut vocabulary = Vocabulary::read(meta)?;
        vocabulary.mark_control(|token| is_control_by_text(model, token));
        let Parts { mut encoder, add_bos, add_eos } = build::parts(model, meta, &vocabulary)?;

        let special_ids = [vocabulary.bos, vocabulary.eos, vocabulary.eot, vocabulary.eom];
        let added: Vec<AddedToken> = (0..vocabulary.len())
            .filter_map(|id| {
                let token = vocabulary.token(id)?;
                let special =
                    matches!(vocabulary.kind(id), Kind::Control | Kind::Unknown) || special_ids.contains(&Some(id));
                (special || vocabulary.kind(id) == Kind::UserDefined)
                    .then(|| AddedToken::from(token, special).normalized(false))
            })
            .collect();
        guarded("tokenizer.ggml.tokens", || Ok(encoder.add_tokens(&added)))?;

        let end = |wanted: bool, id: Option<u32>, key: &str| match (wanted, id) {
            (true, None) => Err(Error::Tokenizer(format!(
                "a `{key}` token is to be added but tokenizer.ggml.{key}_token_id is absent"
            ))),
            (wanted, id) => Ok(id.filter(|_| wanted)),
        };
        let affixes =
            Affixes { prefix: end(add_bos, vocabulary.bos, "bos")?, suffix: end(add_eos, vocabulary.eos, "eos")? };
        let named = |id: Option<u32>| Some(NamedToken { id, text: vocabulary.token(id?)?.to_owned() });
        let specials = Specials {
            bos: named(vocabulary.bos),
            eos: named(vocabulary.eos),
            eos_token_ids: end_token_ids(&vocabulary),
        };
        Self::assemble(encoder, affixes, specials).map(Some)
    }
}

/// Whether a token that a converter left an ordinary one is a control token after all.
fn is_control_by_text(model: &str, token: &str) -> bool {
    // Gemma 4 spells its own like `<|turn>` and `<turn|>`.
    let name = token.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let gemma = name.is_some_and(|name| {
        let bare = name.trim_matches('|');
        bare.len() < name.len() && !bare.is_empty() && bare.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    });
    (model == "gemma4" && gemma) || (token.contains('|') && END_TOKENS.contains(&token))
}

/// The ids that end a generation, in ascending order.
fn end_token_ids(vocabulary: &Vocabulary<'_>) -> Vec<u32> {
    let control = |text: &str| vocabulary.id(text).filter(|&id| vocabulary.kind(id) == Kind::Control);
    let mut ids: Vec<u32> = [vocabulary.eos, vocabulary.eot, vocabulary.eom].into_iter().flatten().collect();
    // In gpt-oss's format `<|end|>` ends one of several messages of an answer.
    let several_messages = control("<|return|>").is_some() && control("<|call|>").is_some();
    ids.extend(
        END_TOKENS.iter().filter(|&&text| !(several_messages && text == "<|end|>")).filter_map(|text| control(text)),
    );
    ids.sort_unstable();
    ids.dedup();
    ids
}
