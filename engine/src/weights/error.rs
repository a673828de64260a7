//! What can be wrong with a checkpoint: one variant per defect.

use std::path::PathBuf;

/// A defect of a weight file, a shard index or a `config.json`.
///
/// Every variant names the file and, where there is one, the tensor or key; `expected` is the
/// reader's bound and `found` what the file holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum WeightError {
    /// The operating system refused to open, read or map the file.
    #[error("{file}: {source}", file = file.display())]
    Io { file: PathBuf, source: std::io::Error },
    /// The file's length changed after it was opened.
    #[error("{file}: changed while in use: {expected} bytes when opened, {found} now", file = file.display())]
    Changed { file: PathBuf, expected: u64, found: u64 },
    /// Neither a checkpoint folder nor a `.gguf` file.
    #[error("{path}: no checkpoint: {problem}", path = path.display())]
    NotACheckpoint { path: PathBuf, problem: String },
    /// A JSON file beside the weights does not parse or is not an object.
    #[error("{file}: {message}", file = file.display())]
    Json { file: PathBuf, message: String },
    /// A JSON file beside the weights is unreasonably large.
    #[error("{file}: {found} bytes; at most {limit} are read", file = file.display())]
    JsonTooLarge { file: PathBuf, found: u64, limit: u64 },
    /// The shard index names something other than a plain file of its folder.
    #[error("{file}: tensor `{tensor}`: shard name {shard:?} is not a plain file name", file = file.display())]
    ShardName { file: PathBuf, tensor: String, shard: String },
    /// The shard index names a tensor that its shard does not hold.
    #[error("{file}: tensor `{tensor}` is not in shard `{shard}`", file = file.display())]
    ShardLacksTensor { file: PathBuf, tensor: String, shard: String },
    /// Two shards hold the same tensor.
    #[error("tensor `{tensor}` is in both `{first}` and `{second}`")]
    TensorInTwoShards { tensor: String, first: String, second: String },
    /// A split GGUF's parts disagree with its `split.*` keys or file names.
    #[error("{file}: split: {problem}", file = file.display())]
    Split { file: PathBuf, problem: String },

    /// The file ends before its header does.
    #[error("{file}: {what} needs {expected} bytes at offset {offset}; {found} are left", file = file.display())]
    Truncated { file: PathBuf, what: String, offset: u64, expected: u64, found: u64 },
    /// The first four bytes are not `GGUF`.
    #[error("{file}: starts with {found:02x?}; a GGUF file starts with \"GGUF\"", file = file.display())]
    Magic { file: PathBuf, found: [u8; 4] },
    /// A GGUF file written for big-endian machines.
    #[error("{file}: big-endian GGUF (version field {found:#010x}); only little-endian is read", file = file.display())]
    BigEndian { file: PathBuf, found: u32 },
    /// A GGUF version other than 2 or 3.
    #[error("{file}: GGUF version {found}; 2 and 3 are read", file = file.display())]
    Version { file: PathBuf, found: u32 },
    /// A count in the GGUF header that the rest of the file cannot hold, or above the reader's cap.
    #[error("{file}: {what} count {found}; at most {limit} fit", file = file.display())]
    Count { file: PathBuf, what: &'static str, found: u64, limit: u64 },
    /// A string longer than the reader's cap.
    #[error("{file}: {what} holds {found} bytes; at most {limit}", file = file.display())]
    StringTooLong { file: PathBuf, what: String, found: u64, limit: u64 },
    /// A string that is not UTF-8.
    #[error("{file}: {what} is not UTF-8 (byte {at})", file = file.display())]
    NotUtf8 { file: PathBuf, what: String, at: usize },
    /// An empty key or tensor name.
    #[error("{file}: {what} {index} has an empty name", file = file.display())]
    EmptyName { file: PathBuf, what: &'static str, index: u64 },
    /// A metadata key that occurs twice.
    #[error("{file}: key `{key}` occurs twice", file = file.display())]
    DuplicateKey { file: PathBuf, key: String },
    /// A metadata value type that GGUF does not define.
    #[error("{file}: key `{key}`: value type {found}; 0 to 12 exist", file = file.display())]
    ValueType { file: PathBuf, key: String, found: u32 },
    /// A boolean that is neither 0 nor 1.
    #[error("{file}: key `{key}`: boolean byte {found}; 0 and 1 exist", file = file.display())]
    Boolean { file: PathBuf, key: String, found: u8 },
    /// Arrays of arrays beyond the reader's depth.
    #[error("{file}: key `{key}`: arrays nested {found} deep; at most {limit}", file = file.display())]
    Nesting { file: PathBuf, key: String, found: usize, limit: usize },
    /// An array longer than the rest of the file or the reader's cap.
    #[error("{file}: key `{key}`: array of {found} elements; at most {limit} fit", file = file.display())]
    ArrayLength { file: PathBuf, key: String, found: u64, limit: u64 },
    /// `general.alignment` is no usable power of two.
    #[error("{file}: key `general.alignment` is {found}; a power of two from 1 to {limit} is needed", file = file.display())]
    Alignment { file: PathBuf, found: u64, limit: u64 },
    /// A metadata key the reader needs is absent.
    #[error("{file}: key `{key}` is missing", file = file.display())]
    MissingKey { file: PathBuf, key: String },
    /// A metadata value of another type or range than its reader needs.
    #[error("{file}: key `{key}` is {found}; expected {expected}", file = file.display())]
    KeyType { file: PathBuf, key: String, expected: &'static str, found: String },

    /// The safetensors header length exceeds the format's limit.
    #[error("{file}: header of {found} bytes; at most {limit}", file = file.display())]
    HeaderTooLarge { file: PathBuf, found: u64, limit: u64 },
    /// The safetensors header does not begin with `{`.
    #[error("{file}: the header starts with byte {found:#04x}; `{{` is needed", file = file.display())]
    HeaderStart { file: PathBuf, found: u8 },
    /// The safetensors header is not UTF-8.
    #[error("{file}: the header is not UTF-8 (byte {at})", file = file.display())]
    HeaderNotUtf8 { file: PathBuf, at: usize },
    /// The safetensors header is not the JSON that the format prescribes.
    #[error("{file}: header: {message}", file = file.display())]
    HeaderJson { file: PathBuf, message: String },
    /// A tensor's header entry lacks a field.
    #[error("{file}: tensor `{tensor}` lacks `{field}`", file = file.display())]
    MissingField { file: PathBuf, tensor: String, field: &'static str },
    /// `data_offsets` that end before they begin.
    #[error("{file}: tensor `{tensor}`: data_offsets [{begin}, {end}] run backwards", file = file.display())]
    OffsetsReversed { file: PathBuf, tensor: String, begin: u64, end: u64 },
    /// Bytes of the data section that belong to no tensor.
    #[error("{file}: bytes {begin} to {end} of the data belong to no tensor", file = file.display())]
    Hole { file: PathBuf, begin: u64, end: u64 },

    /// A `pytorch_model.bin` that is no zip archive.
    #[error("{file}: starts with {found:02x?}; a file of torch.save is a zip archive (\"PK\")", file = file.display())]
    NotZip { file: PathBuf, found: Vec<u8> },
    /// A file of torch before 1.6, which is a pickle without an archive around it.
    #[error(
        "{file}: written in the form of torch before 1.6, which is not read; convert it with \
         `torch.save(torch.load(file, weights_only=True), file)`",
        file = file.display()
    )]
    LegacyTorch { file: PathBuf },
    /// The archive around a torch file is damaged.
    #[error("{file}: {problem}", file = file.display())]
    Zip { file: PathBuf, problem: String },
    /// An entry of the archive is damaged or stored in a way that torch does not write.
    #[error("{file}: archive entry `{entry}` {problem}", file = file.display())]
    ZipEntry { file: PathBuf, entry: String, problem: String },
    /// A pickle names a class or function that a file of tensors does not need.
    #[error(
        "{file}: the pickle names `{global}` (byte {offset}), which is not among the names that describe tensors; \
         nothing of it was executed",
        file = file.display()
    )]
    PickleGlobal { file: PathBuf, offset: u64, global: String },
    /// A pickle operation that a file of tensors does not need.
    #[error("{file}: pickle operation {found:#04x} at byte {offset} is not read", file = file.display())]
    PickleOpcode { file: PathBuf, offset: u64, found: u8 },
    /// A pickle that does not build a dict of tensors.
    #[error("{file}: pickle, byte {offset}: {problem}", file = file.display())]
    Pickle { file: PathBuf, offset: u64, problem: String },
    /// A tensor of a torch file that does not fit its storage.
    #[error("{file}: tensor `{tensor}`: {problem}", file = file.display())]
    TorchTensor { file: PathBuf, tensor: String, problem: String },
    /// A quantized tensor whose values are not of the form that is read.
    #[error("{file}: tensor `{tensor}`: {problem}", file = file.display())]
    Quantization { file: PathBuf, tensor: String, problem: String },

    /// A tensor name that occurs twice.
    #[error("{file}: tensor `{tensor}` occurs twice", file = file.display())]
    DuplicateTensor { file: PathBuf, tensor: String },
    /// Too many or no dimensions.
    #[error("{file}: tensor `{tensor}` has {found} dimensions; {expected}", file = file.display())]
    Dimensions { file: PathBuf, tensor: String, found: u64, expected: &'static str },
    /// A dimension of zero.
    #[error("{file}: tensor `{tensor}`: dimension {axis} is 0", file = file.display())]
    ZeroDimension { file: PathBuf, tensor: String, axis: usize },
    /// A shape whose element or byte count does not fit 64 bits.
    #[error("{file}: tensor `{tensor}`: the size of shape {shape:?} overflows", file = file.display())]
    ShapeOverflow { file: PathBuf, tensor: String, shape: Vec<u64> },
    /// A type number or name that the format does not define.
    #[error("{file}: tensor `{tensor}`: unknown type {found}", file = file.display())]
    UnknownType { file: PathBuf, tensor: String, found: String },
    /// A defined type that this engine cannot compute with.
    #[error("{file}: tensor `{tensor}` is stored as {found}, which is not supported", file = file.display())]
    UnsupportedType { file: PathBuf, tensor: String, found: String },
    /// A row that does not fill whole blocks.
    #[error("{file}: tensor `{tensor}`: rows of {found} elements; {format} needs a multiple of {block}", file = file.display())]
    PartialBlock { file: PathBuf, tensor: String, format: String, block: u64, found: u64 },
    /// A shape and type that do not need the bytes that the header gives them.
    #[error("{file}: tensor `{tensor}`: {found} bytes are given; its shape and type need {expected}", file = file.display())]
    SizeMismatch { file: PathBuf, tensor: String, expected: u64, found: u64 },
    /// A data offset that is not a multiple of the alignment.
    #[error("{file}: tensor `{tensor}`: offset {found} is not a multiple of {alignment}", file = file.display())]
    Misaligned { file: PathBuf, tensor: String, found: u64, alignment: u64 },
    /// A tensor that ends beyond the file.
    #[error("{file}: tensor `{tensor}`: {size} bytes at data offset {offset}; the data holds {found}", file = file.display())]
    OutOfBounds { file: PathBuf, tensor: String, offset: u64, size: u64, found: u64 },
    /// Two tensors that share bytes.
    #[error("{file}: tensors `{first}` and `{second}` overlap", file = file.display())]
    Overlap { file: PathBuf, first: String, second: String },
    /// Two tensor names of a GGUF that stand for the same Hugging Face name.
    #[error("{file}: two tensors map to `{name}`", file = file.display())]
    NameCollision { file: PathBuf, name: String },

    /// The tensor that the model needs is absent.
    #[error("{path}: tensor `{tensor}` is missing", path = path.display())]
    MissingTensor { path: PathBuf, tensor: String },
}
