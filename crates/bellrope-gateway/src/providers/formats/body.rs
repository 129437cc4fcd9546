//! The body of a request, field by field.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::said::unwritable;
use crate::error::ProviderError;

/// A JSON object to post.
#[derive(Debug, Default)]
pub(super) struct Body {
    fields: Map<String, Value>,
    /// Those that are written already.
    written: Vec<(&'static str, Box<RawValue>)>,
}

impl Body {
    /// Sets a field.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
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

    /// Sets a field to what need not become a tree of values for that.
    pub(super) fn set_json(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), ProviderError> {
        self.written.push((name, to_raw_value(value).map_err(|error| unwritable(&error))?));
        Ok(())
    }

    /// The JSON text.
    pub(super) fn write(&self) -> Result<Vec<u8>, ProviderError> {
        serde_json::to_vec(self).map_err(|error| unwritable(&error))
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len() + self.written.len()))?;
        self.fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        self.written.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}
