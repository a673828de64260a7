//! `/v1/models`.

use serde::Serialize;

/// A model of the list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelObject {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// When its files last changed, in seconds since 1970.
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    /// Bytes of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// `available` (on disk), `loading` or `loaded`.
    pub(crate) status: &'static str,
    /// Tokens of context per request; known once loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context_length: Option<usize>,
    /// Architecture, e.g. `llama`; known once loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) architecture: Option<String>,
}

/// The list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<ModelObject>,
}

impl From<Vec<ModelObject>> for ModelList {
    fn from(data: Vec<ModelObject>) -> Self {
        Self { object: "list", data }
    }
}
