//! What a pickle builds: plain values and views of storages, in one flat table.

use super::globals::{ElementType, Global};

/// The place of an object in its table.
pub(super) type Id = u32;

/// An object of a pickle. Objects hold others by their ids, so that one which holds itself, or nests
/// without end, costs no recursion.
#[derive(Debug)]
pub(super) enum Object<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<Storage<'a>>),
    Tensor(Box<View<'a>>),
}

/// A storage: a run of elements in an archive entry of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    /// Name of the entry below `data/`.
    pub(super) key: &'a str,
    pub(super) element: ElementType,
    /// Number of elements.
    pub(super) length: u64,
}

/// A tensor: which elements of a storage it is made of.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) storage: Storage<'a>,
    /// Index of its first element.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// Elements from one index of a dimension to the next.
    pub(super) strides: Vec<u64>,
}

impl Object<'_> {
    /// What the object is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Object::None => "None",
            Object::Bool => "a boolean",
            Object::Int(_) => "an integer",
            Object::Float => "a float",
            Object::Str(_) => "a string",
            Object::Tuple(_) => "a tuple",
            Object::List(_) => "a list",
            Object::Dict(_) => "a dict",
            Object::Global(_) => "a class or function",
            Object::Storage(_) => "a storage",
            Object::Tensor(_) => "a tensor",
        }
    }
}
