//! The headers of requests to a provider.

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::providers::formats::ProviderKind;
use crate::secret::Secret;

/// The headers of every request; `None` if the key cannot stand in one.
pub(super) fn headers(kind: ProviderKind, key: Option<&Secret>) -> Option<HeaderMap> {
    let format = kind.format();
    let mut headers = HeaderMap::new();
    for (name, value) in format.headers() {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    if let Some(key) = key {
        let (name, before) = format.key_header();
        let mut value = HeaderValue::from_str(&format!("{before}{}", key.expose())).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(headers)
}

/// These headers, and those of the settings, which were checked.
pub(super) fn with_more(mut headers: HeaderMap, more: &BTreeMap<String, String>) -> HeaderMap {
    let more = more.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    });
    headers.extend(more);
    headers
}
