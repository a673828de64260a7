//! Damaged and hostile checkpoints: each defect is refused with its own error, which names it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod weights_support;

use std::fs;
use std::path::Path;

use atelico_engine::weights::{Checkpoint, WeightError, gguf, safetensors};
use weights_support::{
    ARRAY, BOOL, F32, Gguf, I32, STR, U8, U64, array, case, safetensors as tensors, string, tiny_llama,
};

/// Asserts that GGUF `$bytes` are refused with the variant `$pattern` and a message with `$text`.
macro_rules! gguf_refused {
    ($bytes:expr, $text:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = gguf::parse(Path::new("hostile.gguf"), &$bytes[..]).expect_err("must be refused");
        check_error!(error, "hostile.gguf", $text, $pattern $(if $guard)?);
    }};
}

/// The same for a safetensors file.
macro_rules! safetensors_refused {
    ($bytes:expr, $text:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = safetensors::parse(Path::new("hostile.safetensors"), &$bytes[..]).expect_err("must be refused");
        check_error!(error, "hostile.safetensors", $text, $pattern $(if $guard)?);
    }};
}

/// The same for a checkpoint on disk.
macro_rules! open_refused {
    ($path:expr, $text:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = Checkpoint::open($path).expect_err("must be refused");
        check_error!(error, "", $text, $pattern $(if $guard)?);
    }};
}

macro_rules! check_error {
    ($error:expr, $file:expr, $text:expr, $pattern:pat $(if $guard:expr)?) => {{
        let message = $error.to_string();
        assert!(matches!($error, $pattern $(if $guard)?), "another variant: {:?}", $error);
        assert!(message.contains($file) && message.contains($text), "{message}");
    }};
}

fn gguf() -> Gguf {
    Gguf::default()
}

/// A file with one F32 tensor of 8 elements in 32 bytes of data.
fn one_tensor() -> Gguf {
    gguf().tensor("w", &[8], 0, 0).data(32)
}

#[test]
fn the_crafted_files_are_accepted_before_they_are_damaged() {
    let header = gguf::parse(Path::new("x"), &one_tensor().build()).unwrap();
    assert_eq!((header.tensors[0].begin, header.tensors[0].bytes), (64, 32));
    assert!(gguf::parse(Path::new("x"), &tiny_llama().build()).is_ok());
    assert!(gguf::parse(Path::new("x"), &Gguf { version: 2, ..one_tensor() }.build()).is_ok());
    assert!(gguf::parse(Path::new("x"), &gguf().build()).unwrap().tensors.is_empty());
    assert!(safetensors::parse(Path::new("x"), &tensors("{}", 0)).unwrap().is_empty());
    let scalar = r#"{"__metadata__":{"format":"pt"},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}  "#;
    assert!(safetensors::parse(Path::new("x"), &tensors(scalar, 4)).unwrap()[0].shape.is_empty());
    let empty = r#"{"e":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]}}"#;
    assert_eq!(safetensors::parse(Path::new("x"), &tensors(empty, 0)).unwrap()[0].bytes, 0);
}

#[test]
fn gguf_preamble() {
    gguf_refused!(b"", "the magic", WeightError::Truncated { expected: 4, found: 0, .. });
    gguf_refused!(b"GGU", "the magic", WeightError::Truncated { expected: 4, found: 3, .. });
    gguf_refused!(b"GGUF\x03\0", "the version", WeightError::Truncated { offset: 4, expected: 4, found: 2, .. });
    gguf_refused!(
        Gguf { magic: *b"GGML", ..gguf() }.build(),
        "GGUF",
        WeightError::Magic { found: [b'G', b'G', b'M', b'L'], .. }
    );
    gguf_refused!(Gguf { magic: *b"FUGG", ..gguf() }.build(), "GGUF", WeightError::Magic { .. });
    gguf_refused!(b"PK\x03\x04rest", "GGUF", WeightError::Magic { .. });
    for version in [0, 1, 4, u32::MAX] {
        gguf_refused!(Gguf { version, ..gguf() }.build(), "version", WeightError::Version { found, .. } if found == version);
    }
    for version in [2u32, 3] {
        let swapped = version.swap_bytes();
        gguf_refused!(Gguf { version: swapped, ..gguf() }.build(), "big-endian", WeightError::BigEndian { found, .. } if found == swapped);
    }
    gguf_refused!(gguf().build()[..12], "the tensor count", WeightError::Truncated { expected: 8, found: 4, .. });
    gguf_refused!(gguf().build()[..20], "the key count", WeightError::Truncated { expected: 8, found: 4, .. });
    for count in [1, 1 << 17, u64::MAX / 24, u64::MAX] {
        let tensors = Gguf { tensor_count: Some(count), ..gguf() };
        gguf_refused!(tensors.build(), "tensor count", WeightError::Count { what: "tensor", limit: 0, found, .. } if found == count);
        let keys = Gguf { key_count: Some(count), ..gguf() };
        gguf_refused!(keys.build(), "key count", WeightError::Count { what: "key", limit: 0, found, .. } if found == count);
    }
    // More than the reader's cap, in a file that is long enough.
    let many = Gguf { key_count: Some((1 << 16) + 1), ..gguf() };
    gguf_refused!(
        [many.build(), vec![0; 1 << 20]].concat(),
        "65537",
        WeightError::Count { what: "key", limit: 65536, .. }
    );
    let many = Gguf { tensor_count: Some((1 << 17) + 1), ..gguf() };
    gguf_refused!(
        [many.build(), vec![0; 8 << 20]].concat(),
        "131073",
        WeightError::Count { what: "tensor", limit: 131072, .. }
    );
    // One entry fewer than counted.
    let short = Gguf { key_count: Some(2), ..gguf().str("a", "a rather long value") };
    gguf_refused!(short.build(), "key 1", WeightError::Truncated { .. });
}

#[test]
fn gguf_keys() {
    let key_of_length =
        |length: u64, rest: usize| gguf().raw_key(&[&length.to_le_bytes()[..], &vec![b'k'; rest]].concat()).build();
    gguf_refused!(
        key_of_length(u64::MAX, 64),
        "key 0",
        WeightError::StringTooLong { limit: 65535, found: u64::MAX, .. }
    );
    gguf_refused!(key_of_length(65536, 70000), "key 0", WeightError::StringTooLong { limit: 65535, found: 65536, .. });
    gguf_refused!(key_of_length(65, 64), "key 0", WeightError::Truncated { expected: 65, found: 64, .. });
    gguf_refused!(gguf().u32("", 1).build(), "key 0", WeightError::EmptyName { what: "key", index: 0, .. });
    let not_text = [string(b"k\xff"), 4u32.to_le_bytes().to_vec(), vec![0; 4]].concat();
    gguf_refused!(gguf().raw_key(&not_text).build(), "key 0", WeightError::NotUtf8 { at: 1, .. });
    gguf_refused!(gguf().u32("a", 1).u32("b", 1).u32("a", 2).build(), "`a`", WeightError::DuplicateKey { .. });
    for kind in [13, 255, u32::MAX] {
        gguf_refused!(gguf().key("k", kind, &[0; 16]).build(), "`k`", WeightError::ValueType { found, .. } if found == kind);
    }
    gguf_refused!(gguf().key("k", BOOL, &[2]).build(), "`k`", WeightError::Boolean { found: 2, .. });
    let key_bytes = string(b"long-enough-key-for-one-entry");
    gguf_refused!(gguf().raw_key(&key_bytes).build(), "value type of key `long", WeightError::Truncated { .. });
    gguf_refused!(
        gguf().key("some-key", U64, &[0; 7]).build(),
        "`some-key`",
        WeightError::Truncated { expected: 8, found: 7, .. }
    );
    gguf_refused!(
        gguf().key("some-key", F32, &[0; 3]).build(),
        "`some-key`",
        WeightError::Truncated { expected: 4, found: 3, .. }
    );
}

#[test]
fn gguf_strings_and_arrays() {
    let string_of_length = |length: u64, rest: usize| {
        gguf().key("k", STR, &[&length.to_le_bytes()[..], &vec![b'v'; rest]].concat()).build()
    };
    gguf_refused!(string_of_length(u64::MAX, 32), "`k`", WeightError::StringTooLong { found: u64::MAX, .. });
    gguf_refused!(string_of_length((1 << 26) + 1, 32), "`k`", WeightError::StringTooLong { limit: 67_108_864, .. });
    gguf_refused!(string_of_length(33, 32), "`k`", WeightError::Truncated { expected: 33, found: 32, .. });
    gguf_refused!(gguf().key("k", STR, &string(b"ab\xc3")).build(), "`k`", WeightError::NotUtf8 { at: 2, .. });

    let arrays = |element, length, bytes: &[u8]| gguf().key("k", ARRAY, &array(element, length, bytes)).build();
    assert!(gguf::parse(Path::new("x"), &arrays(I32, 2, &[0; 8])).is_ok());
    gguf_refused!(arrays(I32, 3, &[0; 8]), "`k`", WeightError::ArrayLength { found: 3, limit: 2, .. });
    gguf_refused!(arrays(U8, u64::MAX, &[0; 8]), "`k`", WeightError::ArrayLength { found: u64::MAX, limit: 8, .. });
    // 2^61 elements of 8 bytes are 2^64 bytes, which a product of 64 bits takes for 0.
    gguf_refused!(arrays(U64, 1 << 61, &[0; 8]), "`k`", WeightError::ArrayLength { limit: 1, .. });
    gguf_refused!(arrays(STR, 1 << 62, &[0; 8]), "`k`", WeightError::ArrayLength { limit: 1, .. });
    gguf_refused!(
        arrays(U8, (1 << 24) + 1, &vec![0; (1 << 24) + 1]),
        "`k`",
        WeightError::ArrayLength { limit: 16_777_216, .. }
    );
    gguf_refused!(arrays(13, 1, &[0; 8]), "`k`", WeightError::ValueType { found: 13, .. });
    gguf_refused!(arrays(BOOL, 3, &[0, 1, 7]), "`k`", WeightError::Boolean { found: 7, .. });
    gguf_refused!(arrays(STR, 2, &string(b"only one, with room")), "`k`", WeightError::Truncated { .. });
    gguf_refused!(arrays(STR, 1, &string(b"\x80")), "`k`", WeightError::NotUtf8 { at: 0, .. });

    let nested = |depth: usize| (1..depth).fold(array(U8, 1, &[1]), |inner, _| array(ARRAY, 1, &inner));
    let depth = gguf::limits::ARRAY_DEPTH;
    assert!(gguf::parse(Path::new("x"), &gguf().key("k", ARRAY, &nested(depth)).build()).is_ok());
    for deep in [depth + 1, 65, 100_000] {
        gguf_refused!(
            gguf().key("k", ARRAY, &nested(deep)).build(),
            "`k`",
            WeightError::Nesting { found: 5, limit: 4, .. }
        );
    }
}

#[test]
fn gguf_alignment() {
    for alignment in [0, 3, 13, 24, 1 << 17, 1 << 31, u32::MAX] {
        let file = gguf().u32("general.alignment", alignment);
        gguf_refused!(file.build(), "general.alignment", WeightError::Alignment { found, .. } if found == u64::from(alignment));
    }
    let text = gguf().str("general.alignment", "32");
    gguf_refused!(text.build(), "general.alignment", WeightError::KeyType { .. });
    let negative = gguf().key("general.alignment", I32, &(-32i32).to_le_bytes());
    gguf_refused!(negative.build(), "general.alignment", WeightError::KeyType { .. });
    let aligned = Gguf { alignment: 64, ..gguf().u32("general.alignment", 64).tensor("w", &[8], 0, 64).data(96) };
    assert_eq!(gguf::parse(Path::new("x"), &aligned.build()).unwrap().tensors[0].begin % 64, 0);
    let other = gguf().u32("general.alignment", 64).tensor("w", &[8], 0, 32).data(64);
    gguf_refused!(other.build(), "`w`", WeightError::Misaligned { found: 32, alignment: 64, .. });
}

#[test]
fn gguf_tensor_entries() {
    let w = |dimensions: &[u64], kind, offset| gguf().tensor("w", dimensions, kind, offset).data(64).build();
    gguf_refused!(
        gguf().tensor("", &[8], 0, 0).data(32).build(),
        "tensor 0",
        WeightError::EmptyName { what: "tensor", .. }
    );
    let long = "n".repeat(1025);
    gguf_refused!(
        gguf().tensor(&long, &[8], 0, 0).data(32).build(),
        "tensor 0",
        WeightError::StringTooLong { limit: 1024, .. }
    );
    let twice = gguf().tensor("w", &[8], 0, 0).tensor("w", &[8], 0, 32).data(64);
    gguf_refused!(twice.build(), "`w`", WeightError::DuplicateTensor { .. });

    for rank in [0, 5, u32::MAX] {
        let file = gguf().tensor_of_rank("w", rank, &[1, 1, 1, 1, 1], 0, 0).data(32);
        gguf_refused!(file.build(), "`w`", WeightError::Dimensions { found, .. } if found == u64::from(rank));
    }
    gguf_refused!(w(&[8, 0], 0, 0), "`w`", WeightError::ZeroDimension { axis: 1, .. });
    gguf_refused!(w(&[0], 0, 0), "`w`", WeightError::ZeroDimension { axis: 0, .. });
    gguf_refused!(w(&[1 << 32, 1 << 32], 0, 0), "`w`", WeightError::ShapeOverflow { .. });
    gguf_refused!(w(&[1 << 62], 0, 0), "`w`", WeightError::ShapeOverflow { .. });
    gguf_refused!(w(&[u64::MAX, 2], 0, 0), "`w`", WeightError::ShapeOverflow { .. });
    // The product of these is 2^64 + 2^33, which wraps to something that would fit.
    gguf_refused!(w(&[1 << 33, (1 << 31) + 1], 24, 0), "`w`", WeightError::ShapeOverflow { .. });
    gguf_refused!(w(&[1 << 20; 4], 8, 0), "`w`", WeightError::ShapeOverflow { .. });

    for kind in [4, 5, 31, 33, 38, 42, 1000, u32::MAX] {
        gguf_refused!(w(&[8], kind, 0), "`w`", WeightError::UnknownType { ref found, .. } if *found == kind.to_string());
    }
    for (kind, block) in [(2, 32), (8, 32), (12, 256), (41, 128), (16, 256)] {
        gguf_refused!(w(&[block + 1, block], kind, 0), "`w`", WeightError::PartialBlock { block: found, .. } if found == block);
        gguf_refused!(w(&[block / 2, 2], kind, 0), "`w`", WeightError::PartialBlock { found, .. } if found == block / 2);
    }
    for offset in [1, 16, 31, 33, u64::MAX] {
        gguf_refused!(w(&[8], 0, offset), "`w`", WeightError::Misaligned { alignment: 32, found, .. } if found == offset);
    }
}

#[test]
fn gguf_tensor_ranges() {
    let w = |dimensions: &[u64], offset, data| gguf().tensor("w", dimensions, 0, offset).data(data).build();
    gguf_refused!(w(&[8], 64, 64), "`w`", WeightError::OutOfBounds { offset: 64, size: 32, found: 64, .. });
    // offset + size = length + 1
    let bytes = one_tensor().build();
    gguf_refused!(bytes[..bytes.len() - 1], "`w`", WeightError::OutOfBounds { size: 32, found: 31, .. });
    gguf_refused!(w(&[8], u64::MAX - 31, 64), "`w`", WeightError::OutOfBounds { found: 64, .. });
    gguf_refused!(w(&[1 << 40], 0, 64), "`w`", WeightError::OutOfBounds { found: 64, .. });
    // The data would begin behind the end of the file.
    gguf_refused!(gguf().tensor("w", &[8], 0, 0).build(), "`w`", WeightError::OutOfBounds { found: 0, .. });

    let overlapping = gguf().tensor("a", &[16], 0, 0).tensor("b", &[8], 0, 32).data(64);
    gguf_refused!(overlapping.build(), "`a` and `b`", WeightError::Overlap { .. });
    let same = gguf().tensor("a", &[8], 0, 32).tensor("b", &[8], 0, 32).data(64);
    gguf_refused!(same.build(), "overlap", WeightError::Overlap { .. });
    let backwards = gguf().tensor("a", &[8], 0, 32).tensor("b", &[8], 0, 0).data(64);
    assert!(gguf::parse(Path::new("x"), &backwards.build()).is_ok());

    for field in ["dimension count", "dimensions", "type", "offset"] {
        // The entry ends with 4 (rank) + 8 (dimension) + 4 (type) + 8 (offset) bytes.
        let cut = match field {
            "dimension count" => 22,
            "dimensions" => 14,
            "type" => 10,
            _ => 2,
        };
        let file = gguf().str("padding", "so that the count fits").tensor("w", &[8], 0, 0).build();
        gguf_refused!(file[..file.len() - cut], field, WeightError::Truncated { .. });
    }
}

#[test]
fn safetensors_header() {
    let with_length = |length: u64, rest: &[u8]| [&length.to_le_bytes()[..], rest].concat();
    safetensors_refused!(b"", "header length", WeightError::Truncated { expected: 8, found: 0, .. });
    safetensors_refused!(b"\x02\0\0\0\0\0\0", "header length", WeightError::Truncated { expected: 8, found: 7, .. });
    safetensors_refused!(with_length(3, b"{}"), "the header", WeightError::Truncated { expected: 3, found: 2, .. });
    safetensors_refused!(with_length(100_000_000, b"{}"), "the header", WeightError::Truncated { .. });
    safetensors_refused!(
        with_length(100_000_001, b"{}"),
        "100000001",
        WeightError::HeaderTooLarge { limit: 100_000_000, .. }
    );
    safetensors_refused!(with_length(u64::MAX, b"{}"), "header", WeightError::HeaderTooLarge { .. });
    safetensors_refused!(with_length(0, b"{}"), "empty", WeightError::HeaderJson { .. });
    safetensors_refused!(tensors(" {}", 0), "0x20", WeightError::HeaderStart { found: b' ', .. });
    safetensors_refused!(tensors("[]", 0), "0x5b", WeightError::HeaderStart { found: b'[', .. });
    safetensors_refused!(with_length(4, b"PK\x03\x04"), "0x50", WeightError::HeaderStart { .. });
    safetensors_refused!(with_length(4, b"{\"\xff}"), "UTF-8", WeightError::HeaderNotUtf8 { at: 2, .. });
    for broken in ["{", "{}}", "{} x", "{\"a\"}", "{\"a\":1}", "{'a':{}}", "{\"a\":[]}", "{\"\u{0}\":{}}"] {
        safetensors_refused!(tensors(broken, 0), "header", WeightError::HeaderJson { .. });
    }
    safetensors_refused!(tensors(r#"{"__metadata__":{"a":1}}"#, 0), "__metadata__", WeightError::HeaderJson { .. });
    safetensors_refused!(tensors(r#"{"__metadata__":["a"]}"#, 0), "__metadata__", WeightError::HeaderJson { .. });
    let deep = format!("{{\"a\":{}", "[".repeat(1_000_000));
    safetensors_refused!(tensors(&deep, 0), "`a`", WeightError::HeaderJson { .. });
    let deep = format!("{{\"a\":{{\"x\":{}", "[".repeat(1_000_000));
    safetensors_refused!(tensors(&deep, 0), "`a`", WeightError::HeaderJson { .. });
}

#[test]
fn safetensors_tensors() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let w = |dtype: &str, shape: &str, offsets: &str, data| tensors(&entry(dtype, shape, offsets), data);
    assert!(safetensors::parse(Path::new("x"), &w("F32", "[2,2]", "[0,16]", 16)).is_ok());
    for (field, header) in [
        ("dtype", r#"{"w":{"shape":[1],"data_offsets":[0,4]}}"#),
        ("shape", r#"{"w":{"dtype":"F32","data_offsets":[0,4]}}"#),
        ("data_offsets", r#"{"w":{"dtype":"F32","shape":[1]}}"#),
    ] {
        safetensors_refused!(tensors(header, 4), "`w`", WeightError::MissingField { field: found, .. } if found == field);
    }
    let one = r#""w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    safetensors_refused!(tensors(&format!("{{{one},{one}}}"), 1), "`w`", WeightError::DuplicateTensor { .. });
    safetensors_refused!(
        tensors(&format!("{{{}}}", one.replace("\"w\"", "\"\"")), 1),
        "tensor 0",
        WeightError::EmptyName { .. }
    );
    for dtype in ["Q4_K", "f32", "", "F33", "😀"] {
        safetensors_refused!(w(dtype, "[1]", "[0,4]", 4), "`w`", WeightError::UnknownType { .. });
    }
    safetensors_refused!(w("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4), "`w`", WeightError::Dimensions { found: 9, .. });
    for shape in ["[-1]", "[1.5]", "[18446744073709551616]", "[\"1\"]", "[null]", "1", "{}"] {
        safetensors_refused!(w("F32", shape, "[0,4]", 4), "`w`", WeightError::HeaderJson { .. });
    }
    for offsets in ["[0]", "[0,4,8]", "[-4,0]", "[0.0,4.0]", "4"] {
        safetensors_refused!(w("F32", "[1]", offsets, 4), "`w`", WeightError::HeaderJson { .. });
    }
    for shape in ["[4294967296,4294967296]", "[18446744073709551615]", "[0,4294967296,4294967296]"] {
        safetensors_refused!(w("F32", shape, "[0,0]", 0), "`w`", WeightError::ShapeOverflow { .. });
    }
    safetensors_refused!(w("F4", "[3]", "[0,2]", 2), "`w`", WeightError::PartialBlock { block: 2, .. });
    safetensors_refused!(w("F32", "[1]", "[4,0]", 4), "`w`", WeightError::OffsetsReversed { begin: 4, end: 0, .. });
    safetensors_refused!(w("F32", "[2]", "[0,4]", 4), "`w`", WeightError::SizeMismatch { expected: 8, found: 4, .. });
    safetensors_refused!(w("F16", "[2]", "[0,8]", 8), "`w`", WeightError::SizeMismatch { expected: 4, found: 8, .. });
}

#[test]
fn safetensors_ranges() {
    let pair = |a: [u64; 2], b: [u64; 2], data| {
        let entry = |[begin, end]: [u64; 2]| {
            format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
        };
        tensors(&format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b)), data)
    };
    assert!(safetensors::parse(Path::new("x"), &pair([4, 8], [0, 4], 8)).is_ok());
    safetensors_refused!(pair([0, 4], [4, 9], 8), "`b`", WeightError::OutOfBounds { offset: 4, size: 5, found: 8, .. });
    safetensors_refused!(pair([0, 4], [u64::MAX - 1, u64::MAX], 8), "`b`", WeightError::OutOfBounds { .. });
    safetensors_refused!(pair([0, 4], [3, 8], 8), "`a` and `b`", WeightError::Overlap { .. });
    safetensors_refused!(pair([0, 4], [0, 4], 4), "overlap", WeightError::Overlap { .. });
    safetensors_refused!(pair([0, 8], [2, 4], 8), "`a` and `b`", WeightError::Overlap { .. });
    safetensors_refused!(pair([0, 4], [5, 8], 8), "4 to 5", WeightError::Hole { begin: 4, end: 5, .. });
    safetensors_refused!(pair([1, 4], [4, 8], 8), "0 to 1", WeightError::Hole { begin: 0, end: 1, .. });
    safetensors_refused!(pair([0, 4], [4, 8], 9), "8 to 9", WeightError::Hole { begin: 8, end: 9, .. });
    safetensors_refused!(tensors("{}", 1), "0 to 1", WeightError::Hole { begin: 0, end: 1, .. });
}

#[test]
fn safetensors_header_of_the_largest_size_stays_small_in_memory() {
    // 1.6 million entries in 100 MB: refused at the cap, before they are all held.
    let mut header = String::from("{");
    for i in 0..1_600_000 {
        header += &format!(r#""{i:07}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#);
    }
    header.truncate(header.len() - 1);
    header += "}";
    assert!((90_000_000..100_000_000).contains(&header.len()));
    safetensors_refused!(tensors(&header, 0), "131073", WeightError::Count { what: "tensor", limit: 131072, .. });
}

/// A folder with `config.json`, two one-byte shards holding `a` and `b`, and this index.
fn sharded(index: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
        fs::write(folder.path().join(format!("{name}.safetensors")), tensors(&header, 1)).unwrap();
    }
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    folder
}

#[test]
fn shard_indexes() {
    let map = |map: &str| sharded(&format!(r#"{{"metadata":{{"total_size":2}},"weight_map":{{{map}}}}}"#));
    assert!(Checkpoint::open(map(r#""a":"a.safetensors","b":"b.safetensors""#).path()).is_ok());
    for shard in [
        "../a.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "x/../a.safetensors",
        "..\\\\a.safetensors",
        "C:a",
        "./a.safetensors",
    ] {
        let folder = map(&format!(r#""a":"{shard}""#));
        open_refused!(folder.path(), "`a`", WeightError::ShardName { .. });
    }
    open_refused!(map(r#""a":"none.safetensors""#).path(), "none.safetensors", WeightError::Io { .. });
    open_refused!(map(r#""b":"a.safetensors""#).path(), "`b`", WeightError::ShardLacksTensor { .. });
    let folder = map(r#""a":"a.safetensors","x":"c.safetensors""#);
    fs::copy(folder.path().join("a.safetensors"), folder.path().join("c.safetensors")).unwrap();
    open_refused!(folder.path(), "`a`", WeightError::TensorInTwoShards { .. });
    for broken in ["", "[]", "{}", r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#] {
        open_refused!(sharded(broken).path(), "index.json", WeightError::Json { .. });
    }
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().unwrap();
    open_refused!(&folder.path().join("none"), "none", WeightError::Io { .. });
    open_refused!(folder.path(), "no `model.safetensors`", WeightError::NotACheckpoint { .. });
    fs::write(folder.path().join("notes.txt"), "text").unwrap();
    open_refused!(&folder.path().join("notes.txt"), "notes.txt", WeightError::NotACheckpoint { .. });
    fs::write(folder.path().join("one.gguf"), tiny_llama().u32("llama.vocab_size", 4).build()).unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok());
    fs::write(folder.path().join("two.gguf"), "").unwrap();
    open_refused!(folder.path(), "one.gguf, two.gguf", WeightError::NotACheckpoint { .. });
    open_refused!(&folder.path().join("two.gguf"), "two.gguf", WeightError::Truncated { .. });
    fs::create_dir(folder.path().join("three.gguf")).unwrap();
    open_refused!(&folder.path().join("three.gguf"), "three.gguf", WeightError::NotACheckpoint { .. });

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), tensors("{}", 0)).unwrap();
    open_refused!(folder.path(), "config.json", WeightError::Io { .. });
    for broken in ["", "[]", "{", "{\"a\":\u{1}}", "[[[["] {
        fs::write(folder.path().join("config.json"), broken).unwrap();
        open_refused!(folder.path(), "config.json", WeightError::Json { .. });
    }
    fs::write(folder.path().join("config.json"), format!("{{\"a\":{}", "[".repeat(100_000))).unwrap();
    open_refused!(folder.path(), "config.json", WeightError::Json { .. });
    fs::write(folder.path().join("config.json"), vec![b' '; (4 << 20) + 1]).unwrap();
    open_refused!(folder.path(), "4194305", WeightError::JsonTooLarge { limit: 4_194_304, .. });
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok());
    fs::write(folder.path().join("generation_config.json"), "7").unwrap();
    open_refused!(folder.path(), "generation_config.json", WeightError::Json { .. });
}

/// Opens a GGUF file of these bytes.
fn open_gguf(file: &Gguf) -> Result<Checkpoint, WeightError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.gguf");
    fs::write(&path, file.build()).unwrap();
    Checkpoint::open(&path)
}

#[test]
fn gguf_metadata_that_describes_no_model() {
    let complete = || tiny_llama().u32("llama.vocab_size", 4);
    assert!(open_gguf(&complete()).is_ok());
    let missing = |file: &Gguf, key: &str| {
        check_error!(open_gguf(file).unwrap_err(), "hostile.gguf", key, WeightError::MissingKey { .. });
    };
    missing(&gguf(), "general.architecture");
    missing(&gguf().str("general.architecture", "llama"), "llama.block_count");
    missing(&tiny_llama(), "llama.vocab_size");
    missing(&complete().str("llama.rope.scaling.type", "yarn"), "llama.rope.scaling.factor");
    let wrong = |file: &Gguf, key: &str| {
        check_error!(open_gguf(file).unwrap_err(), "hostile.gguf", key, WeightError::KeyType { .. });
    };
    wrong(&gguf().u32("general.architecture", 1), "general.architecture");
    wrong(&complete().str("llama.feed_forward_length", "64"), "llama.feed_forward_length");
    wrong(&complete().f32("llama.attention.layer_norm_rms_epsilon", f32::NAN), "layer_norm_rms_epsilon");
    wrong(&complete().f32("llama.rope.freq_base", f32::INFINITY), "rope.freq_base");
    wrong(&complete().key("llama.attention.key_length", I32, &(-1i32).to_le_bytes()), "key_length");
    wrong(&complete().key("tokenizer.ggml.bos_token_id", U64, &(1u64 << 40).to_le_bytes()), "bos_token_id");
    let two = array(4, 2, &[1, 0, 0, 0, 1, 0, 0, 0]);
    wrong(&complete().key("llama.attention.head_count_kv", ARRAY, &two), "head_count_kv");
    let both = complete().str("llama.rope.scaling.type", "yarn").tensor("rope_freqs.weight", &[8], 0, 0).data(32);
    wrong(&both, "rope.scaling.type");
    let same = complete().tensor("output.weight", &[8], 0, 0).tensor("lm_head.weight", &[8], 0, 32).data(64);
    check_error!(open_gguf(&same).unwrap_err(), "hostile.gguf", "lm_head.weight", WeightError::NameCollision { .. });
}

#[test]
fn split_ggufs() {
    let part = |number: u64, count: u64| {
        tiny_llama().u32("llama.vocab_size", 4).key("split.no", U64, &number.to_le_bytes()).key(
            "split.count",
            U64,
            &count.to_le_bytes(),
        )
    };
    let error = open_gguf(&part(0, 2)).unwrap_err();
    check_error!(error, "hostile.gguf", "-00001-of-00002.gguf", WeightError::Split { .. });
    let error = open_gguf(&part(0, u64::MAX)).unwrap_err();
    check_error!(error, "hostile.gguf", "split.count", WeightError::Split { .. });
    let folder = tempfile::tempdir().unwrap();
    let path = |number| folder.path().join(format!("m-{number:05}-of-00002.gguf"));
    fs::write(path(1), part(0, 2).build()).unwrap();
    open_refused!(&path(1), "m-00002-of-00002.gguf", WeightError::Io { .. });
    // The second file is no second part.
    for other in [part(0, 2), part(1, 3), tiny_llama(), part(u64::MAX, 2)] {
        fs::write(path(2), other.build()).unwrap();
        open_refused!(&path(1), "m-00002-of-00002.gguf", WeightError::Split { .. });
    }
    fs::write(path(2), part(1, 2).build()).unwrap();
    assert!(Checkpoint::open(&path(1)).is_ok());
    fs::write(path(1), part(0, 2).u32("split.tensors.count", 3).build()).unwrap();
    open_refused!(&path(1), "split.tensors.count", WeightError::Split { .. });
}

// Windows does not let a mapped file change its length.
#[cfg(unix)]
#[test]
fn a_file_that_is_cut_or_grows_while_open_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::copy(case("gguf_smollm2_q6_k").join("tiny-smollm2-Q6_K.gguf"), &path).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    assert!(checkpoint.tensor("model.norm.weight").is_ok());
    for changed in [length - 1, 0, length + 1] {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(changed).unwrap();
        let error = checkpoint.tensor("model.norm.weight").unwrap_err();
        check_error!(error, "m.gguf", "changed", WeightError::Changed { found, .. } if found == changed);
    }
}
