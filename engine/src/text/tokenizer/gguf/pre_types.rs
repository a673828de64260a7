//! How a byte-level vocabulary's text is cut into words before merging (`tokenizer.ggml.pre`).
//!
//! The names are llama.cpp's (`src/llama-vocab.cpp`); the patterns are those of the models' own
//! `tokenizer.json`, which llama.cpp's hand-written splitters imitate.

use serde_json::{Value, json};

use crate::{Error, Result};

/// What a `tokenizer.ggml.pre` stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreType {
    pub(super) split: Split,
    /// A word that is in the vocabulary is one token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// A BOS is added unless the file says otherwise.
    pub(super) add_bos: bool,
    /// Text is brought to Unicode's composed normal form first.
    pub(super) nfc: bool,
}

/// The rule that cuts text into words.
#[derive(Clone, Copy, Debug)]
pub(super) enum Split {
    /// Every match of each pattern in turn becomes a word of its own.
    Patterns(&'static [&'static str]),
    /// Digits one by one, then GPT-2's pattern.
    DigitsGpt2,
    /// GPT-2's pattern.
    Gpt2,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CJK: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names that share a rule, and the rule.
type Row = (&'static [&'static str], PreType);

const fn plain(split: Split) -> PreType {
    PreType { split, ignore_merges: false, add_bos: false, nfc: false }
}

const LLAMA3_LIKE: PreType = PreType { ignore_merges: true, add_bos: true, ..plain(Split::Patterns(&[LLAMA3])) };

const ROWS: &[Row] = &[
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
        LLAMA3_LIKE,
    ),
    (&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], plain(Split::Patterns(&[LLAMA3]))),
    (&["qwen2", "deepseek-r1-qwen", "megrez"], PreType { nfc: true, ..plain(Split::Patterns(&[QWEN2])) }),
    (&["stablelm2", "hunyuan", "solar-open", "grok-2", "kormo"], plain(Split::Patterns(&[QWEN2]))),
    (&["qwen35"], PreType { nfc: true, ..plain(Split::Patterns(&[QWEN35])) }),
    (&["tekken"], PreType { ignore_merges: true, add_bos: true, ..plain(Split::Patterns(&[TEKKEN])) }),
    (&["gpt-4o", "llama4", "kanana2", "minimax-m2"], plain(Split::Patterns(&[GPT4O]))),
    (
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "gigachat",
            "exaone4",
            "trillion",
            "granite-docling",
            "mellum",
            "a.x-4.0",
        ],
        plain(Split::Gpt2),
    ),
    (
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        plain(Split::DigitsGpt2),
    ),
    (&["deepseek-v3", "hunyuan-dense", "joyai-llm"], plain(Split::Patterns(&[r"\p{N}{1,3}", CJK, DEEPSEEK_V3]))),
    (
        &["deepseek-coder"],
        plain(Split::Patterns(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\u{d7ff}]+", r"\p{N}"])),
    ),
    (&["falcon"], plain(Split::Patterns(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]))),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], plain(Split::Patterns(&[BAILING]))),
    (&["seed-coder"], plain(Split::Patterns(&[SEED_CODER]))),
    (&["minicpm5"], PreType { ignore_merges: true, ..plain(Split::Patterns(&[r"\p{N}{1,3}", MINICPM5])) }),
    (&["default"], plain(Split::Patterns(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]))),
];

/// The rule called `name`.
pub(super) fn find(name: &str) -> Result<PreType> {
    match ROWS.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, pre)) => Ok(*pre),
        None => {
            let known: Vec<_> = ROWS.iter().flat_map(|(names, _)| *names).copied().collect();
            let known = known.join(", ");
            Err(Error::Tokenizer(format!("unknown tokenizer.ggml.pre `{name}`; known: {known}")))
        }
    }
}

impl Split {
    /// The pre-tokenizer as `tokenizer.json` writes it.
    pub(super) fn pre_tokenizer(self) -> Value {
        let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let steps = match self {
            Self::Gpt2 => return byte_level(true),
            Self::DigitsGpt2 => vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)],
            Self::Patterns(patterns) => {
                let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
                patterns.iter().map(split).chain([byte_level(false)]).collect()
            }
        };
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

#[cfg(test)]
mod tests {
    use super::{ROWS, find};

    #[test]
    #[allow(clippy::unwrap_used)]
    fn every_rule_compiles_and_every_name_is_unique() {
        let mut names = std::collections::HashSet::new();
        for (row, pre) in ROWS {
            assert!(row.iter().all(|name| names.insert(*name)), "{row:?}");
            let json = pre.split.pre_tokenizer();
            serde_json::from_value::<tokenizers::PreTokenizerWrapper>(json).unwrap();
        }
        let error = find("klingon").unwrap_err().to_string();
        assert!(error.contains("`klingon`") && error.contains("llama-bpe"), "{error}");
    }
}
