//! Models split over several GGUF files, `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use super::GgufMetadata;
use crate::weights::WeightError;

/// Most parts of a split model.
const MAX_PARTS: u64 = 1000;

/// The paths of all parts of the model that `metadata`'s file belongs to; that file alone when the
/// model is not split.
///
/// # Errors
/// [`WeightError::Split`] when the `split.*` keys do not fit the file's name.
pub(crate) fn part_paths(metadata: &GgufMetadata) -> Result<Vec<PathBuf>, WeightError> {
    let file = metadata.file();
    let count = metadata.get_u64("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![file.to_path_buf()]);
    }
    let wrong = |problem| WeightError::Split { file: file.to_path_buf(), problem };
    if count > MAX_PARTS {
        return Err(wrong(format!("`split.count` is {count}; at most {MAX_PARTS}")));
    }
    let number = metadata.get_u64("split.no")?.ok_or_else(|| metadata.missing("split.no"))?;
    let name = PartName::of(file).filter(|name| name.number == number + 1 && name.count == count).ok_or_else(|| {
        wrong(format!("part {number} of {count} needs a name NAME-{:05}-of-{count:05}.gguf", number + 1))
    })?;
    Ok((1..=count).map(|number| file.with_file_name(name.part(number))).collect())
}

/// True when `paths` are the parts of a single split model, to judge by their names.
pub(crate) fn is_split_set(paths: &[PathBuf]) -> bool {
    let Some(names) = paths.iter().map(|path| PartName::of(path)).collect::<Option<Vec<_>>>() else { return false };
    names.windows(2).all(|pair| pair[0].prefix == pair[1].prefix && pair[0].count == pair[1].count)
        && names.first().is_some_and(|name| name.count == names.len() as u64)
}

/// A file name taken apart.
#[derive(PartialEq)]
struct PartName {
    prefix: String,
    number: u64,
    count: u64,
}

impl PartName {
    fn of(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let five_digits = |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?;
        Some(Self { prefix: prefix.to_owned(), number: five_digits(number)?, count: five_digits(count)? })
    }

    fn part(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }
}
