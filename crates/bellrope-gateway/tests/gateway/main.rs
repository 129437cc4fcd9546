//! The gateway from outside: providers of every wire format against a server that may do anything, the handlers behind a
//! server, and the servers of others.
//!
//! What looks at its whole process is a program of its own: `pressure`. The corpus of the fuzz targets is another.

mod api_document;
mod departures;
mod exact;
mod fake;
mod formats;
mod guards;
mod handlers;
mod incoming;
mod independent;
mod last_words;
mod local;
mod outgoing;
mod pass;
mod protocol;
mod proxies;
mod real_model;
mod refusals;
mod reported;
mod resumable;
mod retries;
mod script;
mod secrecy;
mod setup;
mod thoughts;
mod tls;
mod tool_cases;
mod tools;
mod waits;

/// Makes a test of every function for each wire format: `departures::responses::fin_without_a_terminator_is_truncated`.
macro_rules! for_each_format {
    ($(async fn $name:ident($format:ident: Format) $body:block)*) => {
        $(async fn $name($format: $crate::script::Format) $body)*

        mod chat_completions {
            $(#[tokio::test] async fn $name() { super::$name($crate::script::Format::ChatCompletions).await })*
        }

        mod responses {
            $(#[tokio::test] async fn $name() { super::$name($crate::script::Format::Responses).await })*
        }

        mod messages {
            $(#[tokio::test] async fn $name() { super::$name($crate::script::Format::Messages).await })*
        }
    };
}
pub(crate) use for_each_format;
