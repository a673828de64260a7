//! Rotary position embeddings (Su et al., 2021) and their long-context scalings.

use std::f64::consts::PI;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde_json::Value;

use crate::config::Config;
use crate::{Error, Result};

/// How the frequencies of a rotary embedding are made.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Their scaling.
    pub scaling: RopeScaling,
}

/// A scaling of the frequencies for contexts longer than those of pre-training.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum RopeScaling {
    /// `theta^(-2i/d)` as it is.
    Default,
    /// All frequencies divided by `factor`.
    Linear { factor: f64 },
    /// Long wavelengths divided by `factor`, short ones kept (Llama 3.1).
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_context: f64 },
    /// Frequencies interpolated by their rotations within the original context (Peng et al., 2023).
    Yarn { factor: f64, beta_fast: f64, beta_slow: f64, original_context: f64, attention_factor: f64 },
    /// The first `rotated` of a head turn at the frequencies of the whole head, the rest not at all
    /// (Gemma 4).
    Proportional { rotated: f64, factor: f64 },
    /// Frequency `i` divided by entry `i` of a stored tensor (`rope_freqs.weight` of a GGUF).
    Factors,
}

impl RopeConfig {
    /// Reads `rope_parameters`, or `rope_theta` and `rope_scaling` of older files.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown `rope_type` or a value out of range.
    pub fn from_config(config: &Config<'_>) -> Result<Self> {
        let empty = Value::Null;
        let parameters = ["rope_parameters", "rope_scaling"]
            .iter()
            .filter_map(|key| config.value(key))
            .find(|v| v.is_object())
            .unwrap_or(&empty);
        Self::from_parameters(&Config::new(parameters), config)
    }

    /// Reads one set of `rope_parameters`; what it lacks is read from `config`.
    ///
    /// # Errors
    /// As [`Self::from_config`].
    pub fn from_parameters(parameters: &Config<'_>, config: &Config<'_>) -> Result<Self> {
        let theta = match parameters.positive_or("rope_theta", f64::NAN)? {
            theta if theta.is_nan() => config.positive_or("rope_theta", 10_000.0)?,
            theta => theta,
        };
        let kind = match parameters.str("rope_type") {
            None => parameters.str("type").unwrap_or("default"),
            Some(kind) => kind,
        };
        let original = |fallback: Option<f64>| -> Result<f64> {
            match (parameters.value("original_max_position_embeddings"), fallback) {
                (None, Some(fallback)) => Ok(fallback),
                _ => parameters.positive("original_max_position_embeddings"),
            }
        };
        let scaling = match kind {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: parameters.positive("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: parameters.positive("factor")?,
                low_freq_factor: parameters.positive("low_freq_factor")?,
                high_freq_factor: parameters.positive("high_freq_factor")?,
                original_context: original(None)?,
            },
            "yarn" => {
                let factor = parameters.positive("factor")?;
                RopeScaling::Yarn {
                    factor,
                    beta_fast: parameters.positive_or("beta_fast", 32.0)?,
                    beta_slow: parameters.positive_or("beta_slow", 1.0)?,
                    original_context: original(Some(config.positive("max_position_embeddings")?))?,
                    attention_factor: parameters.positive_or("attention_factor", 0.1 * factor.ln() + 1.0)?,
                }
            }
            "proportional" => RopeScaling::Proportional {
                rotated: parameters.positive_or("partial_rotary_factor", 1.0)?,
                factor: parameters.positive_or("factor", 1.0)?,
            },
            "factors" => RopeScaling::Factors,
            other => {
                let problem = format!("is `{other}`; known: default, linear, llama3, yarn, proportional");
                return Err(Error::Config { key: "rope_type".into(), problem });
            }
        };
        Ok(Self { theta, scaling })
    }

    /// The frequencies of a head, `head_dim / 2` of them, in radians per position.
    ///
    /// `factors` are the entries of the stored tensor for [`RopeScaling::Factors`].
    pub fn frequencies(&self, head_dim: usize, factors: Option<&[f32]>) -> Vec<f32> {
        let d = head_dim as f64;
        (0..head_dim / 2)
            .map(|i| {
                let base = self.theta.powf(-2.0 * i as f64 / d);
                let scaled = match &self.scaling {
                    RopeScaling::Default => base,
                    RopeScaling::Linear { factor } => base / factor,
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                        let wavelength = 2.0 * PI / base;
                        if wavelength < original_context / high_freq_factor {
                            base
                        } else if wavelength > original_context / low_freq_factor {
                            base / factor
                        } else {
                            let s = (original_context / wavelength - low_freq_factor)
                                / (high_freq_factor - low_freq_factor);
                            base * ((1.0 - s) / factor + s)
                        }
                    }
                    RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, .. } => {
                        let turn =
                            |beta: f64| d * (original_context / (2.0 * PI * beta)).ln() / (2.0 * self.theta.ln());
                        let low = turn(*beta_fast).floor().max(0.0);
                        let high = turn(*beta_slow).ceil().min(d - 1.0);
                        let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                        base * (ramp / factor + 1.0 - ramp)
                    }
                    RopeScaling::Proportional { rotated, factor } => {
                        if i < (rotated * d / 2.0) as usize {
                            base / factor
                        } else {
                            0.0
                        }
                    }
                    RopeScaling::Factors => base / factors.and_then(|f| f.get(i)).map_or(1.0, |&f| f64::from(f)),
                };
                scaled as f32
            })
            .collect()
    }

    /// Factor on cosines and sines.
    pub fn attention_factor(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        }
    }
}

/// The cosines and sines of every position of a context, on the device.
///
/// Tables, because the sine of a large angle is not accurate on every GPU.
#[derive(Clone, Debug)]
pub struct Rope {
    /// `[context, head_dim]`: `head_dim / 2` cosines, then as many sines.
    pub(crate) table: Tensor<2>,
}

impl Rope {
    /// Computes the table for positions `0..context`.
    pub fn new(config: &RopeConfig, head_dim: usize, factors: Option<&[f32]>, context: usize, device: &Device) -> Self {
        let frequencies = config.frequencies(head_dim, factors);
        let scale = config.attention_factor();
        let mut table = Vec::with_capacity(context * head_dim);
        for position in 0..context {
            // The reference multiplies in float32.
            let angles = frequencies.iter().map(|f| f64::from(position as f32 * f));
            table.extend(angles.clone().map(|a| a.cos() as f32 * scale));
            table.extend(angles.map(|a| a.sin() as f32 * scale));
        }
        // One axis, then a view: two axes may be allocated with padded rows.
        let table = Tensor::<1>::from_data(TensorData::new(table, [context * head_dim]), (device, DType::F32));
        Self { table: table.reshape([context, head_dim]) }
    }

    /// The table, `[context, head_dim]` float32.
    pub fn table(&self) -> &Tensor<2> {
        &self.table
    }
}
