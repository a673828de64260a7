//! `kernels`: products with stored weights.

use std::str::FromStr;

use atelico_engine::arithmetic::{Precision, parse_precision};
use atelico_engine::bandwidth;
use atelico_engine::device::{DeviceKind, DeviceSpec, OpenDevice};
use atelico_kernels::formats::Format;
use atelico_kernels::ops::{self, Weight};
use burn::tensor::{DType, Tensor, TensorData};
use clap::Args;

use crate::table::{Peer, Table, percent};
use crate::{Result, timing};

/// Bytes of weights that a measurement goes through: more than caches hold, as a model's are.
const WORKING_SET: usize = 256 << 20;
/// Most copies of a small weight.
const COPIES: usize = 64;
/// Most rows of the products that decode steps consist of.
const DECODE_ROWS: usize = 32;

/// Arguments of `kernels`.
#[derive(Args)]
pub(crate) struct KernelArgs {
    /// cpu, cuda[:N], vulkan[:N], metal, webgpu[:N] or auto
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,

    /// Weight formats by their GGUF names [default: all]
    #[arg(long, value_delimiter = ',', value_parser = parse_format)]
    formats: Vec<Format>,

    /// Shapes of the weights, OUTxIN
    #[arg(long, value_delimiter = ',', default_value = "2048x2048,8192x2048,2048x8192")]
    shapes: Vec<Shape>,

    /// Columns of the product: rows of the activations
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,512")]
    columns: Vec<usize>,

    /// Arithmetic of products of many columns on a GPU: f32, bf16 or f16
    #[arg(long, default_value = "f32", value_parser = parse_precision)]
    precision: Precision,

    /// A peer's GB/s for a row, as `Q4_K 2048x2048 m1=1500`; may be given several times
    #[arg(long, value_name = "LABEL=FIGURE")]
    peer: Vec<Peer>,
}

/// A weight's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    rows: usize,
    cols: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (rows, cols) = text.split_once('x').ok_or("is no OUTxIN")?;
        let number = |text: &str| text.parse::<usize>().ok().filter(|&n| n > 0).ok_or(format!("`{text}` is no size"));
        Ok(Self { rows: number(rows)?, cols: number(cols)? })
    }
}

fn parse_format(text: &str) -> std::result::Result<Format, String> {
    Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
        let names = Format::ALL.map(Format::name).join(", ");
        format!("no such format; known: {names}")
    })
}

pub(crate) fn run(args: &KernelArgs) -> Result<()> {
    let opened = args.device.open()?;
    let bandwidth = bandwidth::measure(&opened);
    if let Some(bandwidth) = bandwidth {
        println!("{}: {:.1} GB/s (a {}'s)", opened.name, bandwidth.gb_per_second, bandwidth.traffic);
    }
    let formats = if args.formats.is_empty() { Format::ALL.to_vec() } else { args.formats.clone() };
    let columns = ["MICROSECONDS", "MB MOVED", "GB/S", "OF MEMORY", "GFLOP/S"];
    let mut table = Table::new("PRODUCT", 26, &columns, &args.peer);
    for &format in &formats {
        for &shape in &args.shapes {
            let weights = weights(format, shape, &opened)?;
            for &m in &args.columns {
                let seconds = measure(&weights, shape, m, args.precision, &opened)?;
                // The weight once, the activations in and out.
                let bytes = weights[0].bytes() + 4 * m * (shape.rows + shape.cols);
                let rate = bytes as f64 / seconds / 1e9;
                let cells = [
                    format!("{:.2}", seconds * 1e6),
                    format!("{:.2}", bytes as f64 / 1e6),
                    format!("{rate:.1}"),
                    percent(bandwidth.map(|bandwidth| rate / bandwidth.gb_per_second)),
                    format!("{:.0}", 2e-9 * (m * shape.rows * shape.cols) as f64 / seconds),
                ];
                table.row(&format!("{format} {}x{} m{m}", shape.rows, shape.cols), &cells, rate);
            }
        }
    }
    table.end()
}

/// As many copies of a weight as exceed the caches.
fn weights(format: Format, shape: Shape, opened: &OpenDevice) -> Result<Vec<Weight>> {
    let row = format.row_bytes(shape.cols).ok_or_else(|| format!("{format} rows can't hold {}", shape.cols))?;
    let bytes = ordinary_bytes(row * shape.rows);
    let copies = WORKING_SET.div_ceil(bytes.len()).min(COPIES);
    let weight = || Weight::new(format, shape.rows, shape.cols, &bytes, &opened.device);
    Ok((0..copies).map(|_| weight()).collect::<std::result::Result<_, _>>()?)
}

/// Seconds that one product takes, going through all copies in turn.
fn measure(weights: &[Weight], shape: Shape, m: usize, precision: Precision, opened: &OpenDevice) -> Result<f64> {
    let device = &opened.device;
    let x = (0..m * shape.cols).map(|i| ((i * 7919) % 201) as f32 / 100.0 - 1.0).collect::<Vec<_>>();
    let x = Tensor::<1>::from_data(TensorData::new(x, [m * shape.cols]), (device, DType::F32));
    let x = x.reshape([m, shape.cols]);
    let work = || {
        let mut last = None;
        for weight in weights {
            last = Some(ops::linear(x.clone(), weight, precision));
        }
        last.unwrap_or_else(|| x.clone())
    };
    let seconds = if m <= DECODE_ROWS && opened.kind != DeviceKind::Cpu {
        timing::captured(device, work)?
    } else {
        timing::queued(device, work)?
    };
    Ok(seconds / weights.len() as f64)
}

/// Random bytes that no format reads as a scale that is infinite or very small.
fn ordinary_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // As the high byte of a float16: between 2^-7 and 2.
        0x20 | (state >> 40) as u8 & 0x1f
    };
    (0..count).map(|_| byte()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_formats_are_read() {
        assert_eq!("8192x2048".parse(), Ok(Shape { rows: 8192, cols: 2048 }));
        assert!("8192".parse::<Shape>().is_err() && "0x1".parse::<Shape>().is_err());
        assert_eq!(parse_format("q4_k"), Ok(Format::Q4_K));
        assert!(parse_format("q9").is_err());
    }

    #[test]
    fn bytes_are_ordinary_numbers_in_every_format() {
        for format in Format::ALL {
            let mut values = vec![0.0; 256 * 8];
            let bytes = ordinary_bytes(format.row_bytes(values.len()).unwrap_or_default());
            format.dequantize(&bytes, &mut values);
            assert!(values.iter().all(|v| v.is_finite() && (*v == 0.0 || v.is_normal())), "{format}");
        }
    }
}
