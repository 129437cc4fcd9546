//! Starting a program that lives on by itself: it has nothing of its starter but what it is given.

use std::{
    ffi::{c_int, c_uint},
    io,
    os::{fd::BorrowedFd, unix::process::CommandExt},
    process::{Child, Command},
};

use super::proc;

/// The first descriptor that is not one of the three standard ones.
const FIRST: c_int = 3;
/// Descriptors that may be opened by other threads between the count of them and the fork.
const SLACK: c_int = 64;

/// Starts a program in a session of its own: no signal to the starter's group, and no end of its terminal, reaches it. Of
/// the starter's descriptors it has only what the command says of the standard three; without that it shares those.
///
/// # Errors
/// The program cannot be started.
#[expect(unsafe_code, reason = "leaving the session and closing descriptors is possible between fork and exec alone")]
pub fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    // A guess if the system does not say.
    let end = proc::highest_descriptor().unwrap_or(4_096).saturating_add(SLACK);
    // SAFETY: the closure runs in the new process between fork and exec, where other threads may have left any lock taken.
    // It makes system calls alone: it allocates nothing, takes no lock and cannot panic, as it handles integers and
    // compares results. Errors are made of their number, without memory.
    unsafe { command.pre_exec(move || detach(end)) };
    command.spawn()
}

/// What happens between fork and exec.
fn detach(end: c_int) -> io::Result<()> {
    // A process that was just forked leads no group, so this cannot fail for that.
    rustix::process::setsid()?;
    close_on_exec(end);
    Ok(())
}

/// Has every descriptor from 3 on closed when the program begins. What the standard library has open for this start is
/// among them already.
#[expect(unsafe_code, reason = "a system call without a wrapper")]
fn close_on_exec(end: c_int) {
    // SAFETY: it marks descriptors and closes none, so whoever owns them notices nothing until the program begins.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST as c_uint, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked != 0 {
        // A kernel before 5.11, or a sandbox that does not know the call.
        mark_each(end);
    }
}

#[expect(unsafe_code, reason = "descriptors that others own")]
fn mark_each(end: c_int) {
    for fd in FIRST..end {
        // SAFETY: the borrow ends with this call, which fails if nothing is open under the number.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read as _,
        os::fd::{AsRawFd as _, OwnedFd},
        process::Stdio,
    };

    use super::*;

    /// Lets whatever we start have a descriptor, as shells do with those that a script opens.
    fn inheritable(fd: &OwnedFd) {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    }

    fn said_by(script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn_detached(&mut command).unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        said
    }

    #[test]
    fn a_detached_program_leads_a_session_of_its_own() {
        let stat = said_by("cat /proc/$$/stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let (id, group, session) = (stat.split(' ').next().unwrap(), fields[2], fields[3]);
        assert_eq!((id, id), (group, session), "{stat}");
    }

    #[test]
    fn a_detached_program_has_none_of_its_starters_descriptors() {
        let ours: OwnedFd = File::open("/dev/null").unwrap().into();
        inheritable(&ours);
        let number = ours.as_raw_fd();
        assert_eq!(said_by(&format!("[ -e /proc/$$/fd/{number} ] && echo there || echo not there")), "not there\n");
        // It is still open here, and would be inherited by whatever is started in another way.
        assert_eq!(rustix::io::fcntl_getfd(&ours).unwrap(), rustix::io::FdFlags::empty());
    }

    #[test]
    fn descriptors_are_marked_one_by_one_where_the_kernel_cannot_mark_them_all() {
        // In a process of its own: marking is seen by whatever else this process starts.
        if std::env::var_os("BELLROPE_MARK_HERE").is_none() {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let test = "linux::detach::tests::descriptors_are_marked_one_by_one_where_the_kernel_cannot_mark_them_all";
            let ended = command.args([test, "--exact"]).env("BELLROPE_MARK_HERE", "1").output().unwrap();
            return assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
        }
        let ours: OwnedFd = File::open("/dev/null").unwrap().into();
        inheritable(&ours);
        assert!(proc::highest_descriptor().unwrap() >= ours.as_raw_fd());
        mark_each(proc::highest_descriptor().unwrap() + 1);
        assert_eq!(rustix::io::fcntl_getfd(&ours).unwrap(), rustix::io::FdFlags::CLOEXEC);
    }

    #[test]
    fn a_program_that_is_not_there_cannot_be_started() {
        let error = spawn_detached(&mut Command::new("/nowhere/at all")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
