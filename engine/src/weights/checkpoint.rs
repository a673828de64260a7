//! An opened checkpoint: its configuration and its tensors.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use indexmap::map::Entry;
use serde_json::Value;

use super::folder::{self, Contents};
use super::gguf::{self, GgufMetadata};
use super::mapped::MappedFile;
use super::tensor_info::{StoredType, TensorInfo};
use super::{Format, WeightError, mlx, names, safetensors, torch};

/// A checkpoint on disk, mapped and checked.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    folder: Option<PathBuf>,
    config: Value,
    generation_config: Option<Value>,
    gguf: Option<GgufMetadata>,
    files: Vec<MappedFile>,
    /// By Hugging Face name, in file order.
    tensors: IndexMap<String, Located>,
}

/// A tensor, the index of its file, and how its bytes lie there.
#[derive(Debug)]
struct Located {
    file: usize,
    info: TensorInfo,
    layout: Layout,
}

/// How a file holds a tensor's elements.
#[derive(Debug)]
enum Layout {
    /// In order, as they are handed out.
    Plain,
    /// Some way apart along each dimension: a view of a torch storage.
    Strided(Vec<u64>),
    /// As one of three tensors of MLX.
    OneBit(Box<OneBit>),
}

/// The tensors that make a matrix in MLX's one-bit form.
#[derive(Debug)]
struct OneBit {
    words: TensorInfo,
    scales: Located,
    biases: Located,
}

/// A tensor as it is stored: packed blocks or plain floats, in row-major order.
#[derive(Clone, Debug)]
pub struct StoredTensor<'a> {
    /// The Hugging Face name.
    pub name: String,
    /// How the elements are stored.
    pub format: Format,
    /// The shape, outermost dimension first: `[out, in]` for a matrix.
    pub shape: Vec<usize>,
    /// The blocks, little-endian, not necessarily aligned to the element size. Borrowed from the
    /// mapped file where that holds them in this order.
    pub bytes: Cow<'a, [u8]>,
    file: usize,
    /// The part of the file that holds them.
    begin: usize,
    stored_bytes: usize,
}

/// A tensor's name, type and size, for listings.
#[derive(Clone, Copy, Debug)]
pub struct TensorSummary<'a> {
    /// The Hugging Face name.
    pub name: &'a str,
    /// The element type, also when the engine cannot compute with it.
    pub dtype: StoredType,
    /// The shape, outermost dimension first.
    pub shape: &'a [u64],
    /// Bytes of its elements.
    pub bytes: u64,
}

impl Checkpoint {
    /// Opens a Hugging Face folder, a folder that holds one GGUF model, or a `.gguf` file (of a
    /// split model: any part).
    ///
    /// # Errors
    /// One [`WeightError`] variant per defect of the files.
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let metadata = std::fs::metadata(path).map_err(|source| WeightError::Io { file: path.into(), source })?;
        if !metadata.is_dir() {
            if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
                return Self::open_gguf(path);
            }
            let problem = "neither a folder nor a `.gguf` file".into();
            return Err(WeightError::NotACheckpoint { path: path.into(), problem });
        }
        match folder::contents(path)? {
            Contents::Single(file) => Self::open_folder(path, &[(file.to_owned(), Vec::new())], file),
            Contents::Sharded(index) => {
                let shards: Vec<_> = folder::read_index(&path.join(index))?.into_iter().collect();
                Self::open_folder(path, &shards, index)
            }
            Contents::Gguf(file) => Self::open_gguf(&file),
        }
    }

    /// Opens the `shards` of a folder, each with the tensors that `index` says it holds.
    fn open_folder(path: &Path, shards: &[(String, Vec<String>)], index: &str) -> Result<Self, WeightError> {
        let generation_config = path.join(folder::GENERATION_CONFIG);
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            folder: Some(path.to_path_buf()),
            config: folder::read_object(&path.join(folder::CONFIG))?,
            generation_config: generation_config
                .exists()
                .then(|| folder::read_object(&generation_config))
                .transpose()?,
            gguf: None,
            files: Vec::new(),
            tensors: IndexMap::new(),
        };
        for (shard, expected) in shards {
            let file = MappedFile::open(&path.join(shard))?;
            if index.starts_with(folder::TORCH) {
                let layout = |strides: Option<_>| strides.map_or(Layout::Plain, Layout::Strided);
                let tensors = torch::parse(file.path(), file.bytes())?.into_iter();
                checkpoint.add_file(file, tensors.map(|t| (t.info.name.clone(), t.info, layout(t.strides))))?;
            } else {
                let tensors = safetensors::parse(file.path(), file.bytes())?.into_iter();
                checkpoint.add_file(file, tensors.map(|info| (info.name.clone(), info, Layout::Plain)))?;
            }
            let held = checkpoint.files.len() - 1;
            let holds = |name: &String| checkpoint.tensors.get(name).is_some_and(|tensor| tensor.file == held);
            if let Some(tensor) = expected.iter().find(|name| !holds(name)) {
                let (file, tensor, shard) = (path.join(index), tensor.clone(), shard.clone());
                return Err(WeightError::ShardLacksTensor { file, tensor, shard });
            }
        }
        if mlx::is_one_bit(&checkpoint.config) {
            checkpoint.join_one_bit();
        }
        Ok(checkpoint)
    }

    /// Makes one tensor of each three that hold a matrix in MLX's one-bit form.
    fn join_one_bit(&mut self) {
        let mut rest = std::mem::take(&mut self.tensors);
        let names: Vec<String> = rest.keys().cloned().collect();
        for name in names {
            let Some(words) = rest.swap_remove(&name) else { continue };
            let sibling = |kind| Some(format!("{}.{kind}", name.strip_suffix(".weight")?));
            let keys = sibling("scales").zip(sibling("biases"));
            let packed = keys.as_ref().and_then(|(scales, biases)| {
                mlx::packed(&words.info, &rest.get(scales)?.info, &rest.get(biases)?.info)
            });
            let parts = keys
                .filter(|_| packed.is_some())
                .and_then(|(scales, biases)| rest.swap_remove(&scales).zip(rest.swap_remove(&biases)));
            let tensor = match (packed, parts) {
                (Some(info), Some((scales, biases))) => {
                    let layout = Layout::OneBit(Box::new(OneBit { words: words.info, scales, biases }));
                    Located { file: words.file, info, layout }
                }
                _ => words,
            };
            self.tensors.insert(name, tensor);
        }
    }

    fn open_gguf(path: &Path) -> Result<Self, WeightError> {
        let open = |path: &Path| {
            let file = MappedFile::open(path)?;
            gguf::parse(path, file.bytes()).map(|header| (file, header))
        };
        let (file, header) = open(path)?;
        let parts = gguf::part_paths(&header.metadata)?;
        let opened = if parts.len() == 1 {
            vec![(file, header)]
        } else {
            drop((file, header));
            parts.iter().map(|part| open(part)).collect::<Result<_, _>>()?
        };
        Self::from_gguf_parts(path, &parts, opened)
    }

    fn from_gguf_parts(
        path: &Path,
        paths: &[PathBuf],
        parts: Vec<(MappedFile, gguf::GgufHeader)>,
    ) -> Result<Self, WeightError> {
        for ((_, header), path) in parts.iter().zip(paths) {
            if gguf::part_paths(&header.metadata)? != paths {
                let problem = format!("its `split.*` keys do not make it a part of {} files", paths.len());
                return Err(WeightError::Split { file: path.clone(), problem });
            }
        }
        let tensor = |name: &str| parts.iter().flat_map(|(_, header)| &header.tensors).find(|t| t.name == name);
        let not_a_checkpoint = || WeightError::NotACheckpoint { path: path.into(), problem: "no parts".into() };
        let metadata = parts.first().map(|(_, header)| header.metadata.clone()).ok_or_else(not_a_checkpoint)?;
        let config = gguf::synthesize_config(&metadata, tensor)?;
        let architecture = config["model_type"].as_str().unwrap_or_default().to_owned();
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            folder: None,
            config,
            generation_config: None,
            gguf: Some(metadata),
            files: Vec::new(),
            tensors: IndexMap::new(),
        };
        for (file, header) in parts {
            let tensors = header.tensors.into_iter();
            checkpoint.add_file(
                file,
                tensors.map(|info| (names::hugging_face_name(&architecture, &info.name), info, Layout::Plain)),
            )?;
        }
        checkpoint.check_split_total()?;
        Ok(checkpoint)
    }

    /// A split model's first part says how many tensors all parts hold.
    fn check_split_total(&self) -> Result<(), WeightError> {
        let Some(metadata) = &self.gguf else { return Ok(()) };
        match metadata.get_u64("split.tensors.count")? {
            Some(stated) if self.files.len() > 1 && stated != self.tensors.len() as u64 => {
                let problem = format!("`split.tensors.count` is {stated}; the parts hold {}", self.tensors.len());
                Err(WeightError::Split { file: metadata.file().to_path_buf(), problem })
            }
            _ => Ok(()),
        }
    }

    fn add_file(
        &mut self,
        file: MappedFile,
        tensors: impl Iterator<Item = (String, TensorInfo, Layout)>,
    ) -> Result<(), WeightError> {
        let index = self.files.len();
        for (name, info, layout) in tensors {
            match self.tensors.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(Located { file: index, info, layout })),
                // Within a file only the mapping of GGUF names can make two names one.
                Entry::Occupied(entry) if entry.get().file == index => {
                    return Err(WeightError::NameCollision { file: file.path().into(), name: entry.key().clone() });
                }
                Entry::Occupied(entry) => {
                    return Err(WeightError::TensorInTwoShards {
                        tensor: entry.key().clone(),
                        first: self.files[entry.get().file].path().display().to_string(),
                        second: file.path().display().to_string(),
                    });
                }
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`, or its like made from the GGUF metadata; always an object.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// `generation_config.json`, when there is one; always an object.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    /// The metadata of a GGUF checkpoint.
    pub fn gguf(&self) -> Option<&GgufMetadata> {
        self.gguf.as_ref()
    }

    /// The folder of a Hugging Face checkpoint, where `tokenizer.json` and the like lie.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The Hugging Face names of all tensors, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Name, type and size of all tensors, in file order.
    pub fn summaries(&self) -> impl ExactSizeIterator<Item = TensorSummary<'_>> {
        self.tensors.iter().map(|(name, Located { info, .. })| TensorSummary {
            name,
            dtype: info.dtype,
            shape: &info.shape,
            bytes: info.bytes,
        })
    }

    /// True when there is a tensor of this Hugging Face name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of this Hugging Face name.
    ///
    /// # Errors
    /// [`WeightError::MissingTensor`], [`WeightError::UnsupportedType`],
    /// [`WeightError::Quantization`] for values that its form can't hold, and
    /// [`WeightError::Changed`] when the file was cut or grew since it was opened.
    pub fn tensor(&self, name: &str) -> Result<StoredTensor<'_>, WeightError> {
        let missing = || WeightError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() };
        let Located { file: index, info, layout } = self.tensors.get(name).ok_or_else(missing)?;
        let file = &self.files[*index];
        let StoredType::Known(format) = info.dtype else {
            let found = match mlx::unread(&self.config).filter(|_| info.dtype.name() == "U32") {
                Some(settings) => format!("{} {settings}", info.dtype.name()),
                None => info.dtype.name().to_owned(),
            };
            return Err(WeightError::UnsupportedType { file: file.path().into(), tensor: name.to_owned(), found });
        };
        file.check_length()?;
        // The header was checked against the map, whose length fits usize.
        let begin = info.begin as usize;
        let (bytes, stored_bytes) = match layout {
            Layout::Plain => (Cow::Borrowed(file_bytes(file, info)), info.bytes as usize),
            Layout::Strided(strides) => {
                let elements = torch::gather(&file.bytes()[begin..], format.block_bytes(), &info.shape, strides);
                (Cow::Owned(elements), info.bytes as usize)
            }
            Layout::OneBit(parts) => (Cow::Owned(self.one_bit_blocks(name, file, parts)?), parts.words.bytes as usize),
        };
        Ok(StoredTensor {
            name: name.to_owned(),
            format,
            shape: info.shape.iter().map(|&size| size as usize).collect(),
            bytes,
            file: *index,
            begin,
            stored_bytes,
        })
    }

    fn one_bit_blocks(&self, name: &str, file: &MappedFile, parts: &OneBit) -> Result<Vec<u8>, WeightError> {
        let bytes = |part: &Located| {
            let file = &self.files[part.file];
            file.check_length().map(|()| file_bytes(file, &part.info))
        };
        let StoredType::Known(format) = parts.scales.info.dtype else {
            let (path, found) = (file.path().into(), parts.scales.info.dtype.name().to_owned());
            return Err(WeightError::UnsupportedType { file: path, tensor: parts.scales.info.name.clone(), found });
        };
        let triple = mlx::Triple {
            words: file_bytes(file, &parts.words),
            scales: bytes(&parts.scales)?,
            biases: bytes(&parts.biases)?,
            format,
        };
        mlx::to_blocks(&triple).map_err(|problem| WeightError::Quantization {
            file: file.path().into(),
            tensor: name.to_owned(),
            problem,
        })
    }

    /// Gives the memory behind a tensor back to the operating system once its bytes have been
    /// copied, so that loading does not hold the weights twice; reading it again loads it anew.
    pub fn release(&self, tensor: &StoredTensor<'_>) {
        if let Some(file) = self.files.get(tensor.file) {
            file.release(tensor.begin, tensor.stored_bytes);
        }
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        self.summaries().map(|tensor| tensor.bytes).sum()
    }

    /// Elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.summaries().map(|tensor| tensor.shape.iter().product::<u64>()).sum()
    }

    /// The type that most bytes are stored in, e.g. `BF16`; for a k-quant mix the mix's name, e.g.
    /// `Q4_K_M`, where the file states it.
    pub fn main_format(&self) -> String {
        let mut bytes = IndexMap::<&str, u64>::new();
        for tensor in self.summaries() {
            *bytes.entry(tensor.dtype.name()).or_default() += tensor.bytes;
        }
        let main = bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("none", |(name, _)| name);
        // The file type is a hint that tools set carelessly; it counts where the tensors bear it out.
        let stated = self.gguf.as_ref().and_then(|gguf| gguf::file_type_name(gguf.get("general.file_type")?.as_u64()?));
        stated.filter(|mix| mix.starts_with(main)).unwrap_or(main).to_owned()
    }
}

/// The bytes of a tensor whose place was checked when its file was opened.
fn file_bytes<'a>(file: &'a MappedFile, info: &TensorInfo) -> &'a [u8] {
    &file.bytes()[info.begin as usize..(info.begin + info.bytes) as usize]
}
