//! A weight matrix on a device, in its stored format.

use std::sync::Arc;

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::Precision;
use super::interleaved::Matrix;
use crate::KernelError;
use crate::flex::interleaved::Interleaved;
use crate::formats::Format;

/// Shape and format of a weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixSpec {
    /// Element format.
    pub format: Format,
    /// Rows: the output features.
    pub rows: usize,
    /// Columns: the input features.
    pub cols: usize,
}

impl MatrixSpec {
    /// Whether rows divide into the 16-byte loads of a GPU's matrix-vector products.
    pub(crate) fn whole_vectors(self) -> bool {
        !self.format.is_float() || (self.cols * self.format.block_bytes()).is_multiple_of(16)
    }
}

/// A weight matrix `[rows, cols]`, stored as its checkpoint stores it.
///
/// On the CPU the words hold the rows' blocks as they are, or, for [`Precision::Int8`], the words
/// of sixteen rows interleaved; on the other devices every field of the blocks is stored apart
/// ([`Format::planes`]), so that neighbouring lanes read neighbouring words.
#[derive(Clone, Debug)]
pub struct Weight {
    spec: MatrixSpec,
    words: Tensor<1, Int>, // u32
    /// In place of the words, of which there is then one.
    interleaved: Option<Matrix>,
}

impl Weight {
    /// Puts the stored `bytes` of a `[rows, cols]` matrix on `device`, for products in any precision
    /// but [`Precision::Int8`].
    ///
    /// # Errors
    /// When `cols` is no multiple of the format's block, `bytes` does not fit the shape, or the
    /// matrix is larger than 32-bit word indices reach.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: &[u8], device: &Device) -> Result<Self, KernelError> {
        Self::for_precision(format, rows, cols, bytes, device, Precision::F32)
    }

    /// Puts the stored `bytes` of a `[rows, cols]` matrix on `device`, laid out for products in
    /// `precision`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_precision(
        format: Format,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        device: &Device,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        let row_bytes =
            format.row_bytes(cols).ok_or(KernelError::RowLength { format, block: format.block_len(), cols })?;
        let expected = row_bytes.checked_mul(rows).ok_or(KernelError::TooLarge { bytes: usize::MAX })?;
        if bytes.len() != expected {
            return Err(KernelError::WeightBytes { format, rows, cols, expected, found: bytes.len() });
        }
        if expected / 4 > i32::MAX as usize {
            return Err(KernelError::TooLarge { bytes: expected });
        }
        let interleaved = match precision {
            Precision::Int8 if is_cpu(device) => Interleaved::new(format, rows, cols, bytes).map(Arc::new),
            _ => None,
        };
        let words = if interleaved.is_some() {
            vec![0]
        } else if is_cpu(device) {
            let mut words = vec![0u32; expected.div_ceil(4)];
            bytemuck::cast_slice_mut::<u32, u8>(&mut words)[..expected].copy_from_slice(bytes);
            words
        } else {
            format.to_planes(bytes)
        };
        let count = words.len();
        let words = Tensor::from_data(TensorData::new(words, [count]), (device, DType::U32));
        Ok(Self { spec: MatrixSpec { format, rows, cols }, words, interleaved })
    }

    /// Shape and format.
    pub fn spec(&self) -> MatrixSpec {
        self.spec
    }

    /// The stored words, `[words]` u32.
    pub(crate) fn words(&self) -> &Tensor<1, Int> {
        &self.words
    }

    /// The matrix, where its rows are interleaved.
    pub(crate) fn interleaved(&self) -> Option<&Matrix> {
        self.interleaved.as_ref()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.interleaved.as_ref().map_or(self.words.dims()[0] * 4, |matrix| matrix.bytes())
    }
}

/// Whether `device` is the CPU's `flex` backend.
pub fn is_cpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}
