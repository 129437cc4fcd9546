//! The wire formats. A format is one folder here and one row of the table in this file.
//!
//! Nothing else lists the formats: settings, errors and the HTTP provider look them up in the table. To add one, write
//! its folder with a type that implements `WireFormat` and add its row. The address of its inventor's server is a
//! preset (`config/preset.rs`), as of any other server that is known by name.
//!
//! | in each folder | what it holds |
//! |---|---|
//! | `request.rs` | the body of a request, written from what the editor asks |
//! | `translate.rs` | a [`Translate`] that reads the events of the answer |
//!
//! These serve the way to a provider. The way from and to a tool is [`inbound`](crate::inbound)'s, which needs no HTTP client.
//! No format knows a socket or a clock. What an answer is, whatever its format, is in `answer.rs`, `calls.rs` (calls of tools),
//! `parts.rs` (content), `reason.rs` (why it stopped), `details.rs` (what it took), `listing.rs` (models), `reasoning_details.rs` (what
//! goes back with thoughts) and `fault.rs` (errors).
//! Without the feature `http` only their names are here, so that settings that name
//! one are understood and refused in words.

#[cfg(feature = "http")]
pub mod chat_completions;
#[cfg(feature = "http")]
pub mod messages;
#[cfg(feature = "http")]
pub mod responses;

#[cfg(feature = "http")]
mod address;
#[cfg(feature = "http")]
mod answer;
#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
mod calls;
#[cfg(feature = "http")]
mod details;
#[cfg(feature = "http")]
mod extra;
#[cfg(feature = "http")]
mod fault;
#[cfg(feature = "http")]
mod heard;
#[cfg(feature = "http")]
mod history;
#[cfg(feature = "http")]
mod ids;
#[cfg(feature = "http")]
mod listing;
#[cfg(all(test, feature = "http"))]
mod odd_answers;
#[cfg(feature = "http")]
mod options;
#[cfg(feature = "http")]
mod parts;
#[cfg(feature = "http")]
mod reader;
#[cfg(feature = "http")]
mod reason;
#[cfg(feature = "http")]
mod reasoning_details;
#[cfg(feature = "http")]
mod said;
#[cfg(feature = "http")]
mod tools;
#[cfg(feature = "http")]
mod translate;
#[cfg(feature = "http")]
mod wire_format;

use serde::{Deserialize, Serialize};

#[cfg(feature = "http")]
pub(crate) use extra::push_extra;
#[cfg(feature = "http")]
pub(crate) use fault::{MAX_ERROR_BODY, StatedFault, is_retryable};
#[cfg(feature = "http")]
pub use heard::Heard;
#[cfg(feature = "http")]
pub(crate) use listing::models_in;
#[cfg(feature = "http")]
pub(crate) use reader::reported;
#[cfg(feature = "http")]
pub use translate::{Progress, Translate};
#[cfg(feature = "http")]
pub(crate) use wire_format::{Post, ProviderServer, WireFormat};

/// Declares [`ProviderKind`] and [`TABLE`], of which each row is documentation, kind, name in the settings, and format.
macro_rules! formats {
    ($($(#[$doc:meta])+ $kind:ident, $name:literal, $format:expr;)+) => {
        /// The wire format that a provider speaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum ProviderKind {
            $($(#[$doc])+ #[serde(rename = $name)] $kind,)+
        }

        const ROWS: usize = [$($name),+].len();

        /// All formats, in the order of [`ProviderKind`].
        static TABLE: [Row; ROWS] = [$(Row { name: $name, #[cfg(feature = "http")] format: &$format }),+];

        #[cfg(test)]
        impl ProviderKind {
            pub(crate) const ALL: [Self; ROWS] = [$(Self::$kind),+];
        }
    };
}

formats! {
    /// OpenAI's chat completions, which most servers speak: llama.cpp, Ollama, vLLM, OpenRouter, xAI, Groq.
    OpenAi, "openai", chat_completions::ChatCompletions;
    /// OpenAI's responses.
    OpenAiResponses, "openai-responses", responses::Responses;
    /// Anthropic's messages.
    Anthropic, "anthropic", messages::Messages;
    /// Chat completions at Azure, with its own header and addresses.
    Azure, "azure", chat_completions::Azure;
}

/// A row of [`TABLE`].
struct Row {
    name: &'static str,
    #[cfg(feature = "http")]
    format: &'static dyn WireFormat,
}

impl ProviderKind {
    /// The kind's name, as it stands in the configuration.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// How a provider of this kind is asked.
    #[cfg(feature = "http")]
    pub(crate) fn format(self) -> &'static dyn WireFormat {
        self.row().format
    }

    /// The names of all kinds, as a sentence lists them: `a, b or c`.
    pub(crate) fn names() -> String {
        let [rest @ .., last] = TABLE.each_ref().map(|row| row.name);
        format!("{} or {last}", rest.join(", "))
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_own_row_by_the_name_that_settings_have_for_it() {
        for kind in ProviderKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(serde_json::from_value::<ProviderKind>(kind.name().into()).unwrap(), kind);
        }
    }

    #[test]
    fn the_names_are_listed_as_in_a_sentence() {
        assert_eq!(ProviderKind::names(), "openai, openai-responses, anthropic or azure");
    }
}
