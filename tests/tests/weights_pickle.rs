//! Files of `torch.save`: what a real one holds, and that a hostile one is refused with its own error
//! and without doing what it asks for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atelico_engine::weights::{Checkpoint, Format, StoredType, WeightError, torch};
use serde_json::json;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/torch/tiny.bin")
}

/// A folder with an empty config and these torch files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
    folder
}

fn values(checkpoint: &Checkpoint, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = checkpoint.tensor(name).unwrap();
    let mut values = vec![f32::NAN; tensor.shape.iter().product()];
    tensor.format.dequantize(&tensor.bytes, &mut values);
    checkpoint.release(&tensor);
    (tensor.shape, values)
}

/// `n` numbers from 0, `step` apart.
fn range(n: usize, step: f32) -> Vec<f32> {
    (0..n).map(|i| i as f32 * step).collect()
}

// A file as torch writes it ----------------------------------------------------------------------

#[test]
fn a_file_of_torch_reads_as_it_was_saved() {
    let folder = folder(&[("pytorch_model.bin", &fs::read(tiny()).unwrap())]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let transposed = |x: &[f32], rows: usize| {
        let columns = x.len() / rows;
        (0..columns).flat_map(|c| (0..rows).map(move |r| x[r * columns + c])).collect::<Vec<_>>()
    };
    for (name, shape, expected) in [
        ("embed.weight", &[6, 4][..], range(24, 1.0)),
        ("head.weight", &[6, 4], range(24, 1.0)),
        ("norm.weight", &[3], vec![1.0; 3]),
        ("transposed", &[6, 4], transposed(&range(24, 1.0), 4)),
        ("slice", &[3, 2], vec![9.0, 10.0, 13.0, 14.0, 17.0, 18.0]),
        ("tail", &[4], vec![20.0, 21.0, 22.0, 23.0]),
        ("half", &[5], range(5, 0.25)),
        ("bfloat", &[3, 2], transposed(&range(6, 0.125), 2)),
        ("scalar", &[], vec![2.5]),
        ("empty", &[0, 4], vec![]),
        ("parameter", &[2, 2], vec![-1.5; 4]),
    ] {
        assert_eq!(values(&checkpoint, name), (shape.to_vec(), expected), "{name}");
    }
    let formats = ["half", "bfloat", "tail"].map(|name| checkpoint.tensor(name).unwrap().format);
    assert_eq!(formats, [Format::F16, Format::BF16, Format::F32]);
    // Listed, but nothing to compute with.
    for (name, found) in [("norm.num_batches_tracked", "I64"), ("double", "F64")] {
        let listed = checkpoint.summaries().find(|tensor| tensor.name == name).unwrap();
        assert_eq!(listed.dtype, StoredType::Other(found));
        let error = checkpoint.tensor(name).unwrap_err();
        assert!(matches!(error, WeightError::UnsupportedType { .. }) && error.to_string().contains(name), "{error}");
    }
    assert_eq!(checkpoint.names().count(), 16);
}

#[test]
fn tied_weights_share_their_bytes() {
    let bytes = fs::read(tiny()).unwrap();
    let tensors = torch::parse(&tiny(), &bytes).unwrap();
    let find = |name: &str| tensors.iter().find(|tensor| tensor.info.name == name).unwrap();
    assert_eq!(find("embed.weight").info.begin, find("head.weight").info.begin);
    assert_eq!(find("slice").strides.as_deref(), Some(&[4, 1][..]));
    assert_eq!((find("tail").strides.as_ref(), find("embed.weight").strides.as_ref()), (None, None));
}

#[test]
fn shards_of_torch_files_read_through_their_index() {
    let shard = |name: &str, value: u8| Torch::new(&[Tensor::bytes(name, &[2])]).storage(&[value; 2]).build();
    let index =
        json!({"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}});
    let folder = folder(&[
        ("pytorch_model-00001-of-00002.bin", &shard("a", 1)),
        ("pytorch_model-00002-of-00002.bin", &shard("b", 2)),
        ("pytorch_model.bin.index.json", index.to_string().as_bytes()),
    ]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.names().eq(["a", "b"]));
    // A single file counts before shards, and safetensors before torch.
    fs::write(folder.path().join("pytorch_model.bin"), shard("whole", 3)).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap().names().eq(["whole"]));
    fs::write(folder.path().join("model.safetensors"), [&2u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().names().count(), 0);
}

// Files written byte by byte ---------------------------------------------------------------------

/// A tensor over storage `0`, of unsigned bytes unless another class is named.
#[derive(Clone)]
struct Tensor {
    name: String,
    class: &'static str,
    key: &'static str,
    length: i64,
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Tensor {
    fn bytes(name: &str, shape: &[i64]) -> Self {
        let mut strides = vec![1; shape.len()];
        (1..shape.len()).rev().for_each(|axis| strides[axis - 1] = strides[axis] * shape[axis]);
        let length = shape.iter().product();
        Self {
            name: name.into(),
            class: "torch\nByteStorage",
            key: "0",
            length,
            offset: 0,
            shape: shape.to_vec(),
            strides,
        }
    }

    fn pickle(&self) -> Vec<u8> {
        let storage =
            [mark(), text("storage"), global(self.class), text(self.key), text("cpu"), int(self.length)].concat();
        let view = [tuple(&self.shape), tuple(&self.strides)].concat();
        let rest = [vec![0x89], global("collections\nOrderedDict"), b")R".to_vec()].concat();
        let parts = [text(&self.name), global("torch._utils\n_rebuild_tensor_v2"), mark(), storage, b"tQ".to_vec()];
        [parts.concat(), int(self.offset), view, rest, b"tR".to_vec()].concat()
    }
}

fn mark() -> Vec<u8> {
    b"(".to_vec()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(value: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &value.to_le_bytes()].concat()
}

fn global(name: &str) -> Vec<u8> {
    [b"c", name.as_bytes(), b"\n"].concat()
}

fn tuple(values: &[i64]) -> Vec<u8> {
    [mark(), values.iter().flat_map(|&value| int(value)).collect(), b"t".to_vec()].concat()
}

/// A program: protocol 2, `body`, the end.
fn program(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

/// A torch file under construction.
struct Torch {
    entries: Vec<(String, Vec<u8>)>,
}

impl Torch {
    fn new(tensors: &[Tensor]) -> Self {
        let items: Vec<u8> = tensors.iter().flat_map(Tensor::pickle).collect();
        Self::of_pickle(&program(&[b"}(", &items[..], b"u"].concat()))
    }

    fn of_pickle(pickle: &[u8]) -> Self {
        Self { entries: vec![("model/data.pkl".into(), pickle.to_vec())] }
    }

    fn storage(self, bytes: &[u8]) -> Self {
        self.entry("model/data/0", bytes)
    }

    fn entry(mut self, name: &str, bytes: &[u8]) -> Self {
        self.entries.push((name.into(), bytes.to_vec()));
        self
    }

    fn build(&self) -> Vec<u8> {
        self.build_with(|_, _| {})
    }

    /// The archive; `damage` may change the directory's record of each entry.
    fn build_with(&self, damage: impl Fn(usize, &mut [u8])) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (index, (name, bytes)) in self.entries.iter().enumerate() {
            let (size, length) = ((bytes.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
            let mut record = [&b"PK\x01\x02"[..], &[0; 16], &size, &size, &length, &[0; 12]].concat();
            record.extend((file.len() as u32).to_le_bytes());
            damage(index, &mut record);
            directory.extend([&record[..], name.as_bytes()].concat());
            file.extend([b"PK\x03\x04", &[0; 14][..], &size, &size, &length, &[0; 2], name.as_bytes(), bytes].concat());
        }
        let count = (self.entries.len() as u16).to_le_bytes();
        let (size, begin) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
        [&file[..], &directory, b"PK\x05\x06", &[0; 4], &count, &count, &size, &begin, &[0; 2]].concat()
    }
}

/// Asserts that a file is refused with a variant and a message that names the file and `$text`.
macro_rules! refused {
    ($bytes:expr, $text:expr, $pattern:pat) => {{
        let error = torch::parse(Path::new("hostile.bin"), &$bytes[..]).expect_err("must be refused");
        let message = error.to_string();
        assert!(matches!(error, $pattern), "another variant: {error:?}");
        assert!(message.starts_with("hostile.bin: ") && message.contains($text), "{message}");
        assert!(message.len() < 1000, "{message}");
    }};
}

/// The same for a program.
macro_rules! pickle_refused {
    ($body:expr, $text:expr, $pattern:pat) => {
        refused!(Torch::of_pickle(&program(&$body[..])).storage(&[0; 4]).build(), $text, $pattern)
    };
}

#[test]
fn the_crafted_files_are_accepted_before_they_are_damaged() {
    let parse = |file: &Torch| torch::parse(Path::new("x"), &file.build()).unwrap();
    assert!(parse(&Torch::of_pickle(&program(b"}"))).is_empty());
    let two = [Tensor::bytes("a", &[2, 2]), Tensor { length: 4, offset: 3, ..Tensor::bytes("b", &[]) }];
    let tensors = parse(&Torch::new(&two).storage(&[1, 2, 3, 4]).entry("model/byteorder", b"little"));
    assert_eq!(tensors.iter().map(|tensor| &*tensor.info.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((tensors[0].info.bytes, tensors[1].info.bytes), (4, 1));
    assert_eq!(tensors[1].info.begin, tensors[0].info.begin + 3);
    // A comment behind the archive.
    let mut file = Torch::new(&two).storage(&[1, 2, 3, 4]).build();
    let length = file.len();
    file[length - 2] = 5;
    file.extend(b"hello");
    assert_eq!(torch::parse(Path::new("x"), &file).unwrap().len(), 2);
}

#[test]
fn nothing_that_a_pickle_names_is_executed() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "apply"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch", "UntypedStorage"),
        ("collections", "OrderedDict.update"),
        ("collections.OrderedDict", ""),
        ("numpy.core.multiarray", "_reconstruct"),
        ("", ""),
    ] {
        let call = [global(&format!("{module}\n{name}")), mark(), text("touch /tmp/owned"), b"tR".to_vec()].concat();
        pickle_refused!(call, &format!("`{module}.{name}`"), WeightError::PickleGlobal { offset: 2, .. });
        // Named and never called is no better.
        pickle_refused!(
            [global(&format!("{module}\n{name}")), b"}".to_vec()].concat(),
            "",
            WeightError::PickleGlobal { .. }
        );
    }
    let long = "x".repeat(100_000);
    pickle_refused!(global(&format!("m\n{long}")), "xxx", WeightError::PickleGlobal { .. });
    pickle_refused!(global("m\u{1b}[2J\nn"), "\\u{1b}[2J", WeightError::PickleGlobal { .. });
    pickle_refused!(b"cos", "no end", WeightError::Pickle { .. });
    pickle_refused!(b"c\xff\nx\n", "UTF-8", WeightError::NotUtf8 { .. });
}

#[test]
fn every_other_operation_is_refused() {
    const READ: &[u8] = b".(NJKMGX)t]ae}suqrhjcQRb\x85\x86\x87\x88\x89\x8a";
    for operation in (0..=255).filter(|operation| !READ.contains(operation)) {
        pickle_refused!([operation], &format!("{operation:#04x}"), WeightError::PickleOpcode { offset: 2, .. });
    }
}

#[test]
fn calls_and_attributes() {
    let dict = global("collections\nOrderedDict");
    let rebuild = global("torch._utils\n_rebuild_tensor_v2");
    let parameter = global("torch._utils\n_rebuild_parameter");
    pickle_refused!([&dict[..], &tuple(&[1]), b"R"].concat(), "OrderedDict", WeightError::Pickle { .. });
    pickle_refused!([&dict[..], b"]R"].concat(), "tuple", WeightError::Pickle { .. });
    pickle_refused!(b"N)R", "None", WeightError::Pickle { .. });
    pickle_refused!([&text("os.system")[..], b")R"].concat(), "a string", WeightError::Pickle { .. });
    pickle_refused!([&global("torch\nFloatStorage")[..], b")R"].concat(), "Storage", WeightError::Pickle { .. });
    pickle_refused!([&rebuild[..], b")R"].concat(), "0 arguments", WeightError::Pickle { .. });
    pickle_refused!([&rebuild[..], &tuple(&[1; 6]), b"R"].concat(), "no storage", WeightError::Pickle { .. });
    pickle_refused!([&rebuild[..], &tuple(&[1; 9]), b"R"].concat(), "9 arguments", WeightError::Pickle { .. });
    pickle_refused!([&parameter[..], &tuple(&[1; 3]), b"R"].concat(), "3 arguments", WeightError::Pickle { .. });
    // Attributes of anything but a dict: `__setstate__` of a class would run code.
    pickle_refused!([&dict[..], b"}b"].concat(), "a class or function", WeightError::Pickle { .. });
    pickle_refused!(b"}Nb", "a dict", WeightError::Pickle { .. });
    pickle_refused!(b"NQ", "persistent id", WeightError::Pickle { .. });
    pickle_refused!([&tuple(&[1, 2, 3, 4, 5])[..], b"Q"].concat(), "no storage", WeightError::Pickle { .. });
}

#[test]
fn programs_that_go_wrong() {
    for (body, problem) in [
        (&b""[..], "nothing on the stack"),
        (b"a", "nothing on the stack"),
        (b"]a", "nothing on the stack"),
        (b"NNs", "nothing on the stack"),
        (b"R", "nothing on the stack"),
        (b"\x87", "nothing on the stack"),
        (b"}(Na", "no list"),
        (b"(a", "nothing on the stack"),
        (b"t", "no mark"),
        (b"u", "no mark"),
        (b"(N", "goes on"),
        (b"}}", "goes on"),
        (b"}.N", "goes on"),
        (b"NNa", "no list"),
        (b"NNNs", "no dict"),
        (b"}(Nu", "no value"),
        (b"h\0", "memo 0"),
        (b"j\xff\xff\xff\xff", "memo 4294967295"),
        (b"q\0", "nothing on the stack"),
        (b"N", "None"),
        (b"]", "a list"),
        (b"K\x01", "an integer"),
        (b"}NNs", "name is None"),
        (b"\x8a\x09123456789", "9 bytes"),
    ] {
        pickle_refused!(body, problem, WeightError::Pickle { .. });
    }
    let nested = [b"}".to_vec(), text("state_dict"), b"}s".to_vec()].concat();
    pickle_refused!(nested, "`state_dict` is a dict", WeightError::Pickle { .. });
    pickle_refused!([b"}".to_vec(), text("epoch"), b"K\x07s".to_vec()].concat(), "`epoch`", WeightError::Pickle { .. });
    pickle_refused!(b"X\xff\xff\xff\xffabc", "4294967295", WeightError::Truncated { .. });
    pickle_refused!(b"X\x01\0\0\0\xff", "UTF-8", WeightError::NotUtf8 { .. });
    for protocol in [&b"}."[..], b"\x80\x03}.", b"\x80\x04\x95\0\0\0\0\0\0\0\0}.", b"(dp0\n."] {
        refused!(Torch::of_pickle(protocol).build(), "protocol 2", WeightError::Pickle { .. });
    }
    refused!(Torch::of_pickle(b"\x80").build(), "the pickle", WeightError::Truncated { .. });
}

#[test]
fn bombs_end_soon() {
    let start = Instant::now();
    // A list in itself, a tuple of it, and a dict that is its own value.
    pickle_refused!(b"]q\0h\0a", "a list", WeightError::Pickle { .. });
    pickle_refused!(
        [b"}q\0".to_vec(), text("x"), b"h\0s".to_vec()].concat(),
        "`x` is a dict",
        WeightError::Pickle { .. }
    );
    // Each list holds the one before twice: 2^10000 elements, were they ever visited.
    let doubling: Vec<u8> = (0..10_000).flat_map(|_| *b"q\0](h\0h\0e").collect();
    pickle_refused!([b"N".to_vec(), doubling].concat(), "goes on", WeightError::Pickle { .. });
    // Nesting that recursion would not survive.
    let deep = [vec![b']'; 500_000], vec![b'a'; 499_999]].concat();
    pickle_refused!(deep, "a list", WeightError::Pickle { .. });
    pickle_refused!([vec![b'N'], vec![0x85; 1_000_000]].concat(), "a tuple", WeightError::Pickle { .. });
    // More of everything than a file of tensors needs.
    pickle_refused!(vec![b'N'; 2_000_000], "1048576", WeightError::Count { what: "pickle object", .. });
    pickle_refused!(vec![b'('; 2_000_000], "1048576", WeightError::Count { what: "pickle mark", .. });
    let again = b"h\0".repeat(2_000_000);
    pickle_refused!([&b"Nq\0"[..], &again].concat(), "1048576", WeightError::Count { what: "pickle stack entry", .. });
    let memo: Vec<u8> = (0..2_000_000u32).flat_map(|i| [&b"r"[..], &i.to_le_bytes()].concat()).collect();
    pickle_refused!([&b"N"[..], &memo].concat(), "1048576", WeightError::Count { what: "pickle memo", .. });
    pickle_refused!(vec![b'N'; 17 << 20], "16777216", WeightError::HeaderTooLarge { .. });
    // One tensor under more names than a file may hold.
    let tensor = Tensor::bytes("t", &[4]).pickle();
    let names = b"h\x02h\0".repeat(131_073);
    let flood = [&b"}("[..], &tensor, b"q\0", &text("n"), b"q\x02h\0", &names, b"u"].concat();
    pickle_refused!(flood, "131072", WeightError::Count { what: "tensor", .. });
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn tensors_that_do_not_fit_their_storage() {
    let four = || Tensor::bytes("w", &[4]);
    let file = |tensor: Tensor| Torch::new(&[tensor]).storage(&[0; 4]).build();
    for (tensor, text) in [
        (Tensor { offset: 1, ..four() }, "offset 1"),
        (Tensor { strides: vec![2], ..four() }, "strides [2]"),
        (Tensor { length: 5, ..four() }, "storage of 5 U8"),
        (Tensor { length: i64::MAX, ..four() }, "storage of 9223372036854775807"),
        (Tensor { class: "torch\nFloatStorage", ..four() }, "storage of 4 F32"),
        (Tensor { key: "1", ..four() }, "`data/1` is missing"),
        (Tensor { key: "../data.pkl", ..four() }, "is missing"),
        (Tensor { shape: vec![1 << 40], strides: vec![0], ..four() }, "strides [0]"),
        (Tensor { shape: vec![5], strides: vec![0], ..four() }, "strides [0]"),
        (Tensor { shape: vec![2, 2], strides: vec![i64::MAX, 1], ..four() }, "strides"),
        (Tensor { offset: i64::MAX, ..four() }, "offset 9223372036854775807"),
        (Tensor { shape: vec![0], offset: 5, ..four() }, "offset 5"),
    ] {
        refused!(file(tensor), text, WeightError::TorchTensor { .. });
    }
    let overflow = Tensor { shape: vec![i64::MAX, i64::MAX], strides: vec![0, 0], ..four() };
    refused!(file(overflow), "overflows", WeightError::ShapeOverflow { .. });
    for (tensor, text) in [
        (Tensor { shape: vec![-4], ..four() }, "shape is -4"),
        (Tensor { strides: vec![-1], ..four() }, "strides is -1"),
        (Tensor { offset: -1, ..four() }, "offset is -1"),
        (Tensor { length: -1, ..four() }, "no storage"),
        (Tensor { strides: vec![], ..four() }, "1 dimensions and 0 strides"),
        (Tensor { shape: vec![1; 9], strides: vec![1; 9], ..four() }, "9 entries"),
        (Tensor { class: "collections\nOrderedDict", ..four() }, "no storage"),
    ] {
        refused!(file(tensor), text, WeightError::Pickle { .. });
    }
    refused!(Torch::new(&[four(), four()]).storage(&[0; 4]).build(), "`w`", WeightError::DuplicateTensor { .. });
    let unnamed = Tensor::bytes("", &[4]);
    refused!(file(unnamed), "tensor 0", WeightError::EmptyName { .. });
}

#[test]
fn archives() {
    let good = || Torch::new(&[Tensor::bytes("w", &[4])]).storage(&[0; 4]);
    refused!(b"", "[]", WeightError::NotZip { .. });
    refused!(b"version https://git-lfs", "76", WeightError::NotZip { .. });
    let legacy = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.', 0x80, 2];
    refused!(legacy, "torch.save(torch.load(file, weights_only=True), file)", WeightError::LegacyTorch { .. });
    refused!(b"PK", "too short", WeightError::Zip { .. });
    let whole = good().build();
    refused!(whole[..whole.len() - 1], "cut short", WeightError::Zip { .. });
    refused!([&whole[..], b"x"].concat(), "cut short", WeightError::Zip { .. });

    refused!(Torch { entries: vec![] }.entry("a", b"").build(), "no `data.pkl`", WeightError::Zip { .. });
    refused!(Torch { entries: vec![] }.entry("data.pkl", b"").build(), "no `data.pkl`", WeightError::Zip { .. });
    refused!(good().entry("b/data.pkl", b"").build(), "several", WeightError::Zip { .. });
    refused!(good().entry("model/byteorder", b"big").build(), "little-endian", WeightError::Zip { .. });
    refused!(good().entry("model/data/0", b"").build(), "occurs twice", WeightError::ZipEntry { .. });

    // Fields of a directory record: the entry's name tells which is damaged.
    let damaged = |at: usize, bytes: &'static [u8]| {
        good().build_with(move |index, record| {
            if index == 1 {
                record[at..at + bytes.len()].copy_from_slice(bytes);
            }
        })
    };
    refused!(damaged(0, b"PK\x01\x03"), "damaged", WeightError::Zip { .. });
    refused!(damaged(8, &[1, 0]), "`model/data/0` is encrypted", WeightError::ZipEntry { .. });
    refused!(damaged(10, &[8, 0]), "`model/data/0` is compressed", WeightError::ZipEntry { .. });
    refused!(damaged(20, &[5]), "`model/data/0` is compressed", WeightError::ZipEntry { .. });
    refused!(damaged(24, &[0xff; 4]), "zip64 field", WeightError::ZipEntry { .. });
    refused!(damaged(42, &[0xff; 4]), "zip64 field", WeightError::ZipEntry { .. });
    refused!(damaged(42, &[0xfe; 4]), "an entry's header", WeightError::Truncated { .. });
    refused!(damaged(42, &[1, 0, 0, 0]), "header is not where", WeightError::ZipEntry { .. });
    refused!(damaged(42, &[0; 4]), "header is not where", WeightError::ZipEntry { .. });
    refused!(damaged(28, &[0xff; 2]), "name", WeightError::Truncated { .. });
    refused!(damaged(30, &[0xff; 2]), "extra field", WeightError::Truncated { .. });
    refused!(damaged(32, &[1]), "another length", WeightError::Zip { .. });
    let claims = |bytes: [u8; 4]| {
        good().build_with(move |index, record| {
            if index == 1 {
                record[20..24].copy_from_slice(&bytes);
                record[24..28].copy_from_slice(&bytes);
            }
        })
    };
    refused!(claims([0xff, 0xff, 0xff, 0x7f]), "leaves the file", WeightError::ZipEntry { .. });
    // An entry that covers the one behind it.
    let covering = good().build_with(|index, record| {
        if index == 0 {
            let size = u32::from_le_bytes(record[20..24].try_into().unwrap()) + 44;
            record[20..24].copy_from_slice(&size.to_le_bytes());
            record[24..28].copy_from_slice(&size.to_le_bytes());
        }
    });
    refused!(covering, "overlap", WeightError::Overlap { .. });

    // Fields of the record at the end.
    let ended = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        let begin = file.len() - 22 + at;
        file[begin..begin + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused!(ended(4, &[1]), "several files", WeightError::Zip { .. });
    refused!(ended(8, &[3, 0]), "several files", WeightError::Zip { .. });
    refused!(ended(8, &[200, 0, 200, 0]), "200", WeightError::Count { .. });
    refused!(ended(8, &[1, 0, 1, 0]), "another length", WeightError::Zip { .. });
    refused!(ended(12, &[0xfe; 4]), "leaves the file", WeightError::Zip { .. });
    refused!(ended(16, &[0xff; 4]), "zip64", WeightError::Zip { .. });
    refused!(ended(16, &[0; 4]), "damaged", WeightError::Zip { .. });
}
