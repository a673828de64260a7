use std::time::Instant;

use super::{linear, linear_at};
use crate::flex::simd::Level;
use crate::flex::test_data::{Random, random_blocks};
use crate::formats::Format;

/// The sums in f64 of the reference's elements, with the sums of their magnitudes.
fn reference(format: Format, weight: &[u8], rows: usize, cols: usize, x: &[f32]) -> Vec<(f64, f64)> {
    let mut elements = vec![0.0; rows * cols];
    format.dequantize(weight, &mut elements);
    let mut out = Vec::new();
    for x in x.chunks_exact(cols) {
        for row in elements.chunks_exact(cols) {
            let terms = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            out.push((terms.clone().sum(), terms.map(f64::abs).sum()));
        }
    }
    out
}

fn check(level: Level, format: Format, rows: usize, cols: usize, m: usize, random: &mut Random) {
    let weight = random_blocks(random, format, rows * cols);
    let x = random.normals(m * cols);
    let (stride, offset) = (rows + 5, 3);
    let mut out = vec![f32::NAN; m * stride];
    linear_at(level, format, &weight, rows, cols, &x, m, &mut out, stride, offset);
    let expected = reference(format, &weight, rows, cols, &x);
    for (i, out) in out.chunks_exact(stride).enumerate() {
        for (r, (expected, magnitude)) in expected[i * rows..][..rows].iter().enumerate() {
            let found = f64::from(out[offset + r]);
            // f32 sums of `cols / 16` terms per lane.
            assert!(
                (found - expected).abs() <= 1e-6 * magnitude + 1e-12,
                "{level:?} {format} [{rows}, {cols}] m {m}: out[{i}, {r}] is {found}, not {expected}"
            );
        }
        let around = out[..offset].iter().chain(&out[offset + rows..]);
        assert!(around.into_iter().all(|v| v.is_nan()), "{level:?} {format}: wrote beside its columns");
    }
}

#[test]
fn every_format_level_and_row_count_agrees_with_the_reference() {
    let mut random = Random::new(3);
    for level in Level::available() {
        for format in Format::ALL {
            for m in [1, 2, 3, 4, 5, 8, 9, 12, 13, 17, 70] {
                let blocks = 1 + random.below(3);
                let cols = if format.is_float() { 1 + random.below(100) } else { blocks * format.block_len() };
                let rows = 1 + random.below(20);
                check(level, format, rows, cols, m, &mut random);
            }
        }
    }
}

#[test]
fn shapes_beyond_one_task_and_one_tile_agree_with_the_reference() {
    let mut random = Random::new(4);
    for level in Level::available() {
        for (format, rows, cols) in
            [(Format::Q4_K, 1030, 768), (Format::Q8_0, 1111, 544), (Format::BF16, 777, 1031), (Format::TQ2_0, 600, 768)]
        {
            for m in [1, 3, 33, 150] {
                check(level, format, rows, cols, m, &mut random);
            }
        }
    }
}

#[test]
fn a_row_of_x_gives_the_same_bits_alone_and_on_any_number_of_threads() {
    let mut random = Random::new(5);
    let (rows, cols) = (1500, 512);
    let weight = random_blocks(&mut random, Format::Q4_K, rows * cols);
    let x = random.normals(cols);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut out = vec![0.0; rows];
        pool.install(|| linear(Format::Q4_K, &weight, rows, cols, &x, 1, &mut out, rows, 0));
        out
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

/// Run with `--ignored --nocapture`; `LEVELS=1` also measures the plainer levels, `FORMAT` one
/// format only. Best of many short runs, which a busy machine disturbs least.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut random = Random::new(6);
    let cols = std::env::var("COLS").map_or(2048, |cols| cols.parse().unwrap());
    let rows = (1 << 24) / cols;
    let levels = Level::available();
    let levels = if std::env::var_os("LEVELS").is_some() { &levels[..] } else { &levels[levels.len() - 1..] };
    let only = std::env::var("FORMAT").ok();
    for format in Format::ALL.into_iter().filter(|f| only.as_ref().is_none_or(|only| only == f.name())) {
        let row = random_blocks(&mut random, format, 64 * cols);
        let one = row.len() * rows / 64;
        // Several copies, so that the weights come from memory rather than from a cache.
        let copies = (64 << 20) / one;
        let weight: Vec<u8> = row.iter().copied().cycle().take(one * copies).collect();
        let x = random.normals(512 * cols);
        let mut out = vec![0.0; 512 * rows];
        for &level in levels {
            let mut line = format!("{format:>7} {level:?}:");
            let mut best = |m: usize, runs: usize| {
                let mut seconds = f64::INFINITY;
                for weight in weight.chunks_exact(one).cycle().take(runs) {
                    let start = Instant::now();
                    linear_at(level, format, weight, rows, cols, &x, m, &mut out, rows, 0);
                    seconds = start.elapsed().as_secs_f64().min(seconds);
                }
                seconds
            };
            for m in [1, 2, 4, 8, 16] {
                line += &format!("  m{m} {:.1} GB/s", one as f64 / best(m, 40) / 1e9);
            }
            let m = 512;
            let flops = 2.0 * (m * rows * cols) as f64;
            println!("{line}  m{m} {:.0} GFLOP/s", flops / best(m, 6) / 1e9);
        }
    }
}
