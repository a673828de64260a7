//! The crate's error type.

use crate::formats::Format;

/// Operands that a kernel can't take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Rows of this length can't be stored in this block format.
    #[error("{format:?} rows hold multiples of {block} elements, not {cols}")]
    RowLength {
        /// The format.
        format: Format,
        /// Elements per block.
        block: usize,
        /// The row length.
        cols: usize,
    },
    /// The bytes of a weight do not fit its shape.
    #[error("{format:?} [{rows}, {cols}] takes {expected} bytes, got {found}")]
    WeightBytes {
        /// The format.
        format: Format,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Bytes that the shape takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The weight is larger than kernels can address.
    #[error("a weight of {bytes} bytes is larger than kernels can address")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The device failed before a result could be read.
    #[error("reading from the device: {problem}")]
    Read {
        /// What the device said.
        problem: String,
    },
    /// Two operands disagree.
    #[error("{op}: {what} is {found}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand.
        what: &'static str,
        /// The size found.
        found: usize,
        /// The size expected.
        expected: usize,
    },
}
