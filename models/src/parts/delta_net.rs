//! The Gated DeltaNet mixer (Yang et al., 2024): a linear-attention layer whose state is a matrix.

use atelico_engine::load::{Placement, Weights};
use atelico_engine::model::Step;
use atelico_engine::nn::{Linear, RmsNorm};
use atelico_engine::state::RecurrentState;
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{self, ConvSpec, DeltaSpec, GateOrder, GatedNormSpec, MAX_TAPS, Precision};
use burn::tensor::Tensor;

/// Shape of a Gated DeltaNet mixer; the keys of a config have the prefix `linear_`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeltaNetConfig {
    pub(crate) hidden_size: usize,
    pub(crate) num_key_heads: usize,
    pub(crate) num_value_heads: usize,
    pub(crate) key_head_dim: usize,
    pub(crate) value_head_dim: usize,
    pub(crate) conv_kernel_dim: usize,
    pub(crate) norm_eps: f64,
    /// Value heads that share a key head lie `num_key_heads` apart (GGUF), not side by side.
    pub(crate) tiled: bool,
}

impl DeltaNetConfig {
    fn check(&self) -> Result<()> {
        let refuse = |key: &str, problem| Err(Error::Config { key: key.into(), problem });
        if !self.num_value_heads.is_multiple_of(self.num_key_heads) {
            let problem =
                format!("is {}, which does not divide the {} value heads", self.num_key_heads, self.num_value_heads);
            return refuse("linear_num_key_heads", problem);
        }
        if !self.key_head_dim.is_multiple_of(4) || self.key_head_dim > 256 {
            return refuse(
                "linear_key_head_dim",
                format!("is {}; expected a multiple of 4 up to 256", self.key_head_dim),
            );
        }
        if !(2..=MAX_TAPS).contains(&self.conv_kernel_dim) {
            return refuse("linear_conv_kernel_dim", format!("is {}; expected 2..={MAX_TAPS}", self.conv_kernel_dim));
        }
        Ok(())
    }

    /// The state of one layer.
    pub(crate) fn new_state(&self, placement: &Placement) -> RecurrentState {
        let conv = [self.conv_kernel_dim - 1, self.rule().width()];
        RecurrentState::new(conv, [self.num_value_heads, self.key_head_dim, self.value_head_dim], placement)
    }

    /// Columns of the gate, and of what comes out of the recurrence.
    fn inner_size(&self) -> usize {
        self.num_value_heads * self.value_head_dim
    }

    /// The recurrence over a projection `[q | k | v | z | a | b]`.
    fn rule(&self) -> DeltaSpec {
        let spec = DeltaSpec {
            key_heads: self.num_key_heads,
            value_heads: self.num_value_heads,
            key_dim: self.key_head_dim,
            value_dim: self.value_head_dim,
            tiled: self.tiled,
            a_offset: 0,
            b_offset: 0,
            consecutive: false,
        };
        let a_offset = spec.width() + self.inner_size();
        DeltaSpec { a_offset, b_offset: a_offset + self.num_value_heads, ..spec }
    }
}

/// `out_proj(norm(rule(conv(in_proj_qkv(x)))) * silu(in_proj_z(x)))`.
#[derive(Debug)]
pub(crate) struct GatedDeltaNet {
    /// The projections of queries, keys and values, of the gate z, of the decay and of beta.
    in_proj: Linear,
    /// `[channels, taps]`
    conv1d: Tensor<2>,
    /// `-exp(A_log)`, `[num_value_heads]`.
    a: Tensor<1>,
    /// `[num_value_heads]`
    dt_bias: Tensor<1>,
    /// `[value_head_dim]`
    norm: Tensor<1>,
    norm_eps: f32,
    out_proj: Linear,
    conv: ConvSpec,
    rule: DeltaSpec,
    gate: GatedNormSpec,
    precision: Precision,
}

impl GatedDeltaNet {
    pub(crate) fn load(config: &DeltaNetConfig, weights: &Weights<'_>) -> Result<Self> {
        config.check()?;
        let DeltaNetConfig { hidden_size, num_value_heads: heads, value_head_dim, conv_kernel_dim: taps, .. } = *config;
        let (rule, inner_size) = (config.rule(), config.inner_size());
        let channels = rule.width();
        let projections =
            [("in_proj_qkv", channels), ("in_proj_z", inner_size), ("in_proj_a", heads), ("in_proj_b", heads)];
        // A GGUF holds A itself, a folder its logarithm.
        let a = match weights.contains("A") {
            true => weights.host_elements("A", &[heads])?,
            false => weights.host_elements("A_log", &[heads])?.iter().map(|a| -a.exp()).collect(),
        };
        Ok(Self {
            in_proj: weights.linear_fused(&projections, hidden_size)?,
            conv1d: weights.conv_taps("conv1d.weight", channels, taps)?,
            a: weights.to_device(a),
            dt_bias: weights.elements("dt_bias", &[heads])?,
            norm: weights.vector("norm.weight", value_head_dim)?,
            norm_eps: config.norm_eps as f32,
            out_proj: weights.linear("out_proj", hidden_size, inner_size)?,
            conv: ConvSpec { channels, taps, offset: 0, consecutive: false },
            rule,
            gate: GatedNormSpec { group_size: value_head_dim, gate_offset: channels, order: GateOrder::NormFirst },
            precision: weights.placement().precision,
        })
    }

    /// `residual + mixer(norm(residual))`, `[m, hidden_size]`.
    pub(crate) fn forward_residual(
        &self,
        residual: Tensor<2>,
        norm: &RmsNorm,
        step: &Step,
        state: &mut RecurrentState,
    ) -> Tensor<2> {
        let (positions, slots) = (&step.positions, &step.slots);
        let projected = self.in_proj.forward_normed(residual.clone(), Some(norm)); // [m, q | k | v | z | a | b]
        let qkv = state.update_conv(|window| {
            let spec = ConvSpec { consecutive: step.consecutive, ..self.conv };
            let (x, weight) = (projected.clone(), self.conv1d.clone());
            ops::causal_conv(x, weight, None, positions.clone(), slots.clone(), window, spec)
        }); // [m, q | k | v]
        let y = state.update_matrix(|matrix| {
            let spec = DeltaSpec { consecutive: step.consecutive, ..self.rule };
            let (gates, a, dt_bias) = (projected.clone(), self.a.clone(), self.dt_bias.clone());
            ops::delta_rule(qkv, gates, a, dt_bias, positions.clone(), slots.clone(), matrix, spec, self.precision)
        }); // [m, num_value_heads value_head_dim]
        let gated = ops::gated_rms_norm(y, projected, self.norm.clone(), self.norm_eps, self.gate);
        self.out_proj.forward_add(gated, residual)
    }
}
