//! The zip archive that `torch.save` writes: its entries are stored as they are, so their bytes can
//! be used from the mapped file.

use std::collections::HashSet;
use std::path::Path;

use crate::weights::WeightError;
use crate::weights::tensor_info::MAX_TENSORS;

/// Most entries: a storage for every tensor, and torch's few own ones.
const MAX_ENTRIES: u64 = MAX_TENSORS + 64;

const LOCAL_HEADER: u64 = 30;
const CENTRAL_HEADER: u64 = 46;
const END: u64 = 22;
const END64_LOCATOR: u64 = 20;
const END64: u64 = 56;
/// Marks a 32-bit field whose value stands in a zip64 record.
const IN_ZIP64: u64 = 0xffff_ffff;

/// An entry of the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    /// First byte of its data in the file.
    pub(super) begin: u64,
    pub(super) bytes: u64,
}

/// The entries of the archive `bytes`, each within the file and apart from the others.
pub(super) fn entries<'a>(file: &Path, bytes: &'a [u8]) -> Result<Vec<Entry<'a>>, WeightError> {
    let archive = Archive { file, bytes };
    let directory = archive.directory()?;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    let mut at = directory.begin;
    for _ in 0..directory.count {
        let (entry, next) = archive.entry(at, &directory)?;
        if !names.insert(entry.name) {
            return Err(archive.entry_error(entry.name, "occurs twice"));
        }
        entries.push(entry);
        at = next;
    }
    if at != directory.end {
        return Err(archive.error("the central directory has another length than it states"));
    }
    archive.check_apart(&entries)?;
    Ok(entries)
}

struct Archive<'a, 'f> {
    file: &'f Path,
    bytes: &'a [u8],
}

/// The central directory: the range of its bytes and its number of entries.
struct Directory {
    begin: u64,
    end: u64,
    count: u64,
}

impl<'a> Archive<'a, '_> {
    fn error(&self, problem: &str) -> WeightError {
        WeightError::Zip { file: self.file.to_path_buf(), problem: problem.to_owned() }
    }

    fn entry_error(&self, entry: &str, problem: &str) -> WeightError {
        WeightError::ZipEntry { file: self.file.to_path_buf(), entry: entry.to_owned(), problem: problem.to_owned() }
    }

    /// The `n` bytes at `at`.
    fn slice(&self, at: u64, n: u64, what: &str) -> Result<&'a [u8], WeightError> {
        let range = || self.bytes.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(n)?).ok()?);
        range().ok_or_else(|| WeightError::Truncated {
            file: self.file.to_path_buf(),
            what: what.to_owned(),
            offset: at,
            expected: n,
            found: (self.bytes.len() as u64).saturating_sub(at),
        })
    }

    /// Finds the directory through the record at the end of the file.
    fn directory(&self) -> Result<Directory, WeightError> {
        let length = self.bytes.len() as u64;
        // A comment of up to 65535 bytes may follow the record; its length tells a true one.
        let last = length.checked_sub(END).ok_or_else(|| self.error("the file is too short for an archive"))?;
        let found = (last.saturating_sub(0xffff)..=last).rev().find(|&at| {
            self.slice(at, END, "").is_ok_and(|r| r.starts_with(b"PK\x05\x06") && u16_at(r, 20) == length - at - END)
        });
        let end = found.ok_or_else(|| self.error("the end of the archive is missing: the file was cut short"))?;
        let record = self.slice(end, END, "the end record")?;
        let (mut count, mut size, mut begin) = (u16_at(record, 10), u32_at(record, 12), u32_at(record, 16));
        let mut disks = u16_at(record, 4) | u16_at(record, 6) | (u16_at(record, 8) ^ count);
        let mut limit = end;
        if count == 0xffff || size == IN_ZIP64 || begin == IN_ZIP64 {
            let problem = "the zip64 end record is missing";
            let at = end.checked_sub(END64_LOCATOR).ok_or_else(|| self.error(problem))?;
            let locator = self.slice(at, END64_LOCATOR, "the zip64 locator")?;
            if !locator.starts_with(b"PK\x06\x07") {
                return Err(self.error(problem));
            }
            limit = u64_at(locator, 8);
            let record = self.slice(limit, END64, "the zip64 end record")?;
            if !record.starts_with(b"PK\x06\x06") {
                return Err(self.error(problem));
            }
            (count, size, begin) = (u64_at(record, 32), u64_at(record, 40), u64_at(record, 48));
            disks = u32_at(record, 16) | u32_at(record, 20) | (u64_at(record, 24) ^ count);
        }
        if disks != 0 {
            return Err(self.error("the archive is split over several files"));
        }
        let directory_end = begin.checked_add(size).filter(|&directory_end| directory_end <= limit);
        let directory_end = directory_end.ok_or_else(|| self.error("the central directory leaves the file"))?;
        let limit = MAX_ENTRIES.min(size / CENTRAL_HEADER);
        if count > limit {
            return Err(WeightError::Count {
                file: self.file.to_path_buf(),
                what: "archive entry",
                found: count,
                limit,
            });
        }
        Ok(Directory { begin, end: directory_end, count })
    }

    /// The entry that the directory describes at `at`, and where its next one begins.
    fn entry(&self, at: u64, directory: &Directory) -> Result<(Entry<'a>, u64), WeightError> {
        let header = self.slice(at, CENTRAL_HEADER, "a directory entry")?;
        if !header.starts_with(b"PK\x01\x02") {
            return Err(self.error("the central directory is damaged"));
        }
        let (flags, method) = (u16_at(header, 8), u16_at(header, 10));
        let (name_bytes, extra_bytes, comment_bytes) = (u16_at(header, 28), u16_at(header, 30), u16_at(header, 32));
        let name = self.name(at + CENTRAL_HEADER, name_bytes)?;
        let extra = self.slice(at + CENTRAL_HEADER + name_bytes, extra_bytes, "a directory entry's extra field")?;
        let mut zip64 = Zip64 { bytes: zip64_field(extra), at: 0 };
        let problem = || self.entry_error(name, "its zip64 field is too short");
        // In this order, and only those whose place holds the mark.
        let bytes = zip64.resolve(u32_at(header, 24)).ok_or_else(problem)?;
        let stored = zip64.resolve(u32_at(header, 20)).ok_or_else(problem)?;
        let local = zip64.resolve(u32_at(header, 42)).ok_or_else(problem)?;
        if flags & 1 != 0 {
            return Err(self.entry_error(name, "is encrypted"));
        }
        if method != 0 || stored != bytes {
            return Err(self.entry_error(name, "is compressed; torch.save stores entries as they are"));
        }
        let local_header = self.slice(local, LOCAL_HEADER, "an entry's header")?;
        let local_name_bytes = u16_at(local_header, 26);
        if !local_header.starts_with(b"PK\x03\x04") || self.name(local + LOCAL_HEADER, local_name_bytes)? != name {
            return Err(self.entry_error(name, "its header is not where the directory says"));
        }
        let begin = local + LOCAL_HEADER + local_name_bytes + u16_at(local_header, 28);
        if begin.checked_add(bytes).is_none_or(|end| end > directory.begin) {
            return Err(self.entry_error(name, "its data leaves the file"));
        }
        Ok((Entry { name, begin, bytes }, at + CENTRAL_HEADER + name_bytes + extra_bytes + comment_bytes))
    }

    fn name(&self, at: u64, n: u64) -> Result<&'a str, WeightError> {
        let what = "an entry's name";
        std::str::from_utf8(self.slice(at, n, what)?).map_err(|error| WeightError::NotUtf8 {
            file: self.file.to_path_buf(),
            what: what.to_owned(),
            at: error.valid_up_to(),
        })
    }

    /// No two entries share a byte: an archive that reuses bytes can claim any size.
    fn check_apart(&self, entries: &[Entry<'_>]) -> Result<(), WeightError> {
        let mut by_begin: Vec<_> = entries.iter().collect();
        by_begin.sort_by_key(|entry| (entry.begin, entry.bytes));
        match by_begin.windows(2).find(|pair| pair[0].begin + pair[0].bytes > pair[1].begin) {
            Some(pair) => Err(WeightError::Overlap {
                file: self.file.to_path_buf(),
                first: pair[0].name.to_owned(),
                second: pair[1].name.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// The 64-bit values that stand for marked fields.
struct Zip64<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Zip64<'_> {
    fn resolve(&mut self, field: u64) -> Option<u64> {
        if field != IN_ZIP64 {
            return Some(field);
        }
        let value = self.bytes.get(self.at..self.at + 8)?;
        self.at += 8;
        Some(u64_at(value, 0))
    }
}

/// The content of the zip64 record among an entry's extra fields; empty where there is none.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while let Some((header, rest)) = extra.split_first_chunk::<4>() {
        let Some((field, after)) = rest.split_at_checked(u16_at(header, 2) as usize) else { return &[] };
        if u16_at(header, 0) == 1 {
            return field;
        }
        extra = after;
    }
    &[]
}

// Little-endian numbers in records whose length was checked.

fn u16_at(record: &[u8], at: usize) -> u64 {
    number(record, at, 2)
}

fn u32_at(record: &[u8], at: usize) -> u64 {
    number(record, at, 4)
}

fn u64_at(record: &[u8], at: usize) -> u64 {
    number(record, at, 8)
}

fn number(record: &[u8], at: usize, width: usize) -> u64 {
    record[at..at + width].iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}
