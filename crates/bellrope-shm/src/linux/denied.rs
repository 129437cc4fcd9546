//! System calls that a sandbox denies.

use std::io;

use rustix::io::Errno;

/// What the kernel says of this system call. One that a filter denies is named: "not permitted" alone says nothing of what to let
/// through, and no other cause makes these calls fail so.
pub(super) fn named(call: &'static str) -> impl Fn(Errno) -> io::Error {
    move |errno| {
        let error = io::Error::from(errno);
        match errno {
            Errno::PERM | Errno::NOSYS => {
                io::Error::new(error.kind(), format!("{call}, which a sandbox must let through: {error}"))
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 68.
    #[test]
    fn what_is_denied_is_named_and_anything_else_stays_what_it_is() {
        let denied = named("eventfd2")(Errno::NOSYS);
        assert_eq!(denied.kind(), io::ErrorKind::Unsupported);
        assert!(denied.to_string().starts_with("eventfd2, which a sandbox must let through: "), "{denied}");
        assert_eq!(named("eventfd2")(Errno::MFILE).raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    }
}
