//! What the circuit breaker is built from. Its model test compiles the breaker over a model checker's own instead.

pub(crate) use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};
