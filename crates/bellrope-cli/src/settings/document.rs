//! The configuration file.

use std::path::PathBuf;

use bellrope::server::ServerConfig;
use bellrope_books::{BookSettings, Budget, Price};
use bellrope_gateway::GatewaySettings;
use serde::{Deserialize, Serialize};

use crate::logging::LogFormat;

/// The configuration file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Document {
    pub(super) socket: Option<PathBuf>,
    pub(super) health: Option<String>,
    pub(super) api_port: Option<u16>,
    pub(super) api_threads: u32,
    pub(super) drain_s: u32,
    pub(super) log: String,
    pub(super) log_format: LogFormat,
    pub(super) log_file: Option<PathBuf>,
    pub(super) log_file_bytes: u32,
    pub(super) otlp_endpoint: Option<String>,
    pub(super) server: ServerConfig,
    pub(super) gateway: GatewaySettings,
    #[cfg(feature = "fleet")]
    pub(super) fleet: bellrope_fleet::FleetSettings,
    pub(super) books: BookSettings,
    pub(super) prices: Vec<Price>,
    pub(super) budgets: Vec<Budget>,
    pub(super) tokens: TokenSettings,
}

impl Document {
    /// The books with their tables, and the path of the ledger as it stands here.
    pub(super) fn books(&self) -> BookSettings {
        BookSettings { prices: self.prices.clone(), budgets: self.budgets.clone(), ..self.books.clone() }
    }
}

/// The tokens of tools that ask over HTTP.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TokenSettings {
    /// The file that has them. Default: `tokens.json` beside the ledger's default place.
    pub(crate) path: Option<PathBuf>,
    /// Whether the API port asks for one. Default: no, but one that is wrong is refused.
    pub(crate) required: bool,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            socket: None,
            health: None,
            api_port: None,
            api_threads: 0,
            drain_s: 5,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            log_file: None,
            log_file_bytes: 16 * 1024 * 1024,
            otlp_endpoint: None,
            server: ServerConfig::default(),
            gateway: GatewaySettings::default(),
            #[cfg(feature = "fleet")]
            fleet: bellrope_fleet::FleetSettings::default(),
            books: BookSettings::default(),
            prices: Vec::new(),
            budgets: Vec::new(),
            tokens: TokenSettings::default(),
        }
    }
}
