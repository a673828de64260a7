use std::time::Instant;

use half::bf16;

use super::columns::{SUB, dequantized, quantize};
use super::pairs::with_pairs;
use super::product::linear_at;
use super::tiles::multiplier;
use super::{Interleaved, linear};
use crate::flex::simd::{LANES, Level};
use crate::flex::test_data::{Random, random_blocks};
use crate::formats::Format;

/// Elements of a block: bfloat16 has blocks here.
fn block_len(format: Format) -> usize {
    if format == Format::BF16 { 32 } else { format.block_len() }
}

fn formats() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| Interleaved::supports(*format))
}

#[test]
fn rows_come_back_as_they_were() {
    let mut random = Random::new(20);
    for format in formats() {
        for (rows, blocks) in [(1, 1), (15, 2), (16, 3), (35, 1)] {
            let cols = blocks * block_len(format);
            let stored = random_blocks(&mut random, format, rows * cols);
            let matrix = Interleaved::new(format, rows, cols, &stored).unwrap();
            let mut found = vec![0; stored.len() / rows];
            for (row, expected) in stored.chunks_exact(found.len()).enumerate() {
                matrix.row(row, &mut found);
                assert!(found == expected, "{format} row {row} of {rows}");
            }
        }
    }
}

#[test]
fn activations_are_within_half_a_step() {
    let mut random = Random::new(21);
    let cols = 8 * SUB;
    let mut x = random.normals(3 * cols);
    x[..SUB].fill(0.0);
    x[SUB..2 * SUB].fill(f32::MIN_POSITIVE / 8.0);
    let found = dequantized(&x, cols);
    for (found, x) in found.chunks_exact(SUB).zip(x.chunks_exact(SUB)) {
        let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (found, x) in found.iter().zip(x) {
            assert!((found - x).abs() <= largest * 0.5001 / 127.0 + 1e-37, "{found} for {x}");
        }
    }
    for level in Level::available() {
        let panels = quantize::<4>(level, &x, cols);
        for (sub, columns) in panels.iter().enumerate() {
            for n in 0..3 {
                let bytes: Vec<i32> = columns.bytes.iter().flat_map(|word| word[n]).map(i32::from).collect();
                let scale = columns.scales[n];
                let expected = &found[n * cols + sub * SUB..][..SUB];
                assert!(bytes.iter().zip(expected).all(|(b, x)| *b as f32 * scale == *x), "{level:?}");
                let sums = [bytes[..16].iter().sum::<i32>(), bytes[16..].iter().sum(), bytes.iter().sum()];
                assert_eq!(columns.minus_eight.map(|sums| sums[n]), sums.map(|sum| -8 * sum));
                assert_eq!(columns.minus_sums[n], -scale * sums[2] as f32);
            }
            assert!(columns.scales[3] == 0.0 && columns.bytes.iter().all(|word| word[3] == [0; 4]));
        }
    }
}

/// The rows as pairs of bfloat16 stand for them.
fn unpacked(level: Level, matrix: &Interleaved) -> Vec<f32> {
    let mut out = Vec::new();
    with_pairs(level, matrix, 0, matrix.rows, |groups| {
        for row in 0..matrix.rows {
            for line in groups[row / LANES] {
                out.extend([line[row % LANES] << 16, line[row % LANES] & 0xffff_0000].map(f32::from_bits));
            }
        }
    });
    out
}

fn check(level: Level, format: Format, rows: usize, cols: usize, m: usize, random: &mut Random) {
    let stored = random_blocks(random, format, rows * cols);
    let matrix = Interleaved::new(format, rows, cols, &stored).unwrap();
    let x = random.normals(m * cols);
    let (stride, offset) = (rows + 5, 3);
    let mut out = vec![f32::NAN; m * stride];
    linear_at(level, &matrix, &x, m, &mut out, stride, offset);
    let mut weights = vec![0.0; rows * cols];
    format.dequantize(&stored, &mut weights);
    let rounded = |x: &[f32]| x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
    let x = match format {
        _ if multiplier(level, format, m).is_some() => {
            weights = unpacked(level, &matrix);
            rounded(&x)
        }
        Format::BF16 => match level.bf16() {
            Some(proof) if m <= 8 && matrix.twelve_bits().is_some() || m > 8 && proof.outruns_float32() => rounded(&x),
            _ => x,
        },
        _ => dequantized(&x, cols),
    };
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact(stride)) {
        for (weights, found) in weights.chunks_exact(cols).zip(&out[offset..]) {
            let terms = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let expected: f64 = terms.clone().sum();
            // Codes and minima are summed apart, which the elements' size does not show.
            let size = terms.map(f64::abs).sum::<f64>() + 8.0 * (cols as f64).sqrt();
            let found = f64::from(*found);
            assert!(
                (found - expected).abs() <= 1e-6 * size,
                "{level:?} {format} [{rows}, {cols}] m {m}: {found}, not {expected}"
            );
        }
        let around = out[..offset].iter().chain(&out[offset + rows..]);
        assert!(around.into_iter().all(|v| v.is_nan()), "{level:?} {format}: wrote beside its columns");
    }
}

#[test]
fn every_format_level_and_row_count_agrees_with_the_reference() {
    let mut random = Random::new(22);
    for level in Level::available() {
        for format in formats() {
            for m in [1, 2, 3, 4, 5, 7, 8, 9, 12, 23, 33, 70] {
                let cols = (1 + random.below(3)) * block_len(format);
                check(level, format, 1 + random.below(40), cols, m, &mut random);
            }
        }
    }
}

#[test]
fn groups_of_every_format_unpack_to_the_nearest_bfloat16() {
    let mut random = Random::new(27);
    for format in formats() {
        for (rows, blocks) in [(1, 1), (18, 2), (35, 3)] {
            let cols = blocks * block_len(format);
            let stored = random_blocks(&mut random, format, rows * cols);
            let matrix = Interleaved::new(format, rows, cols, &stored).unwrap();
            let mut weights = vec![0.0; rows * cols];
            format.dequantize(&stored, &mut weights);
            for level in Level::available() {
                for (found, weight) in unpacked(level, &matrix).iter().zip(&weights) {
                    // Half of bfloat16's last place, and what float32 lost of minima before.
                    let bound = weight.abs() / 255.0 + 1e-6;
                    assert!((found - weight).abs() <= bound, "{level:?} {format}: {found} for {weight}");
                }
            }
        }
    }
}

#[test]
fn shapes_beyond_one_task_agree_with_the_reference() {
    let mut random = Random::new(23);
    for (format, rows, cols) in [
        (Format::Q4_K, 1030, 768),
        (Format::Q8_0, 1111, 544),
        (Format::Q6_K, 777, 1024),
        (Format::BF16, 777, 1024),
        (Format::Q4_0, 300, 4128),
    ] {
        for m in [1, 3, 33, 150] {
            check(Level::best(), format, rows, cols, m, &mut random);
        }
    }
}

/// Weights as they are trained, among them zeros and some that no twelve bits hold.
fn trained(random: &mut Random, count: usize) -> Vec<u8> {
    let mut weights: Vec<_> = random.normals(count).into_iter().map(|x| bf16::from_f32(x * 0.02)).collect();
    let special = [0.0, -0.0, 1e-30, -1e-39, 3e38, 1e4, f32::INFINITY, f32::NAN];
    for (i, weight) in weights.iter_mut().enumerate().filter(|(i, _)| i % 3000 < special.len()) {
        *weight = bf16::from_f32(special[i % 3000]);
    }
    weights.iter().flat_map(|weight| weight.to_le_bytes()).collect()
}

#[test]
fn twelve_bits_lose_nothing() {
    let mut random = Random::new(25);
    for (rows, cols) in [(1, 64), (16, 160), (37, 416), (200, 2048)] {
        let stored = trained(&mut random, rows * cols);
        let matrix = Interleaved::new(Format::BF16, rows, cols, &stored).unwrap();
        let few = rows * cols < 256 * 6;
        assert_eq!(matrix.twelve_bits().is_some(), Level::best().bf16().is_some() && !few, "[{rows}, {cols}]");
        let mut found = vec![0; 2 * cols];
        for (row, expected) in stored.chunks_exact(2 * cols).enumerate() {
            matrix.row(row, &mut found);
            assert!(found == expected, "row {row} of {rows}");
        }
        with_pairs(Level::best(), &matrix, 0, rows, |groups| {
            for (group, rows) in groups.iter().zip(stored.chunks(32 * cols)) {
                for (i, line) in group.iter().enumerate() {
                    for (word, row) in line.iter().zip(rows.chunks_exact(2 * cols)) {
                        assert_eq!(word.to_le_bytes(), row[4 * i..4 * i + 4]);
                    }
                }
            }
        });
    }
    // Every exponent alike: too many without a code.
    let stored: Vec<u8> = (0..1u32 << 15).flat_map(|i| ((i * 7 % 255) as u16 * 128).to_le_bytes()).collect();
    assert!(Interleaved::new(Format::BF16, 16, 2048, &stored).unwrap().twelve_bits().is_none());
}

#[test]
fn products_in_twelve_bits_agree_with_the_reference() {
    let mut random = Random::new(26);
    for (rows, cols, size) in [(37, 416, 1.0f32), (200, 2048, 1e-30), (200, 2048, 1e9), (16, 1024, 1e-3)] {
        let stored = trained(&mut random, rows * cols);
        let matrix = Interleaved::new(Format::BF16, rows, cols, &stored).unwrap();
        let mut weights = vec![0.0; rows * cols];
        Format::BF16.dequantize(&stored, &mut weights);
        let x: Vec<_> = random.normals(cols).iter().map(|x| x * size).collect();
        let mut out = vec![0.0; rows];
        for level in Level::available() {
            linear_at(level, &matrix, &x, 1, &mut out, rows, 0);
            let x: Vec<_> = match level.bf16() {
                Some(_) => x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
                None => x.clone(),
            };
            for (weights, found) in weights.chunks_exact(cols).zip(&out) {
                let terms = weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let (expected, total) = (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>());
                if total < f64::from(f32::MAX) {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error <= 1e-5 * total, "{level:?} {size}: {found}, not {expected}");
                } else {
                    assert!(!found.is_finite(), "{level:?} {size}: {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn only_whole_matrices_are_interleaved() {
    assert!(Interleaved::new(Format::F32, 2, 2, &[0; 16]).is_none());
    assert!(Interleaved::new(Format::Q8_0, 2, 32, &[0; 67]).is_none());
    assert!(Interleaved::new(Format::Q8_0, 2, 31, &[0; 68]).is_none());
    assert!(Interleaved::new(Format::Q8_0, 2, 0, &[]).is_none());
}

/// Run with `--ignored --nocapture`; `FORMAT` measures one format only. Best of many short runs,
/// which a busy machine disturbs least.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut random = Random::new(24);
    let cols = std::env::var("COLS").map_or(2048, |cols| cols.parse().unwrap());
    let rows = std::env::var("ROWS").map_or((1 << 24) / cols, |rows| rows.parse().unwrap());
    let only = std::env::var("FORMAT").ok();
    for format in formats().filter(|f| only.as_ref().is_none_or(|only| only == f.name())) {
        let row = random_blocks(&mut random, format, 64 * cols);
        let stored: Vec<u8> = row.iter().copied().cycle().take(row.len() * rows / 64).collect();
        // Several copies, so that the weights come from memory rather than from a cache.
        let copies = if rows < 1000 { 1 } else { (256 << 20) / stored.len() };
        let matrices: Vec<_> = (0..copies).map(|_| Interleaved::new(format, rows, cols, &stored).unwrap()).collect();
        let x = random.normals(512 * cols);
        let mut out = vec![0.0; 512 * rows];
        let mut line = format!("{format:>7}:");
        let mut best = |m: usize, runs: usize| {
            let mut seconds = f64::INFINITY;
            for matrix in matrices.iter().cycle().take(runs) {
                let start = Instant::now();
                linear(matrix, &x, m, &mut out, rows, 0);
                seconds = start.elapsed().as_secs_f64().min(seconds);
            }
            seconds
        };
        for m in [1, 2, 4, 8] {
            line += &format!("  m{m} {:.1} GB/s", stored.len() as f64 / best(m, 60) / 1e9);
        }
        for m in [16, 512] {
            let flops = 2.0 * (m * rows * cols) as f64;
            line += &format!("  m{m} {:.0} Gop/s", flops / best(m, 6) / 1e9);
        }
        println!("{line}");
    }
}
