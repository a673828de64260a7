//! From a checkpoint's tensors to layers on a device: the cursor that models load through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atelico_kernels::formats::Format;
use atelico_kernels::ops::{Precision, Weight};
use burn::tensor::{DType, Device, Tensor, TensorData};

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
    pub cache_dtype: DType,
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
        tensor.format.dequantize(tensor.bytes, &mut values);
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
        let tensors = names
            .iter()
            .map(|(name, out)| self.tensor(&format!("{name}.weight"), &[*out, input]))
            .collect::<Result<Vec<_>>>()?;
        let mut weights = Vec::new();
        for run in tensors.chunk_by(|a, b| a.format == b.format) {
            let [first, ..] = run else { continue };
            let rows = run.iter().map(|t| t.shape[0]).sum();
            weights.push(if run.len() == 1 {
                self.matrix(first.format, rows, input, first.bytes)?
            } else {
                let bytes = run.iter().flat_map(|t| t.bytes).copied().collect::<Vec<u8>>();
                self.matrix(first.format, rows, input, &bytes)?
            });
            run.iter().for_each(|t| self.done(t));
        }
        let has_bias = names.iter().filter(|(name, _)| self.contains(&format!("{name}.bias"))).count();
        let bias = match has_bias {
            0 => None,
            n if n == names.len() => {
                let parts = names
                    .iter()
                    .map(|(name, out)| self.vector(&format!("{name}.bias"), *out))
                    .collect::<Result<Vec<_>>>()?;
                Some(Tensor::cat(parts, 0))
            }
            _ => {
                let key = format!("{}{}", self.prefix, names[0].0);
                return Err(Error::Config { key, problem: "and its siblings differ in having a bias".into() });
            }
        };
        Ok(Linear { weights, bias, precision: self.placement.precision })
    }

    /// The embedding table `name`, `[vocab_size, hidden_size]`.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn embedding(&self, name: &str, vocab_size: usize, hidden_size: usize) -> Result<Embedding> {
        let tensor = self.tensor(&format!("{name}.weight"), &[vocab_size, hidden_size])?;
        let weight = self.matrix(tensor.format, vocab_size, hidden_size, tensor.bytes)?;
        self.done(&tensor);
        Ok(Embedding { weight })
    }

    /// The vector `name` in float32, on the host.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn host_vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        Ok(self.host_values(&self.tensor(name, &[length])?))
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
        Ok(self.to_device(self.host_vector(name, length)?))
    }

    /// The norm `name`, with weight `[hidden_size]`.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn rms_norm(&self, name: &str, hidden_size: usize, eps: f64) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: self.vector(&format!("{name}.weight"), hidden_size)?, eps: eps as f32 })
    }
}
