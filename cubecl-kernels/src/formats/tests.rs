//! `dequantize` against golden values and `to_planes` against a plain restatement of its layout.
#![allow(clippy::unwrap_used)]

use super::{Format, PlaneKind};

/// Written by `tests/fixtures/formats/make.py` with the `gguf` package.
const BLOCKS: &[u8] = include_bytes!("../../../tests/fixtures/formats/blocks.bin");
const VALUES: &[u8] = include_bytes!("../../../tests/fixtures/formats/values.bin");
const BLOCKS_PER_FORMAT: usize = 24;

/// Every format with its golden blocks and their elements.
fn golden() -> impl Iterator<Item = (Format, &'static [u8], Vec<f32>)> {
    let (mut blocks, mut values) = (BLOCKS, VALUES);
    Format::ALL.into_iter().map(move |format| {
        let (these, rest) = blocks.split_at(BLOCKS_PER_FORMAT * format.block_bytes());
        let (elements, more) = values.split_at(BLOCKS_PER_FORMAT * format.block_len() * 4);
        (blocks, values) = (rest, more);
        (format, these, elements.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
    })
}

#[test]
fn dequantize_is_bit_equal_to_gguf() {
    let mut special = 0;
    for (format, bytes, expected) in golden() {
        let mut found = vec![1e9; expected.len()];
        format.dequantize(bytes, &mut found);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{format} element {i}: {found} instead of {expected}");
            special += usize::from(!expected.is_finite());
        }
    }
    assert!(special > 1000, "the golden scales include infinities and NaN");
}

#[test]
fn the_golden_files_hold_exactly_all_formats() {
    let blocks: usize = Format::ALL.iter().map(|f| f.block_bytes() * BLOCKS_PER_FORMAT).sum();
    let values: usize = Format::ALL.iter().map(|f| f.block_len() * BLOCKS_PER_FORMAT * 4).sum();
    assert_eq!((BLOCKS.len(), VALUES.len()), (blocks, values));
}

#[test]
fn ggml_numbers_and_names_are_distinct_and_reversible() {
    for format in Format::ALL {
        assert_eq!(Format::from_ggml_type(format.ggml_type()), Some(format));
        assert_eq!(Format::ALL.iter().filter(|f| f.name() == format.name()).count(), 1);
        assert_eq!(format.name(), format!("{format:?}"));
    }
    for id in [4, 5, 9, 15, 16, 24, 40, 42, u32::MAX] {
        assert_eq!(Format::from_ggml_type(id), None);
    }
}

#[test]
fn row_bytes_wants_whole_blocks() {
    assert_eq!(Format::Q4_K.row_bytes(512), Some(288));
    assert_eq!(Format::Q4_K.row_bytes(0), Some(0));
    assert_eq!(Format::Q4_K.row_bytes(128), None);
    assert_eq!(Format::F32.row_bytes(3), Some(12));
    assert_eq!(Format::F32.row_bytes(usize::MAX), None);
}

#[test]
fn planes_cover_each_byte_of_a_block_once() {
    for format in Format::ALL {
        let mut seen = vec![0; format.block_bytes()];
        for plane in format.planes() {
            seen[plane.offset..plane.offset + plane.source_bytes()].iter_mut().for_each(|n| *n += 1);
        }
        assert!(seen.iter().all(|&n| n == 1), "{format}: {seen:?}");
    }
}

#[test]
fn to_planes_puts_every_field_in_its_plane() {
    for (format, bytes, _) in golden() {
        for blocks in [0, 1, 2, 7, 8, 23] {
            let bytes = &bytes[..blocks * format.block_bytes()];
            let words = format.to_planes(bytes);
            assert_eq!(words.len(), format.total_words(blocks));
            let planar: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut end = 0;
            for (plane, offset) in format.planes().iter().zip(format.plane_word_offsets(blocks)) {
                assert_eq!(offset % 4, 0, "{format}: planes start at multiples of 16 bytes");
                assert!(planar[end..offset * 4].iter().all(|&byte| byte == 0));
                for (block, chunk) in bytes.chunks(format.block_bytes()).enumerate() {
                    let at = offset * 4 + block * plane.bytes;
                    let (found, source) = (&planar[at..at + plane.bytes], &chunk[plane.offset..]);
                    match plane.kind {
                        PlaneKind::Copy => assert_eq!(*found, source[..plane.bytes]),
                        PlaneKind::KScales => assert_eq!(*found, k_scales(source)),
                    }
                }
                end = offset * 4 + blocks * plane.bytes;
            }
            assert!(planar[end..].iter().all(|&byte| byte == 0));
        }
    }
}

#[test]
#[should_panic(expected = "Q4_0")]
fn dequantize_refuses_a_wrong_length() {
    Format::Q4_0.dequantize(&[0; 18], &mut [0.0; 64]);
}

/// The scales and minima of a Q4_K block as ggml reads them, bit by bit.
fn k_scales(packed: &[u8]) -> [u8; 16] {
    std::array::from_fn(|i| {
        let (sub, min) = (i / 2, i % 2);
        if sub < 4 {
            packed[sub + 4 * min] & 63
        } else {
            let low = (packed[sub + 4] >> (4 * min)) & 15;
            low | ((packed[sub - 4 + 4 * min] >> 6) << 4)
        }
    })
}
