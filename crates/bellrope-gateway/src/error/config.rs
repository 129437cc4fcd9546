//! What can be wrong with settings.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a gateway or a provider cannot be set up from its settings.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting has a value that cannot be used.
    #[error("{key} {reason}")]
    Invalid {
        /// The setting: an environment variable or a key of the configuration file.
        key: Cow<'static, str>,
        /// What is wrong with it and what would be right.
        reason: Cow<'static, str>,
    },
    /// The default provider does not exist.
    #[error("gateway.provider is `{}`, and there is no such provider; known: {}", name.escape_debug(), known.join(", "))]
    UnknownProvider {
        /// The name that is set.
        name: String,
        /// The names that exist, sorted.
        known: Vec<String>,
    },
    /// A key file cannot be read.
    #[error("{key}: cannot read {path}: {source}")]
    KeyFile {
        /// The setting that names the file.
        key: Cow<'static, str>,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}
