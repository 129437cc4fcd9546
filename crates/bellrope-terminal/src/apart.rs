//! Work that leaves no trace in the heap.

use std::{panic, thread};

use bellrope_shm::process;

/// Does this on a thread of its own, and waits for it.
///
/// It is for what allocates much once and frees it again, such as reading a command line. The C library keeps some small
/// pieces of each size at hand for each thread. Those of the main thread stay for as long as the process lives, and hold the
/// pages that they lie on; those of a thread that ends are given back with it.
///
/// ```
/// assert_eq!(bellrope_terminal::apart(|| "a".repeat(3)), "aaa");
/// ```
///
/// # Panics
/// If `work` does.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if process::check_memory(LEAST_MEMORY).is_err() {
        return work();
    }
    let mut work = Some(work);
    let done = thread::scope(|scope| {
        let run = || work.take().map(|work| work());
        let started = thread::Builder::new().name("bellrope-apart".to_owned()).spawn_scoped(scope, run);
        started.ok()?.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    });
    // Where no thread is to be had it is done here.
    done.unwrap_or_else(|| work.take().expect("it was not begun")())
}

/// Memory that there has to be for a thread: several times what its stack takes, so that something is left for what it does. With a
/// limit on address space it gets that in large pieces.
const LEAST_MEMORY: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_handed_on() {
        let panicked = panic::catch_unwind(|| apart(|| -> u32 { panic!("as it is") })).unwrap_err();
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"as it is"));
    }
}
