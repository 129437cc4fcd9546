//! What the process of a peer has, whichever peer it is: a word to its parent, an end with it, and a runtime.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;

/// Tells whoever started this server that it can be called, and where.
pub(super) fn ready(address: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready {address}").and_then(|()| out.flush()).context("saying that the server is ready")
}

/// Ends this process when its standard input ends, which is when whoever started it is gone.
pub(super) fn end_with_parent() {
    std::thread::spawn(|| {
        wait_for_parent();
        std::process::exit(0);
    });
}

/// As [`end_with_parent`], for a server that has to clean up: a flag that is set then.
pub(super) fn parent_is_gone() -> Arc<AtomicBool> {
    let gone = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&gone);
    std::thread::spawn(move || {
        wait_for_parent();
        flag.store(true, Ordering::Relaxed);
    });
    gone
}

pub(super) fn wait_for_parent() {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|count| count > 0) {}
}

/// A runtime of one thread: with one process a core, more would only get in each other's way.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")
}
