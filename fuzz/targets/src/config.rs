//! The configuration file, as far as libraries know it.

use bellrope::server::ServerConfig;
use bellrope_gateway::{Gateway, GatewaySettings};
use serde::{Deserialize, Serialize};

/// Providers of an input that are set up: each has an HTTP client of its own.
const MOST: usize = 2;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    server: ServerConfig,
    gateway: GatewaySettings,
}

/// What is understood is the same when it is written and read again; each setting is in its range or refused in words that
/// a terminal can show.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(document) = toml::from_str::<Document>(text) else { return };
    let written = serde_json::to_value(&document).expect("every setting can be written");
    let again: Document = serde_json::from_value(written.clone()).expect("what was written can be read");
    assert_eq!(serde_json::to_value(&again).expect("every setting can be written"), written);
    if let Err(error) = document.server.check() {
        told(&error);
    }
    let Document { gateway, .. } = document;
    // Files are the operator's own business.
    let reads_files = gateway.providers.values().chain(&gateway.openai).any(|provider| provider.api_key_file.is_some());
    if reads_files || gateway.providers.len() > MOST {
        return;
    }
    let default = gateway.provider.clone();
    match Gateway::from_settings_and_vars(gateway, |_| None) {
        Ok(gateway) => assert!(gateway.names().contains(&default), "{default} answers, and is not there"),
        Err(error) => told(&error),
    }
}

fn told(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}
