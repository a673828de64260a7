//! The number types that a model computes and remembers in, as users name them.

use std::fmt;
use std::str::FromStr;

pub use atelico_kernels::ops::Precision;
use burn::tensor::DType;

use crate::{Error, Result};

/// The name that users give a precision, as [`parse_precision`] reads it.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::BF16 => "bf16",
        Precision::F16 => "f16",
        Precision::Int8 => "int8",
    }
}

/// Every precision.
const PRECISIONS: [Precision; 4] = [Precision::F32, Precision::BF16, Precision::F16, Precision::Int8];

/// The precision that `f32`, `bf16`, `f16` or `int8` names.
///
/// # Errors
/// [`Error::Parameter`] for any other text.
pub fn parse_precision(text: &str) -> Result<Precision> {
    named("precision", text, PRECISIONS, precision_name)
}

/// Element type of the key-value caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    BF16,
    /// Integers of eight bits with a scale per 32 elements.
    Q8,
}

impl CacheType {
    /// Every type.
    const ALL: [Self; 4] = [Self::F32, Self::F16, Self::BF16, Self::Q8];

    /// The name that users give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8 => "q8_0",
        }
    }

    /// The tensors' element type; the codes of [`Self::Q8`] lie in float32 words.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Q8 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CacheType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        named("kv_cache", text, Self::ALL, Self::name)
    }
}

/// The value whose name is `text`.
fn named<T: Copy, const N: usize>(
    parameter: &'static str,
    text: &str,
    values: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T> {
    values.into_iter().find(|&value| name(value).eq_ignore_ascii_case(text)).ok_or_else(|| {
        let problem = format!("is `{text}`; known: {}", values.map(name).join(", "));
        Error::Parameter { name: parameter, problem }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for precision in PRECISIONS {
            assert_eq!(parse_precision(precision_name(precision)).unwrap(), precision);
        }
        for cache in CacheType::ALL {
            assert_eq!(cache.to_string().to_uppercase().parse::<CacheType>().unwrap(), cache);
        }
        let error = parse_precision("f8").unwrap_err().to_string();
        assert_eq!(error, "`precision` is `f8`; known: f32, bf16, f16, int8");
        let error = "q4_0".parse::<CacheType>().unwrap_err().to_string();
        assert_eq!(error, "`kv_cache` is `q4_0`; known: f32, f16, bf16, q8_0");
    }
}
