//! The circuit breaker, told the time.

mod breaker;
mod breaker_window;
mod callers;
