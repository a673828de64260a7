//! Encoders for the vocabulary types, with the parts that Hugging Face's converters give them.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Sequence};

use super::pre_types;
use super::sentencepiece;
use super::vocabulary::Vocabulary;
use crate::text::tokenizer::guarded;
use crate::weights::GgufMetadata;
use crate::{Error, Result};

/// An encoder without its added tokens, and what it puts around a text.
pub(super) struct Parts {
    pub(super) encoder: tokenizers::Tokenizer,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
}

/// The encoder for `tokenizer.ggml.model`.
pub(super) fn parts(model: &str, meta: &GgufMetadata, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let flag = |key: &str| meta.get_bool(&format!("tokenizer.ggml.{key}"));
    let mut parts = match model {
        "gpt2" => byte_level(meta, vocabulary)?,
        "llama" => llama(meta, vocabulary, flag("add_space_prefix")?.unwrap_or(true))?,
        "gemma4" => gemma4(meta, vocabulary)?,
        "t5" => unigram(meta, vocabulary, flag("add_space_prefix")?.unwrap_or(true))?,
        _ => {
            let known = "gpt2, llama, gemma4, t5";
            return Err(Error::Tokenizer(format!("unknown tokenizer.ggml.model `{model}`; known: {known}")));
        }
    };
    // Early Gemma 4 files say `false` although the model can't do without its BOS.
    if model != "gemma4" {
        parts.add_bos = flag("add_bos_token")?.unwrap_or(parts.add_bos);
    }
    parts.add_eos = flag("add_eos_token")?.unwrap_or(parts.add_eos);
    Ok(parts)
}

/// Byte-level BPE (GPT-2 and nearly all since), split into words as `tokenizer.ggml.pre` says.
fn byte_level(meta: &GgufMetadata, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let name = meta.get_str("tokenizer.ggml.pre")?.unwrap_or_else(|| {
        tracing::warn!("tokenizer.ggml.pre is absent: an old file, whose text may be split unlike in training");
        "default"
    });
    let pre = pre_types::find(name)?;
    let merges = vocabulary.merges(meta)?;
    let model = guarded("tokenizer.ggml.merges", || {
        BPE::builder().vocab_and_merges(bpe_vocabulary(vocabulary), merges).ignore_merges(pre.ignore_merges).build()
    })?;
    let mut encoder = tokenizers::Tokenizer::new(model);
    if pre.nfc {
        encoder.with_normalizer(Some(part::<NormalizerWrapper>(json!({"type": "NFC"}))?));
    }
    encoder.with_pre_tokenizer(Some(part::<tokenizers::PreTokenizerWrapper>(pre.split.pre_tokenizer())?));
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    encoder.with_decoder(Some(part::<tokenizers::DecoderWrapper>(byte_level)?));
    Ok(Parts { encoder, add_bos: pre.add_bos, add_eos: false })
}

/// Sentencepiece BPE with byte fallback (Llama 1 and 2, Mistral 7B): no words, merges by score.
fn llama(meta: &GgufMetadata, vocabulary: &Vocabulary<'_>, add_space_prefix: bool) -> Result<Parts> {
    let merges = sentencepiece::merges(vocabulary, &vocabulary.scores(meta)?)?;
    let mut encoder = byte_fallback_bpe(vocabulary, merges)?;
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = byte_fallback_decoders();
    if add_space_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
    encoder.with_normalizer(Some(part::<NormalizerWrapper>(normalizer)?));
    let decoder = json!({"type": "Sequence", "decoders": decoders});
    encoder.with_decoder(Some(part::<tokenizers::DecoderWrapper>(decoder)?));
    Ok(Parts { encoder, add_bos: true, add_eos: false })
}

/// Gemma 4: merges over the whole text, blanks as U+2581, byte fallback.
fn gemma4(meta: &GgufMetadata, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let mut encoder = byte_fallback_bpe(vocabulary, vocabulary.merges(meta)?)?;
    let normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    encoder.with_normalizer(Some(part::<NormalizerWrapper>(normalizer)?));
    let decoder = json!({"type": "Sequence", "decoders": byte_fallback_decoders()});
    encoder.with_decoder(Some(part::<tokenizers::DecoderWrapper>(decoder)?));
    Ok(Parts { encoder, add_bos: true, add_eos: false })
}

/// Sentencepiece unigram (T5): the likeliest split by score.
fn unigram(meta: &GgufMetadata, vocabulary: &Vocabulary<'_>, add_space_prefix: bool) -> Result<Parts> {
    let scores = vocabulary.scores(meta)?;
    let pieces = (0..vocabulary.len())
        .zip(scores)
        .map(|(id, score)| (vocabulary.token(id).unwrap_or_default().to_owned(), f64::from(score)))
        .collect();
    let unknown = vocabulary.unknown.unwrap_or(2) as usize;
    let model = guarded("tokenizer.ggml.scores", || Unigram::from(pieces, Some(unknown), false))?;
    let mut encoder = tokenizers::Tokenizer::new(model);

    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if let Some(charsmap) = meta.get_array("tokenizer.ggml.precompiled_charsmap")? {
        let byte = |value: crate::weights::GgufValue<'_>| value.as_i64().map(|n| n as u8);
        let bytes: Option<Vec<u8>> = charsmap.iter().map(byte).collect();
        let key = "tokenizer.ggml.precompiled_charsmap";
        let bytes = bytes.ok_or_else(|| Error::Tokenizer(format!("{key} holds something else than bytes")))?;
        normalizers.push(guarded(key, || Ok(Precompiled::from(&bytes)?))?.into());
    }
    if meta.get_bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(true) {
        normalizers.push(part(json!({"type": "Strip", "strip_left": false, "strip_right": true}))?);
        normalizers.push(part(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}))?);
    }
    encoder.with_normalizer(Some(Sequence::new(normalizers)));
    let scheme = if add_space_prefix { "always" } else { "never" };
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    encoder.with_pre_tokenizer(Some(part::<tokenizers::PreTokenizerWrapper>(metaspace.clone())?));
    encoder.with_decoder(Some(part::<tokenizers::DecoderWrapper>(metaspace)?));
    Ok(Parts { encoder, add_bos: false, add_eos: true })
}

fn byte_fallback_bpe(vocabulary: &Vocabulary<'_>, merges: Vec<(String, String)>) -> Result<tokenizers::Tokenizer> {
    let mut builder =
        BPE::builder().vocab_and_merges(bpe_vocabulary(vocabulary), merges).fuse_unk(true).byte_fallback(true);
    if let Some(token) = vocabulary.unknown.and_then(|id| vocabulary.token(id)) {
        builder = builder.unk_token(token.to_owned());
    }
    Ok(tokenizers::Tokenizer::new(guarded("tokenizer.ggml.merges", || builder.build())?))
}

fn byte_fallback_decoders() -> Vec<Value> {
    vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ]
}

fn bpe_vocabulary(vocabulary: &Vocabulary<'_>) -> Vocab {
    vocabulary.iter().map(|(id, token)| (token.to_owned(), id)).collect()
}

/// A part of an encoder as `tokenizer.json` writes it.
fn part<T: DeserializeOwned>(description: Value) -> Result<T> {
    serde_json::from_value(description).map_err(|error| Error::Tokenizer(error.to_string()))
}
