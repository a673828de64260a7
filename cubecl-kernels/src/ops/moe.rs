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
    /// Experts to choose from.
    pub experts: usize,
    /// Experts chosen for a token.
    pub top_k: usize,
    /// Every token takes one more, number `experts`, with the sigmoid of a logit of its own as its weight.
    pub shared: bool,
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

impl MoeGatingSpec {
    /// Experts that a token takes.
    pub fn taken(&self) -> usize {
        self.top_k + usize::from(self.shared)
    }

    /// Logits of a token, and experts that there are.
    pub fn logits(&self) -> usize {
        self.experts + usize::from(self.shared)
    }
}

/// The experts of each row, and how much of each enters the output. Below, `top_k` counts the shared one too.
#[derive(Clone, Debug)]
pub struct MoeRoute {
    /// `[m, top_k]` int32, by falling score; the shared one is the last.
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
    /// the ids, or the groups when `grouped`. `norm_weight` (`[cols]`) is read where `product` says so.
    #[allow(clippy::too_many_arguments)]
    fn moe_linear_into(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        spec: MatrixSpec,
        norm_weight: FloatTensor<Self>,
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

    /// `out[i] = Σ_j weights[i, j] y[i top_k + j]`, plus `residual` if it `adds`.
    fn moe_combine(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        adds: bool,
    ) -> FloatTensor<Self>;
}

/// Which optional terms a router has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoeTerms {
    pub(crate) bias: bool,
    pub(crate) expert_scale: bool,
}

/// One product with experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MoeProduct {
    /// Experts of the layer.
    pub(crate) experts: usize,
    /// Choices that read one row of `x`: `top_k`, or 1 when each has its own.
    pub(crate) share: usize,
    /// First column of the output.
    pub(crate) offset: usize,
    /// Norm x first; on a GPU, of choices that are not grouped with whole vectors.
    pub(crate) norm_eps: Option<f32>,
    /// What follows the product: nothing on the CPU; of choices that are not grouped with whole vectors only.
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
/// logits `[m, experts]` float32, one column more with a shared expert; bias and expert_scale `[experts]`
/// float32.
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
    let experts = spec.logits();
    let groups = grouped.then(|| Tensor::from_dispatch(Dispatch::moe_group(ids.clone().into_dispatch(), experts)));
    MoeRoute { ids, weights: Tensor::from_dispatch(weights), experts, groups }
}

/// Products of each row with its chosen experts, of x normed first if `norm` (weight `[cols]` and epsilon) asks for
/// it; the outputs of several weights lie side by side. A gate's values are the first half of an expert's outputs.
/// On a GPU packed experts meet few rows rounded to bytes unless `precision` is float32, and many rows run
/// in the type that it names; all else runs in float32. What an activation leaves of many rows on a GPU has that
/// type too.
///
/// # Shapes
/// x `[m, cols]`, or `[m top_k, cols]` with a row for each choice; weights `[experts * rows, cols]`;
/// returns `[m top_k, Σ rows]`, or half as wide with a gate: row `i top_k + j` for choice j of row i.
pub fn moe_linear(
    x: &Tensor<2>,
    weights: &[Weight],
    route: &MoeRoute,
    norm: Option<(Tensor<1>, f32)>,
    activation: Activation,
    precision: Precision,
) -> Tensor<2> {
    let [m, top_k] = route.ids.dims();
    let share = m * top_k / x.dims()[0].max(1);
    let gpu = !is_cpu(&x.device());
    let (choices, grouped) = match &route.groups {
        Some(groups) => (groups.clone().into_dispatch(), true),
        None => (route.ids.clone().into_dispatch(), false),
    };
    let whole = gpu && !grouped && weights.iter().all(|w| w.spec().whole_vectors());
    let rides = (whole || gpu && grouped) && (activation != Activation::SwiGlu || weights.len() == 1);
    let (ahead, after) = if rides { (activation, Activation::None) } else { (Activation::None, activation) };
    let narrow = if grouped && gpu { precision.of_many_rows() } else { FloatDType::F32 };
    let (x, norm) = match norm {
        Some((weight, eps)) if !whole => (super::norm::rms_norm_as(x.clone(), weight, eps, narrow), None),
        norm => (x.clone().cast(narrow), norm),
    };
    let outputs: usize = weights.iter().map(|w| w.spec().rows / route.experts).sum();
    let stride = if ahead == Activation::SwiGlu { outputs / 2 } else { outputs };
    let dtype = if ahead == Activation::None { FloatDType::F32 } else { narrow };
    // One axis, then a view: two axes may be allocated with padded rows.
    let out = Tensor::<1>::empty([m * top_k * stride], (&x.device(), DType::from(dtype)));
    let mut out = out.reshape([m * top_k, stride]);
    let norm_eps = norm.as_ref().map(|(_, eps)| *eps);
    // What is not read stands in as x.
    let norm_weight = norm.map_or_else(|| x.clone().into_dispatch(), |(weight, _)| weight.into_dispatch());
    let mut offset = 0;
    for weight in weights {
        let product = MoeProduct {
            experts: route.experts,
            share,
            offset,
            norm_eps,
            activation: ahead,
            int8: precision != Precision::F32,
        };
        out = Tensor::from_dispatch(Dispatch::moe_linear_into(
            x.clone().into_dispatch(),
            weight.words().clone().into_dispatch(),
            weight.spec(),
            norm_weight.clone(),
            choices.clone(),
            grouped,
            product,
            out.into_dispatch(),
        ));
        offset += weight.spec().rows / route.experts;
    }
    match after {
        Activation::None => out,
        Activation::SwiGlu => super::silu_mul(out),
        Activation::Relu2 => super::relu2(out),
    }
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
        let y = moe_linear(&h, std::slice::from_ref(weight), route, None, Activation::None, precision);
        let y = y.into_dispatch();
        let adds = residual.is_some();
        // What is not read stands in as y.
        let residual = residual.map_or_else(|| y.clone(), Tensor::into_dispatch);
        (Dispatch::moe_combine(y, weights, residual, adds), None)
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
        (tensor::from_i32s(ids, [m, spec.taken()]), tensor::from_f32s(weights, [m, spec.taken()]))
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
        _norm_weight: FlexTensor,
        choices: FlexTensor,
        grouped: bool,
        product: MoeProduct,
        mut out: FlexTensor,
    ) -> FlexTensor {
        debug_assert!(
            grouped && product.norm_eps.is_none() && product.activation == Activation::None,
            "the CPU groups every route"
        );
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
        let product =
            MoeProduct { experts, share: 1, offset: 0, norm_eps: None, activation: Activation::None, int8: false };
        let y = Self::moe_linear_into(h.clone(), words, spec, h, groups, true, product, out);
        Self::moe_combine(y.clone(), weights, y, false)
    }

    fn moe_combine(y: FlexTensor, weights: FlexTensor, residual: FlexTensor, adds: bool) -> FlexTensor {
        let ([_, rows], [m, _]) = (tensor::dims(&y), tensor::dims(&weights));
        let (y, weights, residual) = (tensor::contiguous(y), tensor::contiguous(weights), tensor::contiguous(residual));
        let start = if adds { tensor::f32s(&residual).to_vec() } else { vec![0.0; m * rows] };
        let out = flex::moe::combine(tensor::f32s(&y), tensor::f32s(&weights), m, rows, start);
        tensor::from_f32s(out, [m, rows])
    }
}
