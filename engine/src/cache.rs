//! The model cache: a folder of checkpoints, each named by its path below the root.
//!
//! Ids come from command lines and HTTP requests, so they are checked as hostile text: nothing
//! outside the root is ever opened through one, by `..` or by a symbolic link.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::weights::WEIGHT_FILES;
use crate::{Error, Result};

/// The environment variable that names the cache's root.
pub const CACHE_DIR_VARIABLE: &str = "ATELICO_CACHE_DIR";

/// Longest id in bytes.
const MAX_ID_BYTES: usize = 4096;
/// Longest part of an id in bytes: what common file systems allow for a name.
const MAX_PART_BYTES: usize = 255;
/// Most parts of an id; the listing walks as deep.
const MAX_PARTS: usize = 6;
/// Names that Windows gives to devices in every folder.
const RESERVED: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];

/// The folder that holds the models.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedModel {
    /// Its id: the path below the root, parts joined by `/`.
    pub id: String,
    /// What to load: the checkpoint's folder or its `.gguf` file.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// When the newest of its files changed.
    pub modified: SystemTime,
}

impl Cache {
    /// The cache at `root`, which need not exist yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache that `ATELICO_CACHE_DIR` names, else the operating system's usual place:
    /// `~/Library/Caches/atelico/models` (macOS), `%LOCALAPPDATA%\atelico\models` (Windows),
    /// `~/.cache/atelico/models` (others).
    ///
    /// # Errors
    /// [`Error::Config`] when the variable is unset and there is no home folder.
    pub fn from_env() -> Result<Self> {
        let root = match std::env::var_os(CACHE_DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => user_folder().map(|folder| folder.join("models")).ok_or_else(|| Error::Config {
                key: CACHE_DIR_VARIABLE.into(),
                problem: "is not set and the user has no home folder; set it to the folder that holds the models"
                    .into(),
            })?,
        };
        let root = std::path::absolute(&root).map_err(|source| Error::Io { path: root, source })?;
        Ok(Self { root })
    }

    /// The folder that holds the models; it need not exist.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder or `.gguf` file that `id` names.
    ///
    /// A folder with Hugging Face weights is itself the model; a folder that holds one `.gguf`
    /// file stands for that file; `folder/name` also names `folder/name.gguf`.
    ///
    /// # Errors
    /// [`Error::Model`] when the id is malformed, leaves the root, names nothing, or names a
    /// folder of several `.gguf` files; [`Error::Io`] when the cache can't be read.
    pub fn resolve(&self, id: &str) -> Result<PathBuf> {
        check_id(id).map_err(|problem| model_error(id, problem))?;
        let root = match fs::canonicalize(&self.root) {
            Ok(root) => root,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.missing(id)),
            Err(source) => return Err(Error::Io { path: self.root.clone(), source }),
        };
        let folder = id.split('/').fold(self.root.clone(), |path, part| path.join(part));
        if folder.is_dir() {
            inside(&root, &folder).map_err(|problem| model_error(id, problem))?;
            return self.resolve_folder(id, &root, &folder);
        }
        let mut file = OsString::from(&folder);
        file.push(".gguf");
        let candidates = [PathBuf::from(file), folder];
        let Some(file) = candidates.into_iter().find(|path| is_gguf(path) && path.is_file()) else {
            return Err(self.missing(id));
        };
        inside(&root, &file).map_err(|problem| model_error(id, problem))?;
        Ok(file)
    }

    fn resolve_folder(&self, id: &str, root: &Path, folder: &Path) -> Result<PathBuf> {
        let contents = FolderContents::read(folder)?;
        for link in &contents.links {
            inside(root, link).map_err(|problem| model_error(id, problem))?;
        }
        if contents.is_checkpoint() {
            return Ok(folder.to_owned());
        }
        match contents.ggufs.as_slice() {
            [file] => Ok(file.clone()),
            [] => Err(model_error(
                id,
                format!("{} holds neither config.json with its weights nor a .gguf file", folder.display()),
            )),
            several => {
                let ids: Vec<_> =
                    several.iter().filter_map(|file| Some(format!("{id}/{}", contents.file_id(file)?))).collect();
                Err(model_error(id, format!("holds {} .gguf files; choose one: {}", several.len(), ids.join(", "))))
            }
        }
    }

    /// Every model below the root, ordered by id; entries that no valid id can name and links
    /// that lead out of the root are left out. A root that does not exist holds none.
    ///
    /// # Errors
    /// [`Error::Io`] when the root exists and can't be read.
    pub fn list(&self) -> Result<Vec<CachedModel>> {
        let root = match fs::canonicalize(&self.root) {
            Ok(root) => root,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::Io { path: self.root.clone(), source }),
        };
        let mut models = Vec::new();
        // The root itself is no model: its id would be empty.
        let contents = FolderContents::read(&self.root)?;
        let mut visited = HashSet::from([root.clone()]);
        add_ggufs(&root, "", &contents, &mut models);
        let mut pending = subfolders("", contents);
        while let Some((id, folder)) = pending.pop() {
            if inside(&root, &folder).is_err() {
                tracing::warn!("{} leads out of the model cache and is left out", folder.display());
                continue;
            }
            // A folder reached twice through links is listed once.
            if fs::canonicalize(&folder).is_ok_and(|real| !visited.insert(real)) {
                continue;
            }
            let contents = match FolderContents::read(&folder) {
                Ok(contents) => contents,
                Err(error) => {
                    tracing::warn!("{error}");
                    continue;
                }
            };
            if contents.is_checkpoint() {
                models.push(CachedModel {
                    id: id.clone(),
                    path: folder.clone(),
                    bytes: contents.bytes,
                    modified: contents.modified,
                });
            }
            match contents.ggufs.as_slice() {
                [file] if !contents.is_checkpoint() => models.extend(gguf_model(&root, id.clone(), file)),
                _ => add_ggufs(&root, &id, &contents, &mut models),
            }
            if !contents.is_checkpoint() && id.split('/').count() < MAX_PARTS {
                pending.extend(subfolders(&id, contents));
            }
        }
        models.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(models)
    }

    fn missing(&self, id: &str) -> Error {
        model_error(id, format!("is not in the cache at {}", self.root.display()))
    }
}

/// The folder of what can be had anew: models, kernels. `None` when the user has no home folder.
#[cfg(target_os = "windows")]
pub(crate) fn user_folder() -> Option<PathBuf> {
    let base = std::env::var_os("LOCALAPPDATA").filter(|dir| !dir.is_empty())?;
    Some(PathBuf::from(base).join("atelico"))
}

#[cfg(target_os = "macos")]
pub(crate) fn user_folder() -> Option<PathBuf> {
    Some(home()?.join("Library/Caches/atelico"))
}

#[cfg(not(any(target_os = "windows", target_os = "macos")))]
pub(crate) fn user_folder() -> Option<PathBuf> {
    Some(home()?.join(".cache/atelico"))
}

#[cfg(not(target_os = "windows"))]
fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// Ids are the same on every operating system, so what one of them forbids is refused on all.
fn check_id(id: &str) -> std::result::Result<(), String> {
    if id.is_empty() {
        return Err("the id is empty".into());
    }
    if id.len() > MAX_ID_BYTES {
        return Err(format!("the id is {} bytes long; at most {MAX_ID_BYTES}", id.len()));
    }
    if id.starts_with('/') {
        return Err("an absolute path is no model id".into());
    }
    if id.split('/').count() > MAX_PARTS {
        return Err(format!("the id has more than {MAX_PARTS} parts"));
    }
    id.split('/').try_for_each(check_part)
}

fn check_part(part: &str) -> std::result::Result<(), String> {
    if part.is_empty() {
        return Err("the id has an empty part".into());
    }
    if part == "." || part == ".." {
        return Err(format!("`{part}` leaves the model cache"));
    }
    if part.len() > MAX_PART_BYTES {
        return Err(format!("a part of the id is {} bytes long; at most {MAX_PART_BYTES}", part.len()));
    }
    if let Some(bad) = part.chars().find(|&c| c.is_control() || "\\:<>\"|?*".contains(c)) {
        return Err(format!("the character {bad:?} is not allowed in a model id"));
    }
    if part.ends_with(['.', ' ']) {
        return Err("a part of the id ends with a dot or a blank".into());
    }
    let base = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let port = |name: &str| {
        base.strip_prefix(name)
            .is_some_and(|rest| matches!(rest, "¹" | "²" | "³") || matches!(rest.as_bytes(), [b'0'..=b'9']))
    };
    if RESERVED.contains(&base.as_str()) || port("COM") || port("LPT") {
        return Err(format!("`{part}` is a name that Windows reserves"));
    }
    Ok(())
}

fn model_error(id: &str, problem: impl Into<String>) -> Error {
    const SHOWN: usize = 200;
    let mut shown: String = id.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if id.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    Error::Model { id: shown, problem: problem.into() }
}

/// Checks that `path`, its links followed, lies below `root` (canonical).
fn inside(root: &Path, path: &Path) -> std::result::Result<(), String> {
    match fs::canonicalize(path) {
        Ok(real) if real.starts_with(root) => Ok(()),
        Ok(_) => Err(format!("{} is a link that leaves the model cache", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// What one folder of the cache holds, in the order of names.
struct FolderContents {
    has_config: bool,
    has_weights: bool,
    ggufs: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    links: Vec<PathBuf>,
    bytes: u64,
    modified: SystemTime,
}

impl FolderContents {
    fn read(folder: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: folder.to_owned(), source };
        let mut contents = Self {
            has_config: false,
            has_weights: false,
            ggufs: Vec::new(),
            folders: Vec::new(),
            links: Vec::new(),
            bytes: 0,
            modified: SystemTime::UNIX_EPOCH,
        };
        for entry in fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path = entry.path();
            if entry.file_type().map_err(io)?.is_symlink() {
                contents.links.push(path.clone());
            }
            // Follows links; one that leads nowhere is no model.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() {
                contents.folders.push(path);
                continue;
            }
            if !metadata.is_file() {
                continue;
            }
            contents.bytes = contents.bytes.saturating_add(metadata.len());
            contents.modified = contents.modified.max(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            let name = entry.file_name();
            contents.has_config |= name == "config.json";
            // Files that make a folder a Hugging Face checkpoint, whole or damaged.
            contents.has_weights |= WEIGHT_FILES.iter().any(|file| name == *file);
            if is_gguf(&path) {
                contents.ggufs.push(path);
            }
        }
        contents.ggufs.sort();
        contents.folders.sort();
        Ok(contents)
    }

    /// The last part of a `.gguf` file's id: its stem, or the whole name where the stem alone
    /// would name something else.
    fn file_id<'a>(&self, file: &'a Path) -> Option<&'a str> {
        let name = file.file_name()?.to_str()?;
        let stem = name.strip_suffix(".gguf").filter(|stem| !self.folders.contains(&file.with_file_name(stem)));
        Some(stem.unwrap_or(name))
    }

    /// Hugging Face weights, or a config that has lost them. Repositories of GGUF files often
    /// carry a config.json too, which does not count.
    fn is_checkpoint(&self) -> bool {
        self.has_weights || (self.has_config && self.ggufs.is_empty())
    }
}

/// The ids and paths of the folders in `contents` that an id can name.
fn subfolders(parent: &str, contents: FolderContents) -> Vec<(String, PathBuf)> {
    let named = |folder: PathBuf| {
        let id = child_id(parent, folder.file_name()?.to_str()?)?;
        Some((id, folder))
    };
    contents.folders.into_iter().filter_map(named).collect()
}

fn child_id(parent: &str, name: &str) -> Option<String> {
    if name.starts_with('.') {
        return None;
    }
    check_part(name).ok()?;
    Some(if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") })
}

/// Adds every `.gguf` file of a folder under an id of its own.
fn add_ggufs(root: &Path, parent: &str, contents: &FolderContents, models: &mut Vec<CachedModel>) {
    let named = |file: &PathBuf| gguf_model(root, child_id(parent, contents.file_id(file)?)?, file);
    models.extend(contents.ggufs.iter().filter_map(named));
}

fn gguf_model(root: &Path, id: String, file: &Path) -> Option<CachedModel> {
    if inside(root, file).is_err() {
        tracing::warn!("{} leads out of the model cache and is left out", file.display());
        return None;
    }
    let metadata = fs::metadata(file).ok()?;
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some(CachedModel { id, path: file.to_owned(), bytes: metadata.len(), modified })
}
