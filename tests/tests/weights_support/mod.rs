//! Weight files written byte by byte, so that tests can get any byte wrong.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;

/// The folder of a fixture case.
pub(crate) fn case(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/llm_dense").join(name)
}

/// GGUF value types.
pub(crate) const U8: u32 = 0;
pub(crate) const I32: u32 = 5;
pub(crate) const F32: u32 = 6;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STR: u32 = 8;
pub(crate) const ARRAY: u32 = 9;
pub(crate) const U64: u32 = 10;

/// A GGUF file under construction; `build` writes it. Counts follow the entries unless they are set.
#[derive(Clone)]
pub(crate) struct Gguf {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) key_count: Option<u64>,
    pub(crate) alignment: usize,
    pub(crate) data_bytes: usize,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Vec<u8>>,
}

/// A length-prefixed string.
pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// An array value: element type, length and elements.
pub(crate) fn array(element: u32, length: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &length.to_le_bytes(), elements].concat()
}

impl Default for Gguf {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            alignment: 32,
            data_bytes: 0,
            keys: Vec::new(),
            tensors: Vec::new(),
        }
    }
}

impl Gguf {
    /// A key with a value of `kind` given by its bytes.
    pub(crate) fn key(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.keys.push([string(key.as_bytes()), kind.to_le_bytes().to_vec(), value.to_vec()].concat());
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.key(key, F32, &value.to_le_bytes())
    }

    pub(crate) fn str(self, key: &str, value: &str) -> Self {
        self.key(key, STR, &string(value.as_bytes()))
    }

    /// The bytes of a key, in place of a whole pair.
    pub(crate) fn raw_key(mut self, bytes: &[u8]) -> Self {
        self.keys.push(bytes.to_vec());
        self
    }

    /// A tensor entry; `dimensions` innermost first.
    pub(crate) fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        self.tensor_of_rank(name, dimensions.len() as u32, dimensions, kind, offset)
    }

    /// A tensor entry that states another number of dimensions than it lists.
    pub(crate) fn tensor_of_rank(mut self, name: &str, rank: u32, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let mut entry = string(name.as_bytes());
        entry.extend(rank.to_le_bytes());
        dimensions.iter().for_each(|size| entry.extend(size.to_le_bytes()));
        entry.extend(kind.to_le_bytes());
        entry.extend(offset.to_le_bytes());
        self.tensors.push(entry);
        self
    }

    pub(crate) fn data(mut self, bytes: usize) -> Self {
        self.data_bytes = bytes;
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = self.magic.to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        self.keys.iter().chain(&self.tensors).for_each(|entry| file.extend(entry));
        if self.data_bytes > 0 {
            file.resize(file.len().next_multiple_of(self.alignment), 0);
            file.extend((0..self.data_bytes).map(|i| i as u8));
        }
        file
    }
}

/// The smallest metadata that makes a model of one layer, width 32 and 4 tokens.
pub(crate) fn tiny_llama() -> Gguf {
    Gguf::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.embedding_length", 32)
        .u32("llama.context_length", 128)
        .u32("llama.attention.head_count", 2)
}

/// A safetensors file with this header text and `data_bytes` bytes of data.
pub(crate) fn safetensors(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((0..data_bytes).map(|i| i as u8));
    file
}
