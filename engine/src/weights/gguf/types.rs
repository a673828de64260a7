//! ggml's type numbers beyond those the engine computes with, and its file types.

use crate::weights::Format;
use crate::weights::tensor_info::StoredType;

/// Types that ggml defines and the engine does not compute with: number, name, elements and bytes
/// per block. A file may hold them; only asking for such a tensor fails.
const OTHERS: [(u32, &str, u64, u64); 15] = [
    (9, "Q8_1", 32, 36),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (40, "NVFP4", 64, 36),
];

/// The type with ggml's number `id` and its elements and bytes per block.
pub(super) fn stored_type(id: u32) -> Option<(StoredType, (u64, u64))> {
    if let Some(format) = Format::from_ggml_type(id) {
        return Some((StoredType::Known(format), (format.block_len() as u64, format.block_bytes() as u64)));
    }
    let (_, name, len, bytes) = OTHERS.into_iter().find(|(other, ..)| *other == id)?;
    Some((StoredType::Other(name), (len, bytes)))
}

/// The name of `general.file_type` number `id` (`enum llama_ftype`) where it says more than the
/// main tensor type does: the k-quant mixes.
pub(crate) fn file_type_name(id: u64) -> Option<&'static str> {
    Some(match id {
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        21 => "Q2_K_S",
        _ => return None,
    })
}
