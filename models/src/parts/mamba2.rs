//! The Mamba2 mixer (Dao and Gu, 2024): a selective state-space layer in place of attention.

use atelico_engine::load::{Placement, Weights};
use atelico_engine::model::Step;
use atelico_engine::nn::{Linear, RmsNorm};
use atelico_engine::state::RecurrentState;
use atelico_engine::{Error, Result};
use atelico_kernels::ops::{self, ConvSpec, GateOrder, GatedNormSpec, MAX_TAPS, MambaSpec, Precision};
use burn::tensor::Tensor;

/// Largest state of a head's element: what the kernels stage at once.
const MAX_STATE: usize = 1024;

/// Shape of a Mamba2 mixer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mamba2Config {
    pub(crate) hidden_size: usize,
    pub(crate) num_heads: usize,
    pub(crate) head_dim: usize,
    /// Groups of heads that share B and C; the output norm runs over each group.
    pub(crate) n_groups: usize,
    pub(crate) state_size: usize,
    pub(crate) conv_kernel: usize,
    pub(crate) norm_eps: f64,
}

impl Mamba2Config {
    fn check(&self) -> Result<()> {
        let refuse = |key: &str, problem| Err(Error::Config { key: key.into(), problem });
        if !self.num_heads.is_multiple_of(self.n_groups) {
            let problem = format!("is {}, which does not divide the {} heads", self.n_groups, self.num_heads);
            return refuse("n_groups", problem);
        }
        if self.state_size > MAX_STATE {
            return refuse("ssm_state_size", format!("is {}; at most {MAX_STATE} is supported", self.state_size));
        }
        if !(2..=MAX_TAPS).contains(&self.conv_kernel) {
            return refuse("conv_kernel", format!("is {}; expected 2..={MAX_TAPS}", self.conv_kernel));
        }
        Ok(())
    }

    /// The state of one layer.
    pub(crate) fn new_state(&self, placement: &Placement) -> RecurrentState {
        let conv = [self.conv_kernel - 1, self.scan().conv_dim()];
        RecurrentState::new(conv, [self.num_heads, self.head_dim, self.state_size], placement)
    }

    /// The recurrence over a projection `[z | x | B | C | dt]`.
    fn scan(&self) -> MambaSpec {
        let spec = MambaSpec {
            heads: self.num_heads,
            head_dim: self.head_dim,
            groups: self.n_groups,
            state_size: self.state_size,
            dt_offset: 0,
            consecutive: false,
        };
        MambaSpec { dt_offset: spec.inner_size() + spec.conv_dim(), ..spec }
    }
}

/// `out_proj(norm(scan(conv(in_proj(x)))))`.
#[derive(Debug)]
pub(crate) struct Mamba2 {
    in_proj: Linear,
    /// `[channels, taps]`
    conv_weight: Tensor<2>,
    /// `[channels]`
    conv_bias: Option<Tensor<1>>,
    /// `[3, heads]`: A, D and dt_bias.
    head_parameters: Tensor<2>,
    /// `[inner_size]`
    norm: Tensor<1>,
    norm_eps: f32,
    out_proj: Linear,
    conv: ConvSpec,
    scan: MambaSpec,
    gate: GatedNormSpec,
    precision: Precision,
}

impl Mamba2 {
    pub(crate) fn load(config: &Mamba2Config, weights: &Weights<'_>) -> Result<Self> {
        config.check()?;
        let Mamba2Config { hidden_size, num_heads, conv_kernel, n_groups, .. } = *config;
        let scan = config.scan();
        let (inner_size, channels) = (scan.inner_size(), scan.conv_dim());
        // A GGUF holds A itself, a folder its logarithm.
        let a = match weights.contains("A") {
            true => weights.host_elements("A", &[num_heads])?,
            false => weights.host_elements("A_log", &[num_heads])?.iter().map(|a| -a.exp()).collect(),
        };
        let others = [weights.host_elements("D", &[num_heads])?, weights.host_elements("dt_bias", &[num_heads])?];
        let conv_bias = match weights.contains("conv1d.bias") {
            true => Some(weights.elements("conv1d.bias", &[channels])?),
            false => None,
        };
        Ok(Self {
            in_proj: weights.linear("in_proj", inner_size + channels + num_heads, hidden_size)?,
            conv_weight: weights.conv_taps("conv1d.weight", channels, conv_kernel)?,
            conv_bias,
            head_parameters: weights.to_device([a, others.concat()].concat()).reshape([3, num_heads]),
            norm: weights.elements("norm.weight", &[inner_size])?,
            norm_eps: config.norm_eps as f32,
            out_proj: weights.linear("out_proj", hidden_size, inner_size)?,
            conv: ConvSpec { channels, taps: conv_kernel, offset: inner_size, consecutive: false },
            scan,
            gate: GatedNormSpec { group_size: inner_size / n_groups, gate_offset: 0, order: GateOrder::GateFirst },
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
        let projected = self.in_proj.forward_normed(residual.clone(), Some(norm)); // [m, z | x | B | C | dt]
        let xbc = state.update_conv(|window| {
            let spec = ConvSpec { consecutive: step.consecutive, ..self.conv };
            let (x, weight, bias) = (projected.clone(), self.conv_weight.clone(), self.conv_bias.clone());
            ops::causal_conv(x, weight, bias, positions.clone(), slots.clone(), window, spec)
        }); // [m, channels]
        let y = state.update_matrix(|h| {
            let spec = MambaSpec { consecutive: step.consecutive, ..self.scan };
            let parameters = self.head_parameters.clone();
            ops::mamba_scan(
                xbc,
                projected.clone(),
                parameters,
                positions.clone(),
                slots.clone(),
                h,
                spec,
                self.precision,
            )
        }); // [m, inner_size]
        let gated = ops::gated_rms_norm(y, projected, self.norm.clone(), self.norm_eps, self.gate);
        self.out_proj.forward_add(gated, residual)
    }
}
