//! Fixture cases and hand-made GGUF metadata for the text tests.
#![allow(dead_code)] // no test file uses everything

use std::path::{Path, PathBuf};

use atelico_engine::text::{ChatTemplate, Tokenizer};
use atelico_engine::weights::{Checkpoint, GgufMetadata, gguf};
use serde_json::Value;

/// One fixture folder with its tokenizer and template.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) is_gguf: bool,
    pub(crate) golden: Value,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Option<ChatTemplate>,
}

/// Every case of `fixtures/llm_dense`.
pub(crate) fn cases() -> Vec<Case> {
    cases_in("llm_dense")
}

/// Every case of a folder of `fixtures`.
pub(crate) fn cases_in(folder: &str) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.json").is_file())
        .collect();
    folders.sort();
    folders.iter().map(|folder| case(folder)).collect()
}

/// The case in `folder`.
pub(crate) fn case(folder: &Path) -> Case {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let golden = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let is_gguf = !folder.join("tokenizer.json").exists();
    let (tokenizer, template) = if is_gguf {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let meta = checkpoint.gguf().unwrap();
        (Tokenizer::from_gguf(meta).unwrap(), ChatTemplate::from_gguf(meta).unwrap())
    } else {
        (Tokenizer::from_folder(folder).unwrap(), ChatTemplate::from_folder(folder).unwrap())
    };
    Case { tokenizer: tokenizer.unwrap_or_else(|| panic!("{name} has no tokenizer")), name, is_gguf, golden, template }
}

/// A JSON array of token ids.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// A metadata value to write.
#[derive(Clone)]
pub(crate) enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    Bytes(Vec<u8>),
}

/// The metadata of a GGUF file with these keys and no tensors.
pub(crate) fn metadata(pairs: &[(&str, Meta)]) -> GgufMetadata {
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        string(&mut file, key);
        match value {
            Meta::U32(n) => scalar(&mut file, 4, &n.to_le_bytes()),
            Meta::F32(x) => scalar(&mut file, 6, &x.to_le_bytes()),
            Meta::Bool(b) => scalar(&mut file, 7, &[u8::from(*b)]),
            Meta::Str(s) => {
                file.extend(8_u32.to_le_bytes());
                string(&mut file, s);
            }
            Meta::Strs(list) => {
                array(&mut file, 8, list.len());
                list.iter().for_each(|s| string(&mut file, s));
            }
            Meta::F32s(list) => {
                array(&mut file, 6, list.len());
                list.iter().for_each(|x| file.extend(x.to_le_bytes()));
            }
            Meta::I32s(list) => {
                array(&mut file, 5, list.len());
                list.iter().for_each(|n| file.extend(n.to_le_bytes()));
            }
            Meta::Bytes(list) => {
                array(&mut file, 0, list.len());
                file.extend(list);
            }
        }
    }
    gguf::parse(Path::new("hand-made.gguf"), &file).unwrap().metadata
}

fn scalar(file: &mut Vec<u8>, kind: u32, bytes: &[u8]) {
    file.extend(kind.to_le_bytes());
    file.extend(bytes);
}

fn array(file: &mut Vec<u8>, element: u32, length: usize) {
    file.extend(9_u32.to_le_bytes());
    file.extend(element.to_le_bytes());
    file.extend((length as u64).to_le_bytes());
}

fn string(file: &mut Vec<u8>, s: &str) {
    file.extend((s.len() as u64).to_le_bytes());
    file.extend(s.as_bytes());
}

/// A small repeatable source of random numbers (splitmix64).
pub(crate) struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
