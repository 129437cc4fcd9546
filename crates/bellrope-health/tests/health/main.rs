//! The health server over real TCP, in front of a real server.

mod exposition;
mod hostile;
mod pages;
#[path = "../../../bellrope/tests/support/mod.rs"]
mod support;
mod truth;
mod web;
