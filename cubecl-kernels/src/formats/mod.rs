//! Storage formats of weight matrices: the plain floats and every packed GGUF block type.
//!
//! [`Format::dequantize`] is the scalar reference that every kernel is measured against; it follows
//! ggml's `dequantize_row_*` operation by operation. [`planes`] holds the layout that the GPU
//! kernels read.

mod floats;
mod iq4;
mod k_quants;
mod legacy;
mod mxfp4;
mod planes;
mod q1;
mod ternary;
#[cfg(test)]
mod tests;

use std::fmt;

pub use planes::{Plane, PlaneKind};

/// How the elements of a weight matrix are stored.
///
/// Block types follow ggml's `ggml-common.h`; a block holds [`Format::block_len`] consecutive
/// elements of one row in [`Format::block_bytes`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs)]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    Q1_0,
    TQ1_0,
    TQ2_0,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 19] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::MXFP4,
        Self::Q1_0,
        Self::TQ1_0,
        Self::TQ2_0,
    ];

    /// Elements per block; 1 for the plain floats.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::IQ4_NL | Self::MXFP4 => 32,
            Self::Q1_0 => 128,
            Self::Q2_K
            | Self::Q3_K
            | Self::Q4_K
            | Self::Q5_K
            | Self::Q6_K
            | Self::IQ4_XS
            | Self::TQ1_0
            | Self::TQ2_0 => 256,
        }
    }

    /// Bytes per block; the element's size for the plain floats.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 | Self::IQ4_NL | Self::Q1_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
            Self::IQ4_XS => 136,
            Self::MXFP4 => 17,
            Self::TQ1_0 => 54,
            Self::TQ2_0 => 66,
        }
    }

    /// True for the plain floats.
    pub const fn is_float(self) -> bool {
        self.block_len() == 1
    }

    /// The name that GGUF tools print, e.g. `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::IQ4_NL => "IQ4_NL",
            Self::IQ4_XS => "IQ4_XS",
            Self::MXFP4 => "MXFP4",
            Self::Q1_0 => "Q1_0",
            Self::TQ1_0 => "TQ1_0",
            Self::TQ2_0 => "TQ2_0",
        }
    }

    /// The number that GGUF files give the format (`enum ggml_type`).
    pub const fn ggml_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2_K => 10,
            Self::Q3_K => 11,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::IQ4_NL => 20,
            Self::IQ4_XS => 23,
            Self::BF16 => 30,
            Self::TQ1_0 => 34,
            Self::TQ2_0 => 35,
            Self::MXFP4 => 39,
            Self::Q1_0 => 41,
        }
    }

    /// The format with this `enum ggml_type` number; `None` for numbers that are not here.
    pub fn from_ggml_type(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.ggml_type() == id)
    }

    /// Bytes of a row of `cols` elements; `None` when it does not fill whole blocks or overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Writes the elements of whole blocks: the scalar reference, ggml's arithmetic in f32.
    ///
    /// # Panics
    /// When `bytes` does not hold exactly the blocks of `out.len()` elements.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.row_bytes(out.len()), "{self}: {} elements", out.len());
        match self {
            Self::F32 => each_block(bytes, out, floats::f32),
            Self::F16 => each_block(bytes, out, floats::f16),
            Self::BF16 => each_block(bytes, out, floats::bf16),
            Self::Q4_0 => each_block(bytes, out, legacy::q4_0),
            Self::Q4_1 => each_block(bytes, out, legacy::q4_1),
            Self::Q5_0 => each_block(bytes, out, legacy::q5_0),
            Self::Q5_1 => each_block(bytes, out, legacy::q5_1),
            Self::Q8_0 => each_block(bytes, out, legacy::q8_0),
            Self::Q2_K => each_block(bytes, out, k_quants::q2_k),
            Self::Q3_K => each_block(bytes, out, k_quants::q3_k),
            Self::Q4_K => each_block(bytes, out, k_quants::q4_k),
            Self::Q5_K => each_block(bytes, out, k_quants::q5_k),
            Self::Q6_K => each_block(bytes, out, k_quants::q6_k),
            Self::IQ4_NL => each_block(bytes, out, iq4::iq4_nl),
            Self::IQ4_XS => each_block(bytes, out, iq4::iq4_xs),
            Self::MXFP4 => each_block(bytes, out, mxfp4::mxfp4),
            Self::Q1_0 => each_block(bytes, out, q1::q1_0),
            Self::TQ1_0 => each_block(bytes, out, ternary::tq1_0),
            Self::TQ2_0 => each_block(bytes, out, ternary::tq2_0),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Runs `block` over consecutive blocks of `B` bytes and `N` elements.
fn each_block<const B: usize, const N: usize>(bytes: &[u8], out: &mut [f32], block: impl Fn(&[u8; B], &mut [f32; N])) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(bytes, out);
    }
}

/// The half-precision number at byte `at`.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
