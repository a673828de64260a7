//! A machine for the part of Python's pickle language that `torch.save` uses for tensors.
//!
//! A pickle is a program: it may name any function of Python and call it. This machine has no
//! functions to call but those of [`Global`], each of which only describes a tensor; whatever else a
//! file names is an error. Reference: Python's `pickletools.py`, torch's `_weights_only_unpickler.py`.

use std::collections::HashMap;
use std::path::Path;

use super::globals::Global;
use super::objects::{Id, Object, Storage, View};
use crate::weights::WeightError;
use crate::weights::safetensors::MAX_DIMENSIONS;
use crate::weights::tensor_info::MAX_TENSORS;

/// Longest pickle in bytes; that of a model with 10,000 tensors holds 2 MB.
const MAX_BYTES: usize = 16 << 20;
/// Most objects, memo entries and places on the stack.
const MAX_OBJECTS: usize = 1 << 20;
/// Longest text of the file that a message repeats.
const MAX_SHOWN: usize = 80;

/// The dict of tensors that the program `bytes` builds: names and views, in its order.
///
/// # Errors
/// [`WeightError::PickleGlobal`] for a name that is not on the list, [`WeightError::PickleOpcode`] and
/// [`WeightError::Pickle`] for a program of any other form.
pub(super) fn tensors<'a>(file: &Path, bytes: &'a [u8]) -> Result<Vec<(&'a str, View<'a>)>, WeightError> {
    if bytes.len() > MAX_BYTES {
        let (file, found, limit) = (file.to_path_buf(), bytes.len() as u64, MAX_BYTES as u64);
        return Err(WeightError::HeaderTooLarge { file, found, limit });
    }
    let mut machine =
        Machine { file, bytes, at: 0, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    let result = machine.run()?;
    machine.into_tensors(result)
}

struct Machine<'a, 'f> {
    file: &'f Path,
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at which marks lie.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a, '_> {
    fn error(&self, problem: impl Into<String>) -> WeightError {
        WeightError::Pickle { file: self.file.to_path_buf(), offset: self.at as u64, problem: problem.into() }
    }

    // Reading the program.

    fn take(&mut self, n: usize) -> Result<&'a [u8], WeightError> {
        let (taken, _) = self.bytes[self.at..].split_at_checked(n).ok_or_else(|| WeightError::Truncated {
            file: self.file.to_path_buf(),
            what: "the pickle".to_owned(),
            offset: self.at as u64,
            expected: n as u64,
            found: (self.bytes.len() - self.at) as u64,
        })?;
        self.at += n;
        Ok(taken)
    }

    /// A little-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Result<u32, WeightError> {
        Ok(self.take(width)?.iter().rev().fold(0, |n, &byte| n << 8 | u32::from(byte)))
    }

    fn text(&self, bytes: &'a [u8]) -> Result<&'a str, WeightError> {
        std::str::from_utf8(bytes).map_err(|error| WeightError::NotUtf8 {
            file: self.file.to_path_buf(),
            what: "a string of the pickle".to_owned(),
            at: error.valid_up_to(),
        })
    }

    /// The text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, WeightError> {
        let length = self.bytes[self.at..].iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or_else(|| self.error("a line has no end"))?)?;
        self.at += 1;
        self.text(line)
    }

    /// The signed number of a `LONG1`, as many bytes as its first says.
    fn long(&mut self) -> Result<i64, WeightError> {
        let width = self.number(1)? as usize;
        if width > 8 {
            return Err(self.error(format!("an integer of {width} bytes; at most 8 are read")));
        }
        let bytes = self.take(width)?;
        let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..width].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(wide))
    }

    // Stack and memo.

    fn push_id(&mut self, id: Id) -> Result<(), WeightError> {
        if self.stack.len() >= MAX_OBJECTS {
            return Err(self.too_many("pickle stack entry"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), WeightError> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err(self.too_many("pickle object"));
        }
        self.objects.push(object);
        self.push_id((self.objects.len() - 1) as Id)
    }

    fn too_many(&self, what: &'static str) -> WeightError {
        let limit = MAX_OBJECTS as u64;
        WeightError::Count { file: self.file.to_path_buf(), what, found: limit + 1, limit }
    }

    fn pop(&mut self) -> Result<Id, WeightError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let id = if self.stack.len() > floor { self.stack.pop() } else { None };
        id.ok_or_else(|| self.error("an operation finds nothing on the stack"))
    }

    fn mark(&mut self) -> Result<(), WeightError> {
        if self.marks.len() >= MAX_OBJECTS {
            return Err(self.too_many("pickle mark"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// The objects above the last mark, which goes too.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, WeightError> {
        let mark = self.marks.pop().ok_or_else(|| self.error("an operation finds no mark on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_tuple(&mut self, length: usize) -> Result<(), WeightError> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Object::Tuple(items))
    }

    fn top(&self) -> Result<Id, WeightError> {
        self.stack.last().copied().ok_or_else(|| self.error("an operation finds nothing on the stack"))
    }

    fn object(&self, id: Id) -> &Object<'a> {
        &self.objects[id as usize]
    }

    fn memoize(&mut self, key: u32) -> Result<(), WeightError> {
        if self.memo.len() >= MAX_OBJECTS {
            return Err(self.too_many("pickle memo"));
        }
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), WeightError> {
        let id = self.memo.get(&key).copied();
        self.push_id(id.ok_or_else(|| self.error(format!("memo {key} is read before it is written")))?)
    }

    // Running.

    /// Runs the program to its end and returns what it leaves.
    fn run(&mut self) -> Result<Id, WeightError> {
        if self.take(2)? != [0x80, 2] {
            return Err(self.error("the pickle is not of protocol 2, which torch.save writes"));
        }
        loop {
            let at = self.at;
            match self.take(1)?[0] {
                b'.' => break,
                b'(' => self.mark()?,
                b'N' => self.push(Object::None)?,
                0x88 | 0x89 => self.push(Object::Bool)?,
                b'J' => {
                    let value = self.number(4)?.cast_signed();
                    self.push(Object::Int(value.into()))?;
                }
                b'K' => {
                    let value = self.number(1)?;
                    self.push(Object::Int(value.into()))?;
                }
                b'M' => {
                    let value = self.number(2)?;
                    self.push(Object::Int(value.into()))?;
                }
                0x8a => {
                    let value = self.long()?;
                    self.push(Object::Int(value))?;
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Object::Float)?;
                }
                b'X' => {
                    let length = self.number(4)? as usize;
                    let bytes = self.take(length)?;
                    self.push(Object::Str(self.text(bytes)?))?;
                }
                b')' => self.push(Object::Tuple(Vec::new()))?,
                0x85 => self.pop_tuple(1)?,
                0x86 => self.pop_tuple(2)?,
                0x87 => self.pop_tuple(3)?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Object::Tuple(items))?;
                }
                b']' => self.push(Object::List(Vec::new()))?,
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(&items)?;
                }
                b'}' => self.push(Object::Dict(Vec::new()))?,
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                b'q' => {
                    let key = self.number(1)?;
                    self.memoize(key)?;
                }
                b'r' => {
                    let key = self.number(4)?;
                    self.memoize(key)?;
                }
                b'h' => {
                    let key = self.number(1)?;
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.number(4)?;
                    self.recall(key)?;
                }
                b'c' => self.global(at)?,
                b'Q' => self.persistent()?,
                b'R' => self.call()?,
                b'b' => self.build()?,
                found => {
                    return Err(WeightError::PickleOpcode { file: self.file.to_path_buf(), offset: at as u64, found });
                }
            }
        }
        let result = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() || self.at != self.bytes.len() {
            return Err(self.error("the pickle goes on after its result"));
        }
        Ok(result)
    }

    fn append(&mut self, items: &[Id]) -> Result<(), WeightError> {
        let top = self.top()?;
        match self.objects.get_mut(top as usize) {
            Some(Object::List(list)) => list.extend(items),
            _ => return Err(self.error("appends to something that is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), WeightError> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.error("a dict's last key has no value"));
        };
        let top = self.top()?;
        match self.objects.get_mut(top as usize) {
            Some(Object::Dict(dict)) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.error("sets an item of something that is no dict")),
        }
        Ok(())
    }

    fn global(&mut self, at: usize) -> Result<(), WeightError> {
        let (module, name) = (self.line()?, self.line()?);
        let global = Global::find(module, name).ok_or_else(|| WeightError::PickleGlobal {
            file: self.file.to_path_buf(),
            offset: at as u64,
            global: shown(&format!("{module}.{name}")),
        })?;
        self.push(Object::Global(global))
    }

    /// A storage: `("storage", class, key, device, length)`.
    fn persistent(&mut self) -> Result<(), WeightError> {
        let id = self.pop()?;
        let Object::Tuple(items) = self.object(id) else {
            return Err(self.error("a persistent id is no tuple"));
        };
        let items: Vec<_> = items.iter().map(|&id| self.object(id)).collect();
        let storage = match items[..] {
            [
                Object::Str("storage"),
                Object::Global(Global::Storage(element)),
                Object::Str(key),
                Object::Str(_),
                Object::Int(length),
            ] => u64::try_from(*length).ok().map(|length| Storage { key, element: *element, length }),
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.error("a persistent id describes no storage"))?;
        self.push(Object::Storage(Box::new(storage)))
    }

    fn call(&mut self) -> Result<(), WeightError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Object::Global(function) = *self.object(function) else {
            return Err(self.error(format!("calls {}", self.object(function).kind())));
        };
        let Object::Tuple(arguments) = self.object(arguments) else {
            return Err(self.error("calls a function with something that is no tuple"));
        };
        match (function, &arguments[..]) {
            (Global::OrderedDict, []) => self.push(Object::Dict(Vec::new())),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) if (6..=7).contains(&arguments.len()) => {
                let view = self.view(storage, offset, shape, strides)?;
                self.push(Object::Tensor(Box::new(view)))
            }
            (Global::RebuildParameter, &[tensor, _, _]) if matches!(self.object(tensor), Object::Tensor(_)) => {
                self.push_id(tensor)
            }
            (function, arguments) => {
                Err(self
                    .error(format!("calls {function:?} with {} arguments, which it does not take", arguments.len())))
            }
        }
    }

    fn view(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<View<'a>, WeightError> {
        let Object::Storage(storage) = self.object(storage) else {
            return Err(self.error("a tensor is made of something that is no storage"));
        };
        let shape = self.sizes(shape, "shape")?;
        let strides = self.sizes(strides, "strides")?;
        if shape.len() != strides.len() {
            return Err(self.error(format!("a tensor has {} dimensions and {} strides", shape.len(), strides.len())));
        }
        Ok(View { storage: **storage, offset: self.size(offset, "offset")?, shape, strides })
    }

    fn sizes(&self, id: Id, what: &str) -> Result<Vec<u64>, WeightError> {
        match self.object(id) {
            Object::Tuple(items) if items.len() <= MAX_DIMENSIONS => {
                items.iter().map(|&id| self.size(id, what)).collect()
            }
            Object::Tuple(items) => {
                let found = items.len();
                Err(self.error(format!("a tensor's {what} has {found} entries; at most {MAX_DIMENSIONS} are read")))
            }
            other => Err(self.error(format!("a tensor's {what} is {}, not a tuple", other.kind()))),
        }
    }

    fn size(&self, id: Id, what: &str) -> Result<u64, WeightError> {
        match self.object(id) {
            Object::Int(value) => {
                u64::try_from(*value).map_err(|_| self.error(format!("a tensor's {what} is {value}")))
            }
            other => Err(self.error(format!("a tensor's {what} holds {}, not an integer", other.kind()))),
        }
    }

    /// Gives an object its attributes. Those of a dict (`_metadata` of a state dict: the versions of
    /// its modules) say nothing about the tensors.
    fn build(&mut self) -> Result<(), WeightError> {
        let state = self.pop()?;
        match (self.object(self.top()?), self.object(state)) {
            (Object::Dict(_), Object::Dict(_)) => Ok(()),
            (object, _) => Err(self.error(format!("sets attributes of {}", object.kind()))),
        }
    }

    fn into_tensors(mut self, result: Id) -> Result<Vec<(&'a str, View<'a>)>, WeightError> {
        let items = match std::mem::replace(&mut self.objects[result as usize], Object::Dict(Vec::new())) {
            Object::Dict(items) => items,
            other => return Err(self.error(format!("the file holds {}; a dict of tensors is read", other.kind()))),
        };
        if items.len() as u64 > MAX_TENSORS {
            let (file, found) = (self.file.to_path_buf(), items.len() as u64);
            return Err(WeightError::Count { file, what: "tensor", found, limit: MAX_TENSORS });
        }
        let mut tensors = Vec::with_capacity(items.len());
        for (key, value) in items {
            let Object::Str(name) = *self.object(key) else {
                return Err(self.error(format!("a tensor's name is {}, not a string", self.object(key).kind())));
            };
            match self.object(value) {
                // Tied weights are one object under two names.
                Object::Tensor(view) => tensors.push((name, View::clone(view))),
                other => {
                    let (name, kind) = (shown(name), other.kind());
                    let problem =
                        format!("`{name}` is {kind}, not a tensor; a flat dict is read, as model.state_dict() gives");
                    return Err(self.error(problem));
                }
            }
        }
        Ok(tensors)
    }
}

/// Text of the file as a message may show it.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}
