//! The settings of a fleet.

use std::ffi::OsString;

use clap::Args;

use super::layers::Layers;

/// A program that was built without fleets knows these to say so.
const HIDDEN: bool = !cfg!(feature = "fleet");

/// How a server joins a fleet, in short.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct FleetArgs {
    /// Join the fleet of these NATS servers, as in nats://HOST:4222,nats://OTHER:4222 [default: none].
    #[arg(long, hide = HIDDEN, value_name = "URLS")]
    fleet: Option<String>,
    /// Message types that others of the fleet may call here, as in 'ai.*' [default: none].
    #[arg(long, hide = HIDDEN, value_name = "NAMES")]
    offer: Option<String>,
    /// Message types of others that are served here, as in 'ai.*' [default: none].
    #[arg(long, hide = HIDDEN, value_name = "NAMES")]
    import: Option<String>,
}

impl FleetArgs {
    /// Those of a program that only asks these servers.
    #[cfg(feature = "fleet")]
    pub(crate) fn at(fleet: Option<String>) -> Self {
        Self { fleet, ..Self::default() }
    }

    pub(super) fn add_to(&self, layers: &mut Layers) {
        for (name, key, value) in [
            ("--fleet", ["fleet", "servers"], &self.fleet),
            ("--offer", ["fleet", "offer"], &self.offer),
            ("--import", ["fleet", "import"], &self.import),
        ] {
            if let Some(value) = value {
                layers.flag(name, &key, &OsString::from(value));
            }
        }
    }
}
