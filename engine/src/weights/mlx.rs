//! MLX's affine quantization at one bit, which the Bonsai models use: a matrix `X` is stored as
//! `X.weight` (bits in 32-bit words), `X.scales` and `X.biases` (a number for each 128 inputs).
//!
//! Bit `c % 32` of word `c / 32` is column `c`, and `w = scale * bit + bias`. The models' weights are
//! `±d`: `scale = 2d`, `bias = -d`. That is [`Format::Q1_0`], whose blocks are made here when a
//! tensor is read, so that the weights stay packed.

use half::{bf16, f16};
use serde_json::Value;

use super::Format;
use super::tensor_info::{StoredType, TensorInfo};

/// Inputs of a scale: the length of a block of [`Format::Q1_0`].
const GROUP: u64 = 128;

/// The bytes of a matrix's three tensors.
pub(super) struct Triple<'a> {
    pub(super) words: &'a [u8],
    pub(super) scales: &'a [u8],
    pub(super) biases: &'a [u8],
    /// The format of scales and biases.
    pub(super) format: Format,
}

/// Whether `config` says that its matrices are stored in this form.
pub(super) fn is_one_bit(config: &Value) -> bool {
    config.get("quantization").is_some_and(|settings| unread_setting(settings).is_none())
}

/// Why the matrices of an MLX checkpoint can't be read: its settings, where they are others than
/// those above.
pub(super) fn unread(config: &Value) -> Option<String> {
    let (key, value) = unread_setting(config.get("quantization")?)?;
    Some(format!("with `quantization.{key}` {value} in config.json (MLX; `bits` 1, `group_size` 128 is read)"))
}

/// The first setting that is not as above, and its value.
fn unread_setting(settings: &Value) -> Option<(String, Value)> {
    let differs = |key: &str, known: Value| {
        let found = settings.get(key).cloned().unwrap_or(Value::Null);
        (found != known).then(|| (key.to_owned(), found))
    };
    let mode = || differs("mode", "affine".into()).filter(|(_, found)| !found.is_null());
    // Settings for single layers; `false` leaves a layer as it was.
    let layers = || settings.as_object()?.iter().find(|(_, value)| value.is_object());
    differs("bits", 1.into())
        .or_else(|| differs("group_size", GROUP.into()))
        .or_else(mode)
        .or_else(|| layers().map(|(key, value)| (key.clone(), value.clone())))
}

/// The matrix as it is handed out, where the three headers belong together.
pub(super) fn packed(words: &TensorInfo, scales: &TensorInfo, biases: &TensorInfo) -> Option<TensorInfo> {
    let [rows, row_words] = words.shape[..] else { return None };
    let columns = row_words.checked_mul(32)?;
    let groups = [rows, columns / GROUP];
    let known = matches!(scales.dtype, StoredType::Known(Format::F16 | Format::BF16 | Format::F32));
    let fits = words.dtype == StoredType::Other("U32")
        && columns.is_multiple_of(GROUP)
        && known
        && scales.dtype == biases.dtype
        && scales.shape == groups
        && biases.shape == groups;
    let block = Format::Q1_0.block_bytes() as u64;
    fits.then(|| TensorInfo {
        dtype: StoredType::Known(Format::Q1_0),
        shape: vec![rows, columns],
        // Fewer than the file's bytes, which fit: one number of two bytes for each group, not two.
        bytes: rows * groups[1] * block,
        ..words.clone()
    })
}

/// The blocks of [`Format::Q1_0`] of a matrix: `d`, then the bits as they are.
///
/// # Errors
/// When the weights of a group are not `±d`, or `d` is no finite half-precision number.
pub(super) fn to_blocks(triple: &Triple<'_>) -> Result<Vec<u8>, String> {
    let width = triple.format.block_bytes();
    let number = |bytes: &[u8]| match *bytes {
        [a, b] if triple.format == Format::F16 => f16::from_le_bytes([a, b]).to_f32(),
        [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        _ => f32::NAN,
    };
    let groups = triple.scales.chunks_exact(width).zip(triple.biases.chunks_exact(width));
    let mut blocks = Vec::with_capacity(triple.words.len() / 16 * Format::Q1_0.block_bytes());
    for (group, (bits, (scale, bias))) in triple.words.chunks_exact(16).zip(groups).enumerate() {
        let (scale, bias) = (number(scale), number(bias));
        let d = f16::from_f32(-bias);
        if scale != -2.0 * bias || !d.is_finite() {
            return Err(format!(
                "group {group} has scale {scale} and bias {bias}; 2d and -d of a half-precision d are read"
            ));
        }
        blocks.extend(d.to_le_bytes());
        // Words and bytes are both little-endian: bit `c % 8` of byte `c / 8`.
        blocks.extend(bits);
    }
    Ok(blocks)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_weights_of_the_triple() {
        let words: Vec<u8> = (0..32).map(|i: u8| i.wrapping_mul(37)).collect();
        for format in [Format::F16, Format::BF16, Format::F32] {
            let stored = |values: [f32; 2]| -> Vec<u8> {
                let bytes = |v: f32| match format {
                    Format::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
                    Format::BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
                    _ => v.to_le_bytes().to_vec(),
                };
                values.into_iter().flat_map(bytes).collect()
            };
            let (scales, biases) = (stored([0.5, 3.0]), stored([-0.25, -1.5]));
            let triple = Triple { words: &words, scales: &scales, biases: &biases, format };
            let mut weights = vec![0.0; 256];
            Format::Q1_0.dequantize(&to_blocks(&triple).unwrap(), &mut weights);
            for (c, weight) in weights.iter().enumerate() {
                let bit = words[c / 8] >> (c % 8) & 1;
                let (scale, bias) = if c < 128 { (0.5, -0.25) } else { (3.0, -1.5) };
                assert_eq!(*weight, scale * f32::from(bit) + bias);
            }
            let biases = stored([-0.25, -1.0]);
            let error = to_blocks(&Triple { biases: &biases, ..triple }).unwrap_err();
            assert!(error.contains("group 1") && error.contains('3'), "{error}");
        }
    }

    #[test]
    fn other_settings_are_named() {
        let config =
            |settings: &str| serde_json::from_str::<Value>(&format!("{{\"quantization\": {settings}}}")).unwrap();
        assert!(is_one_bit(&config(r#"{"bits": 1, "group_size": 128, "mode": "affine", "lm_head": false}"#)));
        assert!(is_one_bit(&config(r#"{"bits": 1, "group_size": 128}"#)));
        assert!(!is_one_bit(&Value::Null) && unread(&Value::Null).is_none());
        for (settings, text) in [
            (r#"{"bits": 4, "group_size": 128}"#, "`quantization.bits` 4"),
            (r#"{"bits": 1, "group_size": 64}"#, "`quantization.group_size` 64"),
            (r#"{"bits": 1, "group_size": 128, "mode": "mxfp4"}"#, "`quantization.mode` \"mxfp4\""),
            (r#"{"bits": 1, "group_size": 128, "lm_head": {"bits": 4}}"#, "`quantization.lm_head`"),
            ("{}", "`quantization.bits` null"),
        ] {
            assert!(!is_one_bit(&config(settings)));
            let problem = unread(&config(settings)).unwrap();
            assert!(problem.contains(text), "{problem}");
        }
    }
}
