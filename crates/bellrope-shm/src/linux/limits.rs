//! The limits that the system sets this process, and what there is to say where one of them is in the way.

use std::{
    ffi::c_int,
    io::{self, ErrorKind},
    mem::MaybeUninit,
};

use super::denied::named;

/// A limit, soft and hard, as the kernel has it. Asked here, and not by `rustix`, which takes it for granted that the kernel answers: a
/// sandbox may deny it.
#[expect(unsafe_code, reason = "a system call whose only wrapper cannot fail")]
fn limit(resource: c_int) -> io::Result<libc::rlimit> {
    let mut limit = MaybeUninit::uninit();
    // SAFETY: the pointer is good for one `rlimit`, which the call writes whole where it answers 0.
    match unsafe { libc::getrlimit(resource as _, limit.as_mut_ptr()) } {
        // SAFETY: it answered 0.
        0 => Ok(unsafe { limit.assume_init() }),
        _ => Err(reason()),
    }
}

/// Why the last call failed.
fn reason() -> io::Error {
    let error = io::Error::last_os_error();
    rustix::io::Errno::from_io_error(&error).map_or(error, named("prlimit64"))
}

/// Raises the soft limit on open descriptors to the hard one and returns what it is now. `None`: unlimited, or not known.
#[expect(unsafe_code, reason = "as for asking")]
pub fn raise_descriptor_limit() -> Option<u64> {
    let mut limit = limit(libc::RLIMIT_NOFILE as c_int).ok()?;
    let soft = limit.rlim_cur;
    if soft != limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is that of a whole `rlimit`, which is only read.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            limit.rlim_cur = soft;
        }
    }
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// The limit on the size of files, in bytes. `None`: there is none, or it is not known.
pub(super) fn on_files() -> Option<u64> {
    let limit = limit(libc::RLIMIT_FSIZE as c_int).ok()?.rlim_cur;
    (limit != libc::RLIM_INFINITY).then_some(limit)
}

/// The limits on memory that this process has, in words. `None`: it has none.
fn on_memory() -> Option<String> {
    let limits = [
        (libc::RLIMIT_DATA as c_int, "data", "RLIMIT_DATA, ulimit -d"),
        (libc::RLIMIT_AS as c_int, "address space", "RLIMIT_AS, ulimit -v"),
    ];
    let mut said = Vec::new();
    for (resource, of, name) in limits {
        match limit(resource) {
            Ok(limit) if limit.rlim_cur == libc::RLIM_INFINITY => {}
            Ok(limit) => said.push(format!("its limit on {of} is {} bytes ({name})", limit.rlim_cur)),
            Err(error) => return Some(format!("its limits cannot be asked for ({error})")),
        }
    }
    (!said.is_empty()).then(|| said.join(", "))
}

/// Whether this process may have so many more bytes of memory, which are given back at once and never touched. Where little is
/// left it is of no use to find that out later: a thread whose stack was the last of it, and any small allocation after that, end
/// the process.
///
/// # Errors
/// It may not; the error names the limit.
pub fn check_memory(bytes: usize) -> io::Result<()> {
    // In pieces: the C library keeps as much memory for later as the largest piece that it was given back.
    const PIECE: usize = 1 << 20;
    let mut pieces = vec![Vec::<u8>::new(); bytes.div_ceil(PIECE)];
    let found = pieces.iter_mut().try_for_each(|piece| piece.try_reserve_exact(PIECE));
    std::hint::black_box(&pieces);
    found.map_err(|_| {
        drop(pieces);
        let why = on_memory().unwrap_or_else(|| "no limit of its own is set".to_owned());
        let text = format!("the system gives this process no {bytes} more bytes of memory; {why}");
        io::Error::new(ErrorKind::OutOfMemory, text)
    })
}

/// Where this is why a thread was not started: what may be in the way, in words. Empty for other errors.
#[must_use]
pub fn in_the_way_of_a_thread(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => {}
        ErrorKind::PermissionDenied => return " (clone3, which a sandbox must let through)".to_owned(),
        _ => return String::new(),
    }
    let memory = on_memory().map_or_else(String::new, |said| format!("; or memory: {said}"));
    format!(" (the limit on processes of this user or container: ulimit -u, TasksMax=, pids.max{memory})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_one() {
        let first = raise_descriptor_limit();
        assert_eq!(raise_descriptor_limit(), first);
    }

    // Fault 68.
    #[test]
    fn only_where_a_thread_is_refused_for_want_of_something_the_limits_are_named() {
        let said = in_the_way_of_a_thread(&ErrorKind::WouldBlock.into());
        assert!(said.starts_with(" (the limit on processes of this user or container: "), "{said}");
        assert!(in_the_way_of_a_thread(&ErrorKind::PermissionDenied.into()).contains("clone3"));
        assert_eq!(in_the_way_of_a_thread(&ErrorKind::InvalidInput.into()), "");
    }
}
