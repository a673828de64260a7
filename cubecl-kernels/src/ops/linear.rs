//! Products with stored weights, and rows of them.

#[cfg(feature = "cube")]
use burn::backend::DispatchDevice;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};

use super::interleaved::InterleavedOps;
use super::weight::{MatrixSpec, Weight, is_cpu};
#[cfg(feature = "cube")]
use crate::cube::{gemm::multiplies_registers, matvec_mma};
use crate::flex::{self, tensor};

/// Arithmetic of products. On a GPU those with packed weights and up to [`MATVEC_ROWS`] rows, the
/// products of decode steps, run in [`Int8`](Self::Int8) unless this is [`F32`](Self::F32), and those
/// with weights of other formats in float32; what follows is about products of more rows. Where a GPU's tensor
/// cores have instructions for the type (CUDA), that is from three rows on if the weights are stored in it, and
/// from five on if they are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// float32 throughout.
    #[default]
    F32,
    /// bfloat16 operands, float32 sums.
    BF16,
    /// float16 operands, float32 sums.
    F16,
    /// With packed weights: activations as integers of eight bits with a scale per 32 columns (16 on a
    /// GPU), exact sums of 16 or 32 products, float32 sums of those. Weights of other formats compute in
    /// float32, and so do a GPU's products of many rows. A CPU that multiplies tiles of bfloat16 (AMX) does so
    /// with many rows, which is twice as close.
    Int8,
}

impl Precision {
    /// The type of the operands of a GPU's products of many rows.
    pub(crate) fn of_many_rows(self) -> FloatDType {
        match self {
            Self::BF16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
            Self::F32 | Self::Int8 => FloatDType::F32,
        }
    }
}

/// Most rows that take the matrix-vector path.
pub(crate) const MATVEC_ROWS: usize = 8;
/// The same of weights in floats where tensor cores multiply as fast as weights arrive, but not few rows in the
/// weights' own type; a matrix-vector product of more rows computes longer than it reads.
#[cfg(feature = "cube")]
const MATVEC_ROWS_BESIDE_TENSOR_CORES: usize = 4;

/// Most rows that take the matrix-vector path on a device.
fn matvec_rows(device: &Device, weights: &[Weight], precision: Precision) -> usize {
    match device.as_dispatch() {
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(device) => {
            let (client, narrow) = (device.client(), precision.of_many_rows());
            let properties = client.properties();
            let computes_long = |weight: &Weight| {
                weight.spec().format.is_float() && !matvec_mma::multiplies(properties, weight.spec(), narrow)
            };
            if multiplies_registers(properties, narrow.into()) && weights.iter().any(computes_long) {
                MATVEC_ROWS_BESIDE_TENSOR_CORES
            } else {
                MATVEC_ROWS
            }
        }
        _ => MATVEC_ROWS,
    }
}

/// Whether all weights are multiplied with a few rows on tensor cores, in their own type.
fn on_tensor_cores(device: &Device, weights: &[Weight], m: usize, precision: Precision) -> bool {
    match device.as_dispatch() {
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(device) => {
            let (client, narrow) = (device.client(), precision.of_many_rows());
            let multiplies = |weight: &Weight| {
                matvec_mma::pays(weight.spec(), m) && matvec_mma::multiplies(client.properties(), weight.spec(), narrow)
            };
            weights.iter().all(multiplies)
        }
        _ => false,
    }
}

/// What the outputs of a product go through before they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// The first half of them gates the second: `silu(a) * b`.
    SwiGlu,
    /// `relu(a)²`.
    Relu2,
}

/// What the backends are told of a [`Fusion`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FusionSpec {
    pub(crate) norm_eps: Option<f32>,
    pub(crate) activation: Activation,
    pub(crate) residual: bool,
    /// Round x to bytes where the weights are packed.
    pub(crate) int8: bool,
    /// What x may be rounded to where tensor cores multiply several rows; float32 where it may not.
    pub(crate) narrow: FloatDType,
}

impl Default for FusionSpec {
    fn default() -> Self {
        Self { norm_eps: None, activation: Activation::None, residual: false, int8: false, narrow: FloatDType::F32 }
    }
}

/// What happens before and after a product; for few rows in the launch of the product itself.
#[derive(Clone, Debug, Default)]
pub struct Fusion {
    /// Added to every row of the product, `[Σ rows]`.
    pub bias: Option<Tensor<1>>,
    /// x is RMS-normed first: weight `[cols]` float32 and epsilon.
    pub norm: Option<(Tensor<1>, f32)>,
    /// What follows the product.
    pub activation: Activation,
    /// Added to the result, which has its shape.
    pub residual: Option<Tensor<2>>,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait LinearOps: Backend {
    /// `out[:, offset..offset + rows] = x wᵀ`; x `[m, cols]`, out `[m, stride]`, returned.
    fn linear_into(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        spec: MatrixSpec,
        out: FloatTensor<Self>,
        offset: usize,
    ) -> FloatTensor<Self>;

    /// The whole matrix in float32, bfloat16 or float16, `[rows, cols]`.
    fn dequantize(words: IntTensor<Self>, spec: MatrixSpec, dtype: FloatDType) -> FloatTensor<Self>;

    /// Rows `tokens` of the matrix in float32, `[n, cols]`.
    fn embedding(words: IntTensor<Self>, tokens: IntTensor<Self>, spec: MatrixSpec) -> FloatTensor<Self>;
}

/// Products with what rides along, for few rows on a GPU.
#[backend_extension(Cube: cfg(feature = "cube"))]
pub(crate) trait FusedLinearOps: Backend {
    /// [`LinearOps::linear_into`] as `fusion` says; `norm_weight` (`[cols]`) and `residual`
    /// (`[m, stride]`) are read where it asks for them. Only products of at most [`MATVEC_ROWS`] rows, and
    /// with weights of whole 16-byte vectors, take a norm along; more rows are multiplied in the type
    /// of x, fewer on tensor cores in the one that `fusion` names, and the output may have that type too.
    #[allow(clippy::too_many_arguments)]
    fn linear_fused_into(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        spec: MatrixSpec,
        norm_weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        out: FloatTensor<Self>,
        offset: usize,
        fusion: FusionSpec,
    ) -> FloatTensor<Self>;

    /// Two such products with the same x, the outputs of the second weight after those of the first: few rows,
    /// weights of whole 16-byte vectors, no activation and no residual. In one launch, unless their rows are
    /// shared among different numbers of planes.
    #[allow(clippy::too_many_arguments)]
    fn linear_pair_into(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        spec: MatrixSpec,
        second_words: IntTensor<Self>,
        second_spec: MatrixSpec,
        norm_weight: FloatTensor<Self>,
        out: FloatTensor<Self>,
        offset: usize,
        fusion: FusionSpec,
    ) -> FloatTensor<Self>;
}

/// `x wᵀ`.
///
/// # Shapes
/// x `[m, cols]` float32, w `[rows, cols]`; returns `[m, rows]` float32.
pub fn linear(x: Tensor<2>, weight: &Weight, precision: Precision) -> Tensor<2> {
    linear_merged(x, std::slice::from_ref(weight), precision)
}

/// `x [w0; w1; …]ᵀ`: several weights of equal column count whose outputs lie side by side.
///
/// # Shapes
/// x `[m, cols]` float32; returns `[m, Σ rows]` float32.
pub fn linear_merged(x: Tensor<2>, weights: &[Weight], precision: Precision) -> Tensor<2> {
    let device = x.device();
    let m = x.dims()[0];
    let many = m > matvec_rows(&device, weights, precision);
    if many && !is_cpu(&device) || takes_norm(&x, weights, precision) {
        return fused_launches(x, weights, Fusion::default(), precision);
    }
    let stride = weights.iter().map(|w| w.spec().rows).sum();
    let mut out = if is_cpu(&device) {
        // `empty` of the CPU fills its memory twice.
        Tensor::from_data(TensorData::new(vec![0.0f32; m * stride], [m, stride]), (&device, DType::F32))
    } else {
        // One axis, then a view: two axes may be allocated with padded rows.
        Tensor::<1>::empty([m * stride], (&device, DType::F32)).reshape([m, stride])
    };
    let mut offset = 0;
    for weight in weights {
        let (x, to) = (x.clone().into_dispatch(), out.into_dispatch());
        out = Tensor::from_dispatch(match weight.interleaved() {
            Some(matrix) => Dispatch::interleaved_into(x, matrix.clone(), to, offset),
            None => Dispatch::linear_into(x, weight.words().clone().into_dispatch(), weight.spec(), to, offset),
        });
        offset += weight.spec().rows;
    }
    out
}

/// [`linear_merged`] with a norm before it and a gate or a residual after it.
///
/// # Shapes
/// x `[m, cols]` float32, or the type of an activated result; returns `[m, Σ rows]` float32, or where `fusion`
/// gates half as wide; on a GPU what an activation leaves of many rows has the type that `precision` multiplies
/// in.
pub fn linear_fused(x: Tensor<2>, weights: &[Weight], fusion: Fusion, precision: Precision) -> Tensor<2> {
    if fusion.bias.is_none() && (fusion.activation != Activation::SwiGlu || weights.len() == 1) && !is_cpu(&x.device())
    {
        if takes_norm(&x, weights, precision) {
            return fused_launches(x, weights, fusion, precision);
        }
        if x.dims()[0] > matvec_rows(&x.device(), weights, precision) {
            let dtype = precision.of_many_rows();
            let x = match fusion.norm {
                Some((weight, eps)) => super::norm::rms_norm_as(x, weight, eps, dtype),
                None => x,
            };
            return fused_launches(x, weights, Fusion { norm: None, ..fusion }, precision);
        }
    }
    let x = match fusion.norm {
        Some((weight, eps)) => super::rms_norm(x, weight, eps),
        None => x,
    };
    let y = linear_merged(x, weights, precision);
    let y = match fusion.bias {
        Some(bias) => y + bias.unsqueeze::<2>(),
        None => y,
    };
    let y = match fusion.activation {
        Activation::None => y,
        Activation::SwiGlu => super::silu_mul(y),
        Activation::Relu2 => super::relu2(y),
    };
    match fusion.residual {
        Some(residual) => y + residual,
        None => y,
    }
}

/// Whether products norm x in their own launches, weights permitting: few rows on a GPU.
pub fn products_take_norm(x: &Tensor<2>) -> bool {
    x.dims()[0] <= MATVEC_ROWS && !is_cpu(&x.device())
}

/// Whether a product with each of the weights can norm x in its launch: few rows on a GPU, of whole
/// 16-byte vectors.
fn takes_norm(x: &Tensor<2>, weights: &[Weight], precision: Precision) -> bool {
    let [m, cols] = x.dims();
    debug_assert!(weights.iter().all(|w| w.spec().cols == cols), "{cols} columns");
    let device = x.device();
    !is_cpu(&device)
        && m <= matvec_rows(&device, weights, precision)
        && weights.iter().all(|w| w.spec().whole_vectors())
}

/// A launch for each weight, of what [`FusedLinearOps::linear_fused_into`] takes.
fn fused_launches(x: Tensor<2>, weights: &[Weight], fusion: Fusion, precision: Precision) -> Tensor<2> {
    let device = x.device();
    let m = x.dims()[0];
    let spec = FusionSpec {
        norm_eps: fusion.norm.as_ref().map(|(_, eps)| *eps),
        activation: fusion.activation,
        residual: fusion.residual.is_some(),
        int8: precision != Precision::F32,
        narrow: precision.of_many_rows(),
    };
    let many = m > matvec_rows(&device, weights, precision);
    let narrow = many || on_tensor_cores(&device, weights, m, precision);
    let dtype = if narrow { precision.of_many_rows() } else { FloatDType::F32 };
    // Tensor cores take a few rows in either type, and round as they read; what they norm must not be rounded yet.
    let x = match (many || !narrow, fusion.norm.is_some()) {
        (true, _) => x.cast(dtype),
        (false, true) => x.cast(FloatDType::F32),
        (false, false) => x,
    };
    let rows = weights.iter().map(|w| w.spec().rows).sum::<usize>();
    let stride = if fusion.activation == Activation::SwiGlu { rows / 2 } else { rows };
    let out_dtype = if fusion.activation == Activation::None { FloatDType::F32 } else { dtype };
    // One axis, then a view: two axes may be allocated with padded rows.
    let mut out = Tensor::<1>::empty([m * stride], (&device, DType::from(out_dtype))).reshape([m, stride]);
    // What is not read stands in as x.
    let norm_weight = match fusion.norm {
        Some((weight, _)) => weight.into_dispatch(),
        None => x.clone().into_dispatch(),
    };
    let residual = match fusion.residual {
        Some(residual) => residual.into_dispatch(),
        None => x.clone().into_dispatch(),
    };
    let mut offset = 0;
    let pairs = !many && spec.activation == Activation::None && !spec.residual;
    for weights in weights.chunks(if pairs { 2 } else { 1 }) {
        let (x, to, norm_weight) = (x.clone().into_dispatch(), out.into_dispatch(), norm_weight.clone());
        let words = |weight: &Weight| weight.words().clone().into_dispatch();
        out = Tensor::from_dispatch(match weights {
            [first, second] => Dispatch::linear_pair_into(
                x,
                words(first),
                first.spec(),
                words(second),
                second.spec(),
                norm_weight,
                to,
                offset,
                spec,
            ),
            [weight, ..] => {
                let residual = residual.clone();
                Dispatch::linear_fused_into(x, words(weight), weight.spec(), norm_weight, residual, to, offset, spec)
            }
            [] => to,
        });
        offset += weights.iter().map(|weight| weight.spec().rows).sum::<usize>();
    }
    out
}

/// The whole matrix in a float type, `[rows, cols]`.
pub fn dequantize(weight: &Weight, dtype: FloatDType) -> Tensor<2> {
    if weight.interleaved().is_some() {
        let device = weight.words().device();
        let rows = (0..weight.spec().rows as i32).collect::<Vec<_>>();
        let rows = Tensor::from_data(TensorData::new(rows, [weight.spec().rows]), (&device, DType::I32));
        return embedding(weight, rows).cast(dtype);
    }
    Tensor::from_dispatch(Dispatch::dequantize(weight.words().clone().into_dispatch(), weight.spec(), dtype))
}

/// Rows `tokens` of an embedding matrix.
///
/// # Shapes
/// tokens `[n]` int32, each below the row count; returns `[n, cols]` float32.
pub fn embedding(weight: &Weight, tokens: Tensor<1, Int>) -> Tensor<2> {
    if let Some(matrix) = weight.interleaved() {
        return Tensor::from_dispatch(Dispatch::interleaved_rows(matrix.clone(), tokens.into_dispatch()));
    }
    Tensor::from_dispatch(Dispatch::embedding(
        weight.words().clone().into_dispatch(),
        tokens.into_dispatch(),
        weight.spec(),
    ))
}

impl LinearOps for Flex {
    fn linear_into(
        x: FlexTensor,
        words: FlexTensor,
        spec: MatrixSpec,
        mut out: FlexTensor,
        offset: usize,
    ) -> FlexTensor {
        let [m, stride] = tensor::dims(&out);
        let x = tensor::contiguous(x);
        let bytes = tensor::bytes(&words);
        flex::linear::linear(
            spec.format,
            bytes,
            spec.rows,
            spec.cols,
            tensor::f32s(&x),
            m,
            tensor::f32s_mut(&mut out),
            stride,
            offset,
        );
        out
    }

    fn dequantize(words: FlexTensor, spec: MatrixSpec, dtype: FloatDType) -> FlexTensor {
        let mut out = vec![0.0f32; spec.rows * spec.cols];
        flex::embedding::dequantize_rows(spec.format, tensor::bytes(&words), spec.cols, 0..spec.rows, &mut out);
        let out = tensor::from_f32s(out, [spec.rows, spec.cols]);
        <Flex as burn::backend::ops::FloatTensorOps<Flex>>::float_cast(out, dtype)
    }

    fn embedding(words: FlexTensor, tokens: FlexTensor, spec: MatrixSpec) -> FlexTensor {
        let tokens = tensor::contiguous(tokens);
        let tokens = tensor::i32s(&tokens);
        let mut out = vec![0.0f32; tokens.len() * spec.cols];
        flex::embedding::gather(spec.format, tensor::bytes(&words), spec.rows, spec.cols, tokens, &mut out);
        tensor::from_f32s(out, [tokens.len(), spec.cols])
    }
}
