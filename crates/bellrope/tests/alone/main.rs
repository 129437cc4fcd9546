//! Tests that look at their whole process: its memory, its descriptors, its allocations, its CPU time, its log. Each runs
//! in a process of its own.

mod allocations;
mod blame;
mod crowds;
mod idle;
mod parts;
#[cfg(feature = "service")]
mod unclear;
