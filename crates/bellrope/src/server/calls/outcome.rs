//! How the end of a call is counted and logged.

use bellrope_proto::{Violation, connection::Failure, frame::ErrorCode};

use crate::{
    server::{core::Core, worker::session::Session},
    status::Shard,
};

/// Counts how a call ended, and logs it by blame.
#[inline]
pub(crate) fn note(core: &Core, counters: &Shard, session: &Session, message_type: u16, failed: Option<&Failure>) {
    counters.count(message_type, failed.map(|failure| failure.code));
    if let Some(failure) = failed {
        log(core, session, message_type, failure);
    }
}

/// Refuses a call that was taken.
#[cold]
#[inline(never)]
pub(crate) fn refuse(
    core: &Core,
    counters: &Shard,
    session: &mut Session,
    id: u64,
    message_type: u16,
    failure: Failure,
) -> Result<(), Violation> {
    note(core, counters, session, message_type, Some(&failure));
    session.connection.fail(id, failure)
}

#[cold]
fn log(core: &Core, session: &Session, message_type: u16, failure: &Failure) {
    if !core.may_log(session.peer) {
        return;
    }
    let name = core.registry.name(message_type);
    let name = &*name;
    let (connection, pid) = (session.serial, session.peer.pid);
    let text = failure.bounded_text().escape_debug().to_string();
    match failure.code {
        ErrorCode::Handler | ErrorCode::HandlerPanic | ErrorCode::DeadlineExceeded => {
            tracing::error!(connection, pid, message_type = name, outcome = failure.code.name(), "{text}");
        }
        _ => tracing::warn!(connection, pid, message_type = name, outcome = failure.code.name(), "{text}"),
    }
}
