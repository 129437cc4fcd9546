//! The body of a request, field by field.

use serde_json::{Map, Value};

use super::said::unwritable;
use crate::error::ProviderError;

/// A JSON object to post.
#[derive(Debug, Default)]
pub(super) struct Body(Map<String, Value>);

impl Body {
    /// Sets a field.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Sets a field if there is a value for it.
    pub(super) fn set_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Sets a field to a list, unless the list is empty.
    pub(super) fn set_list<T>(&mut self, name: &str, list: &[T], json: impl Fn(&T) -> Value) {
        if !list.is_empty() {
            self.set(name, list.iter().map(json).collect::<Value>());
        }
    }

    /// The JSON text.
    pub(super) fn write(&self) -> Result<Vec<u8>, ProviderError> {
        serde_json::to_vec(&self.0).map_err(|error| unwritable(&error))
    }
}
