//! The names that a pickle of tensors may use: this list is all that a file can ask for.

use crate::weights::Format;
use crate::weights::tensor_info::StoredType;

/// Something that a pickle names by module and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`: a view of a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: a tensor that was trained.
    RebuildParameter,
    /// A storage class, e.g. `torch.FloatStorage`.
    Storage(ElementType),
}

/// The element type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ElementType {
    pub(super) dtype: StoredType,
    /// Bytes of an element.
    pub(super) bytes: u64,
}

const fn storage(dtype: StoredType, bytes: u64) -> Global {
    Global::Storage(ElementType { dtype, bytes })
}

const GLOBALS: [(&str, &str, Global); 13] = [
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "FloatStorage", storage(StoredType::Known(Format::F32), 4)),
    ("torch", "HalfStorage", storage(StoredType::Known(Format::F16), 2)),
    ("torch", "BFloat16Storage", storage(StoredType::Known(Format::BF16), 2)),
    ("torch", "DoubleStorage", storage(StoredType::Other("F64"), 8)),
    ("torch", "LongStorage", storage(StoredType::Other("I64"), 8)),
    ("torch", "IntStorage", storage(StoredType::Other("I32"), 4)),
    ("torch", "ShortStorage", storage(StoredType::Other("I16"), 2)),
    ("torch", "CharStorage", storage(StoredType::Other("I8"), 1)),
    ("torch", "ByteStorage", storage(StoredType::Other("U8"), 1)),
    ("torch", "BoolStorage", storage(StoredType::Other("BOOL"), 1)),
];

impl Global {
    /// The global of this name, where the list has it.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        GLOBALS.iter().find(|(m, n, _)| *m == module && *n == name).map(|(.., global)| *global)
    }
}
