//! Hand-made vocabularies: the types and flags that no fixture has, and hostile ones, each refused
//! with an error that names what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod text_support;

use atelico_engine::Error;
use atelico_engine::text::Tokenizer;
use text_support::{Meta, metadata};

type Pairs = Vec<(&'static str, Meta)>;

fn strings(list: &[&str]) -> Meta {
    Meta::Strs(list.iter().map(|s| (*s).to_owned()).collect())
}

fn text(s: &str) -> Meta {
    Meta::Str(s.to_owned())
}

/// A byte-level vocabulary of a few tokens.
fn gpt2() -> Pairs {
    vec![
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "Ġ", "Ġab", "<|end|>", "<think>", "1", "11"])),
        ("tokenizer.ggml.token_type", Meta::I32s(vec![1, 1, 1, 1, 1, 3, 4, 1, 1])),
        ("tokenizer.ggml.merges", strings(&["a b", "Ġ ab", "1 1"])),
        ("tokenizer.ggml.eos_token_id", Meta::U32(5)),
        ("tokenizer.ggml.bos_token_id", Meta::U32(5)),
    ]
}

/// A sentencepiece vocabulary with bytes for "é" and scores under which "abc" is "ab" + "c".
fn llama() -> Pairs {
    let tokens = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "c", "ab", "bc", "▁a"];
    vec![
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", strings(&tokens)),
        ("tokenizer.ggml.scores", Meta::F32s(vec![0., 0., 0., 0., 0., -9., -9., -9., -9., -1., -2., -3.])),
        ("tokenizer.ggml.token_type", Meta::I32s(vec![2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1])),
        ("tokenizer.ggml.unknown_token_id", Meta::U32(0)),
        ("tokenizer.ggml.bos_token_id", Meta::U32(1)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(2)),
    ]
}

fn t5() -> Pairs {
    let tokens = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "▁ab"];
    vec![
        ("tokenizer.ggml.model", text("t5")),
        ("tokenizer.ggml.tokens", strings(&tokens)),
        ("tokenizer.ggml.scores", Meta::F32s(vec![0., 0., 0., -2., -3., -3., -2.5, -4., -10.])),
        ("tokenizer.ggml.token_type", Meta::I32s(vec![3, 3, 2, 1, 1, 1, 1, 1, 1])),
        ("tokenizer.ggml.unknown_token_id", Meta::U32(2)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(1)),
    ]
}

fn with(mut pairs: Pairs, key: &'static str, value: Meta) -> Pairs {
    pairs.retain(|(name, _)| *name != key);
    pairs.push((key, value));
    pairs
}

fn without(mut pairs: Pairs, key: &str) -> Pairs {
    pairs.retain(|(name, _)| *name != key);
    pairs
}

fn build(pairs: &Pairs) -> Result<Tokenizer, Error> {
    Tokenizer::from_gguf(&metadata(pairs)).map(Option::unwrap)
}

#[test]
fn byte_level_merges_words_and_finds_added_tokens() {
    let tokenizer = build(&gpt2()).unwrap();
    assert_eq!(tokenizer.encode("ab ab<|end|><think>b", true).unwrap(), [2, 4, 5, 6, 1]);
    assert_eq!(tokenizer.decode(&[2, 4, 5, 6, 1], true).unwrap(), "ab ab<think>b");
    assert_eq!(tokenizer.decode(&[2, 4, 5, 6, 1], false).unwrap(), "ab ab<|end|><think>b");
    assert!(tokenizer.is_special(5) && !tokenizer.is_special(6));
    assert_eq!(tokenizer.eos_token_ids(), [5]);
    assert_eq!(tokenizer.token_to_id("<think>"), Some(6));
    assert_eq!((tokenizer.bos_token(), tokenizer.bos_token_id()), (Some("<|end|>"), Some(5)));
    assert_eq!(tokenizer.token_text(4).as_deref(), Some(" ab"));
}

#[test]
fn pre_types_split_differently() {
    let ids = |pre: &str, sample: &str| {
        build(&with(gpt2(), "tokenizer.ggml.pre", text(pre))).unwrap().encode(sample, false).unwrap()
    };
    assert_eq!(ids("gpt-2", "11"), [8]);
    assert_eq!(ids("smollm", "11"), [7, 7]);
    assert_eq!(ids("qwen2", "11"), [7, 7]);
    assert_eq!(ids("llama-bpe", "11"), [8]);
}

#[test]
fn whole_words_ignore_the_merges_where_the_type_says_so() {
    let no_merges = |pre: &str| {
        let pairs = with(gpt2(), "tokenizer.ggml.merges", Meta::Strs(Vec::new()));
        let pairs = with(pairs, "tokenizer.ggml.add_bos_token", Meta::Bool(false));
        build(&with(pairs, "tokenizer.ggml.pre", text(pre))).unwrap().encode("ab", true).unwrap()
    };
    assert_eq!(no_merges("llama-bpe"), [2]);
    assert_eq!(no_merges("qwen2"), [0, 1]);
}

#[test]
fn bos_and_eos_are_added_as_the_file_says() {
    let ids = |pairs: &Pairs| build(pairs).unwrap().encode("a", true).unwrap();
    assert_eq!(ids(&gpt2()), [0]);
    assert_eq!(ids(&with(gpt2(), "tokenizer.ggml.pre", text("llama-bpe"))), [5, 0], "the type's default");
    let both = with(gpt2(), "tokenizer.ggml.add_bos_token", Meta::Bool(true));
    let both = with(both, "tokenizer.ggml.add_eos_token", Meta::Bool(true));
    assert_eq!(ids(&both), [5, 0, 5]);
    assert_eq!(ids(&llama()), [1, 11]);
    assert_eq!(ids(&with(llama(), "tokenizer.ggml.add_bos_token", Meta::Bool(false))), [11]);
    assert_eq!(ids(&t5()), [6, 1]);
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = build(&llama()).unwrap();
    assert_eq!(tokenizer.encode("abc", false).unwrap(), [5, 9, 8]);
    assert_eq!(tokenizer.encode("aé", false).unwrap(), [11, 3, 4]);
    assert_eq!(tokenizer.encode("é", false).unwrap(), [5, 3, 4]);
    assert_eq!(tokenizer.encode("ü", false).unwrap(), [5, 0], "no byte token: unknown");
    assert_eq!(tokenizer.decode(&[11, 3, 4], false).unwrap(), "aé");
    let bare = build(&with(llama(), "tokenizer.ggml.add_space_prefix", Meta::Bool(false))).unwrap();
    assert_eq!(bare.encode("abc", false).unwrap(), [9, 8]);
    assert_eq!(bare.decode(&[5, 9], false).unwrap(), " ab");
}

#[test]
fn unigram_takes_the_likeliest_split() {
    let tokenizer = build(&t5()).unwrap();
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [6, 5], "-5.5 beats -6 and -10");
    assert_eq!(tokenizer.encode("ab  ab ", false).unwrap(), [6, 5, 6, 5]);
    assert_eq!(tokenizer.decode(&[6, 5, 6, 5, 1], true).unwrap(), "ab ab");
    assert_eq!(tokenizer.encode("z", false).unwrap(), [3, 2]);
}

#[test]
fn gemma4_merges_the_whole_text() {
    let tokens = ["<unk>", "<bos>", "<|turn>", "<turn|>", "▁", "a", "b", "▁a", "a▁", "<0x0A>", "<b>", "a▁b"];
    let pairs = vec![
        ("tokenizer.ggml.model", text("gemma4")),
        ("tokenizer.ggml.tokens", strings(&tokens)),
        ("tokenizer.ggml.token_type", Meta::I32s(vec![3, 3, 1, 1, 1, 1, 1, 1, 1, 6, 4, 1])),
        ("tokenizer.ggml.merges", strings(&["a ▁", "a▁ b", "▁ a"])),
        ("tokenizer.ggml.bos_token_id", Meta::U32(1)),
        ("tokenizer.ggml.unknown_token_id", Meta::U32(0)),
        ("tokenizer.ggml.add_bos_token", Meta::Bool(false)),
    ];
    let tokenizer = build(&pairs).unwrap();
    assert_eq!(
        tokenizer.encode("a b\n a", true).unwrap(),
        [1, 11, 9, 7],
        "merges cross words; the BOS is always there"
    );
    assert_eq!(tokenizer.encode("<|turn>a<turn|><b>", false).unwrap(), [2, 5, 3, 10], "control by their spelling");
    assert_eq!(tokenizer.decode(&[2, 7, 9, 5, 10], true).unwrap(), " a\na<b>");
    assert_eq!(tokenizer.eos_token_ids(), [3]);
}

#[test]
fn no_vocabulary_is_no_tokenizer() {
    assert!(Tokenizer::from_gguf(&metadata(&[])).unwrap().is_none());
    assert!(Tokenizer::from_gguf(&metadata(&[("tokenizer.ggml.model", text("no_vocab"))])).unwrap().is_none());
}

#[test]
fn contradictions_are_named() {
    let long = "x".repeat(70_000);
    let cases: Vec<(Pairs, &str)> = vec![
        (with(gpt2(), "tokenizer.ggml.model", text("rwkv")), "`rwkv`"),
        (with(gpt2(), "tokenizer.ggml.pre", text("klingon")), "`klingon`"),
        (without(gpt2(), "tokenizer.ggml.tokens"), "tokenizer.ggml.tokens"),
        (with(gpt2(), "tokenizer.ggml.tokens", strings(&[])), "tokenizer.ggml.tokens"),
        (
            with(gpt2(), "tokenizer.ggml.tokens", strings(&["a", "b", "ab", "Ġ", "Ġab", "a", "c", "1", "11"])),
            "`a` has the ids 0 and 5",
        ),
        (
            with(gpt2(), "tokenizer.ggml.tokens", strings(&["a", "b", "ab", "Ġ", "Ġab", &long, "c", "1", "11"])),
            "token 5 holds 70000 bytes",
        ),
        (with(gpt2(), "tokenizer.ggml.token_type", Meta::I32s(vec![1])), "token_type holds 1 entries for 9 tokens"),
        (
            with(gpt2(), "tokenizer.ggml.token_type", Meta::I32s(vec![1, 1, 1, 1, 1, 3, 9, 1, 1])),
            "token 6 has the unknown type 9",
        ),
        (without(gpt2(), "tokenizer.ggml.merges"), "tokenizer.ggml.merges is absent"),
        (with(gpt2(), "tokenizer.ggml.merges", strings(&["a b", "ab"])), "merge 1"),
        (with(gpt2(), "tokenizer.ggml.merges", strings(&["a b", ""])), "merge 1"),
        (with(gpt2(), "tokenizer.ggml.merges", strings(&["a zz"])), "names `zz`"),
        (with(gpt2(), "tokenizer.ggml.merges", strings(&["b a"])), "names `ba`"),
        (with(gpt2(), "tokenizer.ggml.merges", strings(&["a b "])), "names `b `"),
        (with(gpt2(), "tokenizer.ggml.eos_token_id", Meta::U32(9)), "eos_token_id is 9"),
        (with(gpt2(), "tokenizer.ggml.bos_token_id", Meta::U32(u32::MAX)), "bos_token_id is 4294967295"),
        (
            with(without(gpt2(), "tokenizer.ggml.bos_token_id"), "tokenizer.ggml.add_bos_token", Meta::Bool(true)),
            "bos_token_id is absent",
        ),
        (without(llama(), "tokenizer.ggml.scores"), "tokenizer.ggml.scores is absent"),
        (with(llama(), "tokenizer.ggml.scores", Meta::F32s(vec![0.0; 11])), "scores holds 11 entries for 12 tokens"),
        (
            with(llama(), "tokenizer.ggml.scores", Meta::F32s([vec![0.0; 11], vec![f32::NAN]].concat())),
            "token 11 has the score NaN",
        ),
        (with(t5(), "tokenizer.ggml.precompiled_charsmap", Meta::Bytes(vec![0xff; 7])), "precompiled_charsmap"),
        (with(t5(), "tokenizer.ggml.precompiled_charsmap", strings(&["x"])), "precompiled_charsmap"),
    ];
    for (pairs, expected) in cases {
        let error = build(&pairs).expect_err(expected);
        assert!(matches!(error, Error::Tokenizer(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{expected:?} is not in: {error}");
        assert!(error.to_string().len() < 2048);
    }
    let wrong_type = with(gpt2(), "tokenizer.ggml.tokens", Meta::F32(1.0));
    assert!(matches!(build(&wrong_type), Err(Error::Weights(_))));
}

#[test]
fn tokens_too_long_to_cut_are_refused_quickly() {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..200).map(|n| format!("{n}").repeat(20_000)));
    let count = tokens.len();
    let pairs = with(llama(), "tokenizer.ggml.tokens", Meta::Strs(tokens));
    let pairs = with(pairs, "tokenizer.ggml.scores", Meta::F32s(vec![0.0; count]));
    let pairs = without(pairs, "tokenizer.ggml.token_type");
    let start = std::time::Instant::now();
    assert!(matches!(build(&pairs), Err(Error::Tokenizer(_))));
    assert!(start.elapsed().as_secs() < 2);
}

#[test]
fn damaged_tokenizer_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(Tokenizer::from_folder(folder.path()).unwrap().is_none());
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/llm_dense/mistral_a/tokenizer.json");
    let good = std::fs::read_to_string(fixture).unwrap();
    let bad = [
        String::new(),
        "{}".into(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"BPE\"", "\"Klingon\""),
        good.replace("\"continuing_subword_prefix\": null", "\"continuing_subword_prefix\": \"ééééé\""),
        "[".repeat(100_000),
    ];
    for text in &bad {
        if text == &good {
            panic!("a replacement did nothing");
        }
        std::fs::write(&path, text).unwrap();
        let error = Tokenizer::from_folder(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Tokenizer(_)), "{error}");
    }
    std::fs::write(&path, &good).unwrap();
    let config = r#"{"added_tokens_decoder": {"99999": {"content": "<new>", "special": true}}}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("<new>") && error.contains("99999"), "{error}");
    let config =
        r#"{"bos_token": {"content": "<s>"}, "added_tokens_decoder": {"576": {"content": "<new>", "special": true}}}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap().unwrap();
    assert_eq!(tokenizer.encode("<new>", false).unwrap(), [576]);
    assert_eq!((tokenizer.bos_token(), tokenizer.bos_token_id()), (Some("<s>"), Some(1)));
}

#[test]
fn endless_texts_are_refused() {
    let tokenizer = build(&gpt2()).unwrap();
    assert_eq!(tokenizer.encode(&" ".repeat(400_000), false).unwrap().len(), 400_000);
    for text in [" ".repeat(600_000), "a".repeat(17 << 20)] {
        assert!(matches!(tokenizer.encode(&text, false), Err(Error::Tokenizer(_))));
    }
}
