//! What the circuit breaker and the workers' inboxes are built from. Their model tests compile them over a model checker's
//! own instead.

#[cfg(feature = "server")]
pub(crate) use std::sync::atomic::AtomicBool;
pub(crate) use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};
