//! What a server needs of the system before it serves: threads, a runtime, shared memory. Whatever is missing is an error
//! in words.

use std::{io, thread::JoinHandle};

#[cfg(feature = "tokio")]
use std::time::Duration;

#[cfg(feature = "tokio")]
use bellrope_shm::proc;
use bellrope_shm::{SharedMemory, process, socket::Socket, wait::Poller};

use super::error::BindError;

/// Polls of tasks between two looks at what workers have begun or woken, and between two at sockets and timers. Of a busy
/// connection a few tasks are always ready, and others are not to wait for many polls of these.
#[cfg(feature = "tokio")]
const POLLS_PER_LOOK: (u32, u32) = (2, 16);

#[cfg(feature = "tokio")]
pub(super) fn build_runtime(async_threads: usize) -> Result<tokio::runtime::Runtime, BindError> {
    // Calls of async handlers would wait for ever for threads that cannot wait themselves.
    Poller::check_runtime_waits().map_err(starting)?;
    // tokio panics where the system has no thread for it. That is found out before, and said as an error.
    let threads = || proc::entries(std::process::id(), "task");
    let before = threads();
    drop(spawn("bellrope-async", || {})?.join());
    // Its place is free a moment after it has ended.
    for _ in 0..100 {
        match (&before, threads()) {
            (Ok(before), Ok(now)) if now > *before => std::thread::sleep(Duration::from_millis(1)),
            _ => break,
        }
    }
    let build = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(async_threads)
            .thread_name("bellrope-async")
            .global_queue_interval(POLLS_PER_LOOK.0)
            .event_interval(POLLS_PER_LOOK.1)
            .enable_all();
        if let Some(bytes) = stack_bytes() {
            builder.thread_stack_size(bytes);
        }
        builder.build()
    };
    let built = std::panic::catch_unwind(build);
    built.unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into())).map_err(no_thread)
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BindError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = match stack_bytes() {
        Some(bytes) => thread.stack_size(bytes),
        None => thread,
    };
    thread.spawn(run).map_err(no_thread)
}

/// What the stack of a thread that runs handlers takes, if not what is usual. Arguments nest up to 128 deep, and without
/// optimization a level of a large type takes many times its size. Nothing is said where the environment says it.
fn stack_bytes() -> Option<usize> {
    (cfg!(debug_assertions) && std::env::var_os("RUST_MIN_STACK").is_none()).then_some(8 << 20)
}

/// Keeps this thread on a CPU. One that was taken away since the settings were checked is none that it needs.
pub(super) fn place(cpu: Option<usize>) {
    if let Some((cpu, error)) = cpu.and_then(|cpu| Some((cpu, process::pin_to(cpu).err()?))) {
        tracing::warn!(cpu, "a worker cannot be kept on its CPU (worker_cpus): {error}");
    }
}

/// What a thread takes beside its stack: another one for signals, a guard, and what it allocates as it begins.
const BESIDE_A_STACK: usize = 64 * 1024;
/// What the server takes beside the stacks of its threads before it has a connection, their own pieces of the heap among it.
const BESIDE_THREADS: usize = 4 << 20;
/// What the system gives a thread for its stack where nobody says anything.
const USUAL_STACK: usize = 2 << 20;

/// Finds out whether so many threads have memory, before the first is there: one that takes the last of it may be begun, and
/// ends the process with whatever it asks for next.
pub(super) fn try_threads(threads: usize) -> Result<(), BindError> {
    let each = stack_bytes().unwrap_or(USUAL_STACK) + BESIDE_A_STACK;
    let bytes = threads.saturating_mul(each).saturating_add(BESIDE_THREADS);
    let what = || format!("starting the server's {threads} threads, which take up to {bytes} bytes of memory");
    process::check_memory(bytes).map_err(|source| BindError::Io { what: what(), source })
}

pub(super) fn starting(source: io::Error) -> BindError {
    BindError::Io { what: "starting the server's threads".to_owned(), source }
}

/// One of them was not to be had.
fn no_thread(source: io::Error) -> BindError {
    BindError::Io { what: format!("starting the server's threads{}", process::in_the_way_of_a_thread(&source)), source }
}

/// Finds out whether connections can be accepted: clients of a server that never hears of them would wait in vain.
pub(super) fn try_accepting() -> Result<(), BindError> {
    let what = || "taking connections from the socket".to_owned();
    let checked = Socket::check_accepting().and_then(|()| Socket::check_talking()).and_then(|()| Poller::check_waits());
    checked.map_err(|source| BindError::Io { what: what(), source })
}

/// Makes memory as every connection has it, and lets go of it. A server that could serve nobody does not start; one that has
/// no memory to share says so, and serves over the socket alone.
pub(super) fn try_memory(len: usize, stream_transport: bool) -> Result<(), BindError> {
    let made = SharedMemory::create(len).and_then(|(memory, handle)| {
        drop(memory);
        SharedMemory::open(&handle, len).map_err(io::Error::other)
    });
    let Err(source) = made else { return Ok(()) };
    let what = format!(
        "making the shared memory that every connection needs, {len} bytes (memfd_create, fcntl and mmap, which a sandbox \
         must allow)"
    );
    if !stream_transport {
        return Err(BindError::Io { what, source });
    }
    tracing::warn!("{what} failed: {source}; connections go over the socket alone, which is slower (stream_transport)");
    let own = SharedMemory::private(len).map(drop);
    own.map_err(|source| BindError::Io { what: format!("making the memory of a connection, {len} bytes"), source })
}
