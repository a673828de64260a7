//! From a checkpoint's tensors to layers on a device: the cursor that models load through.

mod experts;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atelico_kernels::formats::Format;
use atelico_kernels::ops::{Precision, Weight};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::arithmetic::CacheType;
use crate::nn::{Embedding, Linear, RmsNorm};
use crate::weights::{Checkpoint, StoredTensor};
use crate::{Error, Result};

/// Told of loading: bytes done and bytes in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Where and how a model runs, decided before its first tensor is loaded.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// Arithmetic of products with many rows.
    pub precision: Precision,
    /// Element type of the key-value caches.
    pub cache: CacheType,
    /// Positions that a slot holds.
    pub context: usize,
    /// Sequences that are held at once.
    pub slots: usize,
    /// Tokens of a prompt that are computed at once.
    pub prefill_chunk: usize,
}

impl Placement {
    /// Slots that the state is allocated for: with several, one more takes the rows that fill up
    /// a batch.
    pub fn state_slots(&self) -> usize {
        if self.slots > 1 { self.slots + 1 } else { 1 }
    }
}

/// Rows of a stored matrix that become part of a merged layer.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    name: &'a str,
    /// Rows of the stored matrix.
    stored: usize,
    /// Of every `period` rows, those from `start` up to `end` are taken.
    period: usize,
    start: usize,
    end: usize,
}

impl<'a> Rows<'a> {
    /// All `stored` rows of the layer `name`.
    pub fn all(name: &'a str, stored: usize) -> Self {
        Self { name, stored, period: stored, start: 0, end: stored }
    }

    /// Of every `period` rows of the layer `name`, those of `range`: one part of each head.
    pub fn of_each(name: &'a str, stored: usize, period: usize, range: std::ops::Range<usize>) -> Self {
        Self { name, stored, period, start: range.start, end: range.end }
    }

    /// Rows that are taken.
    fn count(&self) -> usize {
        self.stored / self.period.max(1) * (self.end - self.start)
    }

    /// The elements of these rows, of a matrix's `elements` or their bytes.
    fn select<'e, T: Copy>(&self, elements: &'e [T]) -> impl Iterator<Item = T> + use<'e, T> {
        let row = elements.len() / self.stored.max(1);
        let (start, end) = (self.start * row, self.end * row);
        elements.chunks_exact((self.period * row).max(1)).flat_map(move |chunk| &chunk[start..end]).copied()
    }
}

/// A place in a checkpoint's tree of names, from which layers are loaded.
#[derive(Clone)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    placement: &'a Placement,
    prefix: String,
    progress: Option<&'a Progress>,
    loaded: Arc<AtomicU64>,
}

impl<'a> Weights<'a> {
    /// The root of `checkpoint`.
    pub fn new(checkpoint: &'a Checkpoint, placement: &'a Placement, progress: Option<&'a Progress>) -> Self {
        Self { checkpoint, placement, prefix: String::new(), progress, loaded: Arc::default() }
    }

    /// The subtree `name`.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// Where the model runs.
    pub fn placement(&self) -> &'a Placement {
        self.placement
    }

    /// Whether the tensor `name` exists here.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&format!("{}{name}", self.prefix))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'a>> {
        let tensor = self.checkpoint.tensor(&format!("{}{name}", self.prefix))?;
        if tensor.shape != shape {
            let problem = format!("has shape {:?}; the config asks for {shape:?}", tensor.shape);
            return Err(Error::Config { key: tensor.name, problem });
        }
        Ok(tensor)
    }

    /// The elements of a small tensor in float32, on the host.
    fn host_values(&self, tensor: &StoredTensor<'a>) -> Vec<f32> {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        tensor.format.dequantize(&tensor.bytes, &mut values);
        self.done(tensor);
        values
    }

    /// Counts a tensor as copied and lets go of its part of the mapped file.
    fn done(&self, tensor: &StoredTensor<'_>) {
        self.checkpoint.release(tensor);
        let bytes = tensor.bytes.len() as u64;
        let done = self.loaded.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = self.progress {
            progress(done, self.checkpoint.weight_bytes());
        }
    }

    fn matrix(&self, format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Weight> {
        let Placement { device, precision, .. } = self.placement;
        Weight::for_precision(format, rows, cols, bytes, device, *precision)
            .map_err(|e| Error::Compute(format!("{}: {e}", self.prefix)))
    }

    /// A matrix whose rows stay apart in any precision, as the products of chosen experts read them.
    fn stored_matrix(&self, format: Format, rows: usize, cols: usize, bytes: &[u8]) -> Result<Weight> {
        Weight::new(format, rows, cols, bytes, &self.placement.device)
            .map_err(|e| Error::Compute(format!("{}: {e}", self.prefix)))
    }

    /// The layer `name` with weight `[out, in]` and, when the checkpoint has one, its bias.
    ///
    /// # Errors
    /// When the tensor is missing or its shape differs; so for all that follow.
    pub fn linear(&self, name: &str, out: usize, input: usize) -> Result<Linear> {
        self.linear_fused(&[(name, out)], input)
    }

    /// The layers `names` of one input merged, their outputs side by side. Neighbours of one format
    /// become one matrix.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn linear_fused(&self, names: &[(&str, usize)], input: usize) -> Result<Linear> {
        self.linear_rows(&names.iter().map(|(name, out)| Rows::all(name, *out)).collect::<Vec<_>>(), input)
    }

    /// Like [`Self::linear_fused`], of all or some rows of stored matrices.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn linear_rows(&self, parts: &[Rows<'_>], input: usize) -> Result<Linear> {
        let tensors = parts
            .iter()
            .map(|rows| Ok((*rows, self.matrix_tensor(&format!("{}.weight", rows.name), rows.stored, input)?)))
            .collect::<Result<Vec<_>>>()?;
        let mut weights = Vec::new();
        for run in tensors.chunk_by(|(_, a), (_, b)| a.format == b.format) {
            let [(first, tensor), ..] = run else { continue };
            let rows = run.iter().map(|(rows, _)| rows.count()).sum();
            weights.push(if run.len() == 1 && first.count() == first.stored {
                self.matrix(tensor.format, rows, input, &tensor.bytes)?
            } else {
                let bytes = run.iter().flat_map(|(rows, tensor)| rows.select(&tensor.bytes)).collect::<Vec<u8>>();
                self.matrix(tensor.format, rows, input, &bytes)?
            });
        }
        for (index, (rows, tensor)) in tensors.iter().enumerate() {
            if parts[..index].iter().all(|earlier| earlier.name != rows.name) {
                self.done(tensor);
            }
        }
        let has_bias = parts.iter().filter(|rows| self.contains(&format!("{}.bias", rows.name))).count();
        let bias = match has_bias {
            0 => None,
            n if n == parts.len() => {
                let mut bias = Vec::new();
                for rows in parts {
                    bias.extend(rows.select(&self.host_vector(&format!("{}.bias", rows.name), rows.stored)?));
                }
                Some(self.to_device(bias))
            }
            _ => {
                let key = format!("{}{}", self.prefix, parts[0].name);
                return Err(Error::Config { key, problem: "and its siblings differ in having a bias".into() });
            }
        };
        Ok(Linear { weights, bias, precision: self.placement.precision })
    }

    /// The matrix `name` `[out, in]` that is stored under its bare name, without `.weight`.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn parameter(&self, name: &str, out: usize, input: usize) -> Result<Linear> {
        let tensor = self.tensor(name, &[out, input])?;
        let weight = self.matrix(tensor.format, out, input, &tensor.bytes)?;
        self.done(&tensor);
        Ok(Linear { weights: vec![weight], bias: None, precision: self.placement.precision })
    }

    /// A matrix `[rows, cols]`; one of a single row may be stored as a vector.
    fn matrix_tensor(&self, name: &str, rows: usize, cols: usize) -> Result<StoredTensor<'a>> {
        let tensor = self.checkpoint.tensor(&format!("{}{name}", self.prefix))?;
        if rows == 1 && tensor.shape == [cols] { Ok(tensor) } else { self.tensor(name, &[rows, cols]) }
    }

    /// The embedding table `name`, `[vocab_size, hidden_size]`.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn embedding(&self, name: &str, vocab_size: usize, hidden_size: usize) -> Result<Embedding> {
        let tensor = self.tensor(&format!("{name}.weight"), &[vocab_size, hidden_size])?;
        let weight = self.matrix(tensor.format, vocab_size, hidden_size, &tensor.bytes)?;
        self.done(&tensor);
        Ok(Embedding { weight })
    }

    /// The vector `name` in float32, on the host.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn host_vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        self.host_tensor(name, &[length])
    }

    /// The elements of the tensor `name` in float32, on the host.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn host_tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.host_values(&self.tensor(name, shape)?))
    }

    /// The tensor `name` in float32 with its elements in a row, on the host. `shape` is that of the
    /// published checkpoints; other files drop its axes of one element, add some, or split its last
    /// axis into groups.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn host_elements(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.checkpoint.tensor(&format!("{}{name}", self.prefix))?;
        if tensor.shape.iter().product::<usize>() != shape.iter().product::<usize>() {
            let problem = format!("has shape {:?}; the config asks for {shape:?}", tensor.shape);
            return Err(Error::Config { key: tensor.name, problem });
        }
        Ok(self.host_values(&tensor))
    }

    /// [`Self::host_elements`] on the device.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn elements(&self, name: &str, shape: &[usize]) -> Result<Tensor<1>> {
        Ok(self.to_device(self.host_elements(name, shape)?))
    }

    /// The weights of a depthwise convolution, stored `[channels, 1, taps]`, as `[taps, channels]`: a
    /// tap of all channels lies side by side.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn conv_taps(&self, name: &str, channels: usize, taps: usize) -> Result<Tensor<2>> {
        let stored = self.host_elements(name, &[channels, 1, taps])?;
        let tap = |tap| stored.iter().skip(tap).step_by(taps);
        let values = (0..taps).flat_map(tap).copied().collect();
        Ok(self.to_device(values).reshape([taps, channels]))
    }

    /// `values` on the device in float32, on one axis: more may be allocated with padded rows.
    pub fn to_device(&self, values: Vec<f32>) -> Tensor<1> {
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), (&self.placement.device, DType::F32))
    }

    /// The vector `name` in float32.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn vector(&self, name: &str, length: usize) -> Result<Tensor<1>> {
        self.float_tensor(name, [length])
    }

    /// The tensor `name` in float32.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn float_tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        Ok(self.to_device(self.host_tensor(name, &shape)?).reshape(shape))
    }

    /// The norm `name`, with weight `[hidden_size]`.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn rms_norm(&self, name: &str, hidden_size: usize, eps: f64) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: self.vector(&format!("{name}.weight"), hidden_size)?, eps: eps as f32 })
    }
}
