//! Why connections end, and what is logged of it.

use std::{io, sync::atomic::Ordering::Relaxed};

use bellrope_proto::{Violation, connection::Failure, frame::ErrorCode};

use super::session::Session;
use crate::{
    pump::PumpFault,
    server::{accept::connection_limits::Giver, core::Core},
    status::Metrics,
};

/// Why a connection ended.
pub(crate) enum Closing {
    HungUp,
    Violation(Violation),
    /// It left something half done for too long.
    Stalled,
    /// It held more than its share of the buffer budget and kept us waiting, while others waited for that.
    LetOthersWait {
        /// Bytes it held.
        held: u64,
        /// Its share, or that of its process or user.
        share: u64,
    },
    /// Its process had more than its share of all connections, and another needed one.
    GivesWay(Giver),
    Io(io::Error),
}

impl From<Violation> for Closing {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<PumpFault> for Closing {
    fn from(fault: PumpFault) -> Self {
        match fault {
            PumpFault::HungUp => Self::HungUp,
            PumpFault::Violation(violation) => Self::Violation(violation),
            PumpFault::Io(error) => Self::Io(error),
        }
    }
}

impl Closing {
    /// What its client is told of it, if there is room for that: why, and what to do. Few enough words for the room that a
    /// ring keeps for credit. `None`: the client has gone by itself, or all of them go.
    pub(crate) fn told(&self, core: &Core) -> Option<Failure> {
        let (code, text) = match self {
            Self::HungUp => return None,
            Self::Violation(violation) => (
                ErrorCode::InvalidRequest,
                format!(
                    "this client broke the protocol ({}): {violation}; that is a bug of the client, or something else wrote \
                     to its connection",
                    violation.name()
                ),
            ),
            Self::Stalled => (
                ErrorCode::Exhausted,
                format!(
                    "for {} ms, the limit stall_timeout_ms, this client read nothing of what waited for it and finished \
                     nothing that it had begun; take answers and chunks as they come, or raise the limit",
                    core.live.stall_timeout().as_millis()
                ),
            ),
            Self::LetOthersWait { held, share } => (
                ErrorCode::Exhausted,
                format!(
                    "it held {held} of {} bytes (buffer_budget_bytes), its share was {share}, and it read or sent too \
                     little for {} ms (budget_grace_ms) while others waited; take answers and chunks sooner, send large \
                     requests without pauses, or raise the budget",
                    core.budget.limit(),
                    core.live.budget_grace().as_millis()
                ),
            ),
            Self::GivesWay(Giver { held, limit, name, .. }) => (
                ErrorCode::Rejected,
                format!(
                    "its process had {held} of {limit} connections ({name}), another had fewer and needed one, and this one \
                     was idle for longest or had the fewest calls; connect again, hold fewer connections, or raise the limit"
                ),
            ),
            Self::Io(error) => (ErrorCode::Rejected, format!("the server's system failed it ({error}); connect again")),
        };
        Some(Failure::new(code, text))
    }

    /// Counts the end of a connection.
    pub(crate) fn count(&self, metrics: &Metrics) {
        metrics.closed.fetch_add(1, Relaxed);
        match self {
            Self::Violation(_) => metrics.violations.fetch_add(1, Relaxed),
            Self::Stalled | Self::LetOthersWait { .. } => metrics.stalled.fetch_add(1, Relaxed),
            Self::Io(_) => metrics.broken.fetch_add(1, Relaxed),
            Self::HungUp | Self::GivesWay(_) => 0,
        };
    }

    /// Logs the end of a connection, and charges a break of the protocol to its process.
    pub(crate) fn log(&self, core: &Core, session: &Session) {
        let (connection, pid) = (session.serial, session.peer.pid);
        match self {
            Self::HungUp => tracing::debug!(connection, pid, client = session.name, "client disconnected"),
            Self::Violation(violation) => {
                core.charge(session.peer);
                let reason = violation.name();
                if core.may_log(session.peer) {
                    tracing::warn!(connection, pid, client = session.name, reason, "connection closed: {violation}");
                }
            }
            Self::Stalled => {
                let limit = core.live.stall_timeout().as_millis();
                if core.may_log(session.peer) {
                    tracing::warn!(
                        connection,
                        pid,
                        client = session.name,
                        "connection closed: nothing was read or finished for {limit} ms, the limit stall_timeout_ms"
                    );
                }
            }
            Self::LetOthersWait { held, share } => {
                if core.may_log(session.peer) {
                    tracing::warn!(
                        connection,
                        pid,
                        uid = session.peer.uid,
                        client = session.name,
                        held,
                        share,
                        "connection closed: it held {held} of {} bytes (buffer_budget_bytes), its share was {share}, and \
                         it read or sent too little for {} ms (budget_grace_ms) while others waited for room",
                        core.budget.limit(),
                        core.live.budget_grace().as_millis()
                    );
                }
            }
            Self::GivesWay(Giver { held, limit, name, .. }) => {
                if core.may_log(session.peer) {
                    tracing::warn!(
                        connection,
                        pid,
                        uid = session.peer.uid,
                        client = session.name,
                        held,
                        "connection closed: its process had {held} of {limit} connections ({name}), and another with fewer \
                         needed one"
                    );
                }
            }
            Self::Io(error) => {
                if core.may_log(session.peer) {
                    tracing::error!(connection, pid, client = session.name, %error, "connection closed by a system error");
                }
            }
        }
    }
}
