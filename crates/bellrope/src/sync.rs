//! What the circuit breaker and the workers' inboxes are built from. Their model tests compile them over a model checker's
//! own instead.

pub(crate) use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
