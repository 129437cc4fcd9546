//! The health server over real TCP, in front of a real server.

mod exposition;
mod hostile;
mod pages;
mod pipeline;
mod truth;
mod web;

use bellrope_testkit::support;
