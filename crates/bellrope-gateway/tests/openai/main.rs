//! The OpenAI-compatible provider against a server that may do anything.

mod fake;
mod refusals;
mod streams;
