//! How much of a request and its answer is changed where tool and provider speak the same format, and whose key is sent.

use serde::{Deserialize, Serialize};

/// What becomes of a request whose format the provider speaks itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassThrough {
    /// It goes through as it came, but for the model's name and the key; so does the answer.
    Exact,
    /// Both are put in order on their way. Fields that are not known here are carried on.
    Repaired,
    /// As `Repaired`, but such fields are left out.
    Off,
}

/// Whose key is sent to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credentials {
    /// The one that is set for the provider.
    #[default]
    Server,
    /// The one that the tool sent with its request.
    Client,
}
