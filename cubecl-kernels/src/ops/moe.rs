//! Mixture-of-experts layers: the choice of experts, and products with the chosen ones.
//!
//! The experts' matrices lie behind one another in one [`Weight`] of `experts * rows` rows, so they
//! stay packed. Ids live on the device; only the chosen experts' weights are read.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, FloatDType, Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use super::linear::{Activation, Precision};
use super::weight::{MatrixSpec, Weight, is_cpu};
use crate::flex::{self, tensor};

/// Most tokens whose experts a GPU multiplies one by one; above, rows are grouped by expert.
const MATVEC_TOKENS: usize = 8;

/// How logits of a router become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoeScores {
    /// Softmax over all experts (Qwen, Gemma).
    Softmax,
    /// A sigmoid of each (DeepSeek V3, Nemotron 3).
    Sigmoid,
}

/// How a router chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoeGatingSpec {
    /// Experts of the layer.
    pub experts: usize,
    /// Experts chosen for a token.
    pub top_k: usize,
    /// What the logits become.
    pub scores: MoeScores,
    /// Groups of neighbouring experts, of which only the best take part in the choice: a group
    /// scores the sum of its two best biased scores. Divides `experts`.
    pub groups: usize,
    /// Groups that take part.
    pub top_groups: usize,
    /// Divide the weights of the chosen by their sum (plus 1e-20).
    pub normalize: bool,
    /// Factor on the weights (`routed_scaling_factor`).
    pub scale: f32,
}

/// The experts chosen for each row, and how much of each enters the output.
#[derive(Clone, Debug)]
pub struct MoeRoute {
    /// `[m, top_k]` int32, by falling score.
    pub ids: Tensor<2, Int>,
    /// `[m, top_k]` float32.
    pub weights: Tensor<2>,
    experts: usize,
    /// Where each expert's choices start, then all choices (`row * top_k + rank`) ordered by expert:
    /// `[experts + 1 + m top_k]`, or longer as the backend needs. Absent where experts are multiplied one
    /// by one.
    groups: Option<Tensor<1, Int>>,
}

#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub(crate) trait MoeOps: Backend {
    /// `bias` and `expert_scale` are read where `has` says so.
    fn moe_gate(
        logits: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        expert_scale: FloatTensor<Self>,
        spec: MoeGatingSpec,
        has: MoeTerms,
    ) -> (IntTensor<Self>, FloatTensor<Self>);

    /// [`MoeRoute`]'s `groups` of ids `[m, top_k]`.
    fn moe_group(ids: IntTensor<Self>, experts: usize) -> IntTensor<Self>;

    /// `out[c, offset..offset + rows] = W[expert of c] x[c / share]` for each choice c; `choices` holds
    /// the ids, or the groups when `grouped`.
    #[allow(clippy::too_many_arguments)]
    fn moe_linear_into(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        spec: MatrixSpec,
        choices: IntTensor<Self>,
        grouped: bool,
        product: MoeProduct,
        out: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// `out[i] = Σ_j weights[i, j] W[ids[i, j]] h[i top_k + j]`, without a buffer between, plus `residual` of that
    /// shape where `sum` says so.
    #[allow(clippy::too_many_arguments)]
    fn moe_linear_sum(
        h: FloatTensor<Self>,
        words: IntTensor<Self>,
        spec: MatrixSpec,
        ids: IntTensor<Self>,
        weights: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        sum: MoeSum,
    ) -> FloatTensor<Self>;

    /// `out[i] = Σ_j weights[i, j] y[i top_k + j]`.
    fn moe_combine(y: FloatTensor<Self>, weights: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Which optional terms a router has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoeTerms {
    pub(crate) bias: bool,
    pub(crate) expert_scale: bool,
}

/// One product with experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoeProduct {
    /// Experts of the layer.
    pub(crate) experts: usize,
    /// Choices that read one row of `x`: `top_k`, or 1 when each has its own.
    pub(crate) share: usize,
    /// First column of the output.
    pub(crate) offset: usize,
    /// What follows the product: nothing, or on a GPU what takes each output alone; of choices that are not
    /// grouped with whole vectors only.
    pub(crate) activation: Activation,
    /// Round x to bytes where the weights are packed and the rows few.
    pub(crate) int8: bool,
}

/// One weighted sum of products with experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoeSum {
    /// Experts of the layer.
    pub(crate) experts: usize,
    /// Add the residual; only on a GPU with whole vectors.
    pub(crate) adds: bool,
    /// Round h to bytes where the weights are packed.
    pub(crate) int8: bool,
}

/// Chooses each row's experts. Of equal scores the lowest id wins.
///
/// The choice goes by score plus `bias` (`e_score_correction_bias`); the weights are the scores
/// themselves, normalized and scaled as `spec` says, then times `expert_scale` of the expert.
///
/// # Shapes
/// logits `[m, experts]` float32, bias and expert_scale `[experts]` float32.
///
/// # Panics
/// When `spec` contradicts itself: groups that do not divide the experts, or a `top_k` that the groups
/// that take part cannot fill.
pub fn moe_gate(
    logits: Tensor<2>,
    bias: Option<Tensor<1>>,
    expert_scale: Option<Tensor<1>>,
    spec: MoeGatingSpec,
) -> MoeRoute {
    let MoeGatingSpec { experts, top_k, groups, top_groups, .. } = spec;
    assert!(
        groups > 0
            && experts.is_multiple_of(groups)
            && (1..=experts / groups * top_groups.min(groups)).contains(&top_k),
        "inconsistent {spec:?}"
    );
    let device = logits.device();
    let has = MoeTerms { bias: bias.is_some(), expert_scale: expert_scale.is_some() };
    // Stands in for a term that the router lacks; never read.
    let absent = logits.clone().into_dispatch();
    let term = |term: Option<Tensor<1>>| term.map_or_else(|| absent.clone(), Tensor::into_dispatch);
    let (ids, weights) = Dispatch::moe_gate(logits.into_dispatch(), term(bias), term(expert_scale), spec, has);
    let ids = Tensor::<2, Int>::from_dispatch(ids);
    let grouped = is_cpu(&device) || ids.dims()[0] > MATVEC_TOKENS;
    let groups = grouped.then(|| Tensor::from_dispatch(Dispatch::moe_group(ids.clone().into_dispatch(), spec.experts)));
    MoeRoute { ids, weights: Tensor::from_dispatch(weights), experts, groups }
}

/// Products of each row with its chosen experts; the outputs of several weights lie side by side.
/// On a GPU packed experts meet few rows rounded to bytes unless `precision` is float32, and many rows run
/// in the type that it names; all else runs in float32. What an activation leaves of many rows on a GPU has that
/// type too.
///
/// # Shapes
/// x `[m, cols]`, or `[m top_k, cols]` with a row for each choice; weights `[experts * rows, cols]`;
/// returns `[m top_k, Σ rows]`, row `i top_k + j` for choice j of row i.
///
/// # Panics
/// When `activation` takes two outputs.
pub fn moe_linear(
    x: &Tensor<2>,
    weights: &[Weight],
    route: &MoeRoute,
    activation: Activation,
    precision: Precision,
) -> Tensor<2> {
    assert!(activation != Activation::SwiGlu, "experts' gates and values are weights of their own");
    let [m, top_k] = route.ids.dims();
    let share = m * top_k / x.dims()[0].max(1);
    let stride = weights.iter().map(|w| w.spec().rows / route.experts).sum();
    let gpu = !is_cpu(&x.device());
    let (choices, grouped) = match &route.groups {
        Some(groups) => (groups.clone().into_dispatch(), true),
        None => (route.ids.clone().into_dispatch(), false),
    };
    let rides = gpu && (grouped || weights.iter().all(|w| w.spec().whole_vectors()));
    let (ahead, after) = if rides { (activation, Activation::None) } else { (Activation::None, activation) };
    let narrow = precision.of_many_rows();
    let x = if grouped && gpu { x.clone().cast(narrow) } else { x.clone() };
    let dtype = if grouped && gpu && ahead != Activation::None { narrow } else { FloatDType::F32 };
    // One axis, then a view: two axes may be allocated with padded rows.
    let out = Tensor::<1>::empty([m * top_k * stride], (&x.device(), DType::from(dtype)));
    let mut out = out.reshape([m * top_k, stride]);
    let mut offset = 0;
    for weight in weights {
        let product =
            MoeProduct { experts: route.experts, share, offset, activation: ahead, int8: precision != Precision::F32 };
        out = Tensor::from_dispatch(Dispatch::moe_linear_into(
            x.clone().into_dispatch(),
            weight.words().clone().into_dispatch(),
            weight.spec(),
            choices.clone(),
            grouped,
            product,
            out.into_dispatch(),
        ));
        offset += weight.spec().rows / route.experts;
    }
    if after == Activation::Relu2 { super::relu2(out) } else { out }
}

/// The last product of the experts and the weighted sum of each row's, plus `residual`.
///
/// # Shapes
/// h `[m top_k, cols]`, weight `[experts * rows, cols]`, residual `[m, rows]`; returns `[m, rows]`.
pub fn moe_linear_sum(
    h: Tensor<2>,
    weight: &Weight,
    route: &MoeRoute,
    residual: Option<Tensor<2>>,
    precision: Precision,
) -> Tensor<2> {
    let weights = route.weights.clone().into_dispatch();
    let (sum, residual) = if route.groups.is_some() {
        let y = moe_linear(&h, std::slice::from_ref(weight), route, Activation::None, precision);
        (Dispatch::moe_combine(y.into_dispatch(), weights), residual)
    } else {
        let adds = residual.is_some() && weight.spec().whole_vectors();
        let (ahead, after) = if adds { (residual, None) } else { (None, residual) };
        let sum = MoeSum { experts: route.experts, adds, int8: precision != Precision::F32 };
        // What is not read stands in as h.
        let ahead = ahead.unwrap_or_else(|| h.clone()).into_dispatch();
        let (words, ids) = (weight.words().clone().into_dispatch(), route.ids.clone().into_dispatch());
        (Dispatch::moe_linear_sum(h.into_dispatch(), words, weight.spec(), ids, weights, ahead, sum), after)
    };
    let sum = Tensor::from_dispatch(sum);
    match residual {
        Some(residual) => sum + residual,
        None => sum,
    }
}

impl MoeOps for Flex {
    fn moe_gate(
        logits: FlexTensor,
        bias: FlexTensor,
        expert_scale: FlexTensor,
        spec: MoeGatingSpec,
        has: MoeTerms,
    ) -> (FlexTensor, FlexTensor) {
        let [m, _] = tensor::dims(&logits);
        let logits = tensor::contiguous(logits);
        let (bias, scale) = (tensor::contiguous(bias), tensor::contiguous(expert_scale));
        let (ids, weights) = flex::moe::gate(
            tensor::f32s(&logits),
            has.bias.then(|| tensor::f32s(&bias)),
            has.expert_scale.then(|| tensor::f32s(&scale)),
            &spec,
        );
        (tensor::from_i32s(ids, [m, spec.top_k]), tensor::from_f32s(weights, [m, spec.top_k]))
    }

    fn moe_group(ids: FlexTensor, experts: usize) -> FlexTensor {
        let ids = tensor::contiguous(ids);
        let groups = flex::moe::group(tensor::i32s(&ids), experts);
        let length = groups.len();
        tensor::from_i32s(groups, [length])
    }

    fn moe_linear_into(
        x: FlexTensor,
        words: FlexTensor,
        spec: MatrixSpec,
        choices: FlexTensor,
        grouped: bool,
        product: MoeProduct,
        mut out: FlexTensor,
    ) -> FlexTensor {
        debug_assert!(grouped && product.activation == Activation::None, "the CPU groups every route");
        let [_, stride] = tensor::dims(&out);
        let (x, choices) = (tensor::contiguous(x), tensor::contiguous(choices));
        let groups = tensor::i32s(&choices);
        let weight = tensor::bytes(&words);
        flex::moe::linear(spec, weight, tensor::f32s(&x), groups, product, tensor::f32s_mut(&mut out), stride);
        out
    }

    fn moe_linear_sum(
        h: FlexTensor,
        words: FlexTensor,
        spec: MatrixSpec,
        ids: FlexTensor,
        weights: FlexTensor,
        _residual: FlexTensor,
        sum: MoeSum,
    ) -> FlexTensor {
        debug_assert!(!sum.adds, "the CPU groups every route");
        let ([choices, _], experts) = (tensor::dims(&h), sum.experts);
        let rows = spec.rows / experts;
        let groups = Self::moe_group(ids, experts);
        let out = tensor::from_f32s(vec![0.0; choices * rows], [choices, rows]);
        let product = MoeProduct { experts, share: 1, offset: 0, activation: Activation::None, int8: false };
        let y = Self::moe_linear_into(h, words, spec, groups, true, product, out);
        Self::moe_combine(y, weights)
    }

    fn moe_combine(y: FlexTensor, weights: FlexTensor) -> FlexTensor {
        let ([_, rows], [m, _]) = (tensor::dims(&y), tensor::dims(&weights));
        let (y, weights) = (tensor::contiguous(y), tensor::contiguous(weights));
        let out = flex::moe::combine(tensor::f32s(&y), tensor::f32s(&weights), m, rows);
        tensor::from_f32s(out, [m, rows])
    }
}
