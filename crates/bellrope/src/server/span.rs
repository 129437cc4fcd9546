//! A span for every call, while somebody listens at `debug`. Nobody: one look at the level a call, and no clock.

use std::time::Instant;

use bellrope_proto::metadata::Metadata;
use tracing::{Span, field::Empty, level_filters::LevelFilter};

use super::core::Core;

/// One call as a trace shows it: message type, connection, outcome and duration.
#[derive(Debug)]
pub(crate) struct CallSpan {
    span: Span,
    /// Absent while nobody listens.
    began: Option<Instant>,
}

impl CallSpan {
    /// Whether somebody may listen.
    #[inline(always)]
    pub(crate) fn is_heard() -> bool {
        LevelFilter::current() >= LevelFilter::DEBUG
    }

    #[inline(always)]
    pub(crate) fn new(core: &Core, message_type: u16, connection: u64, metadata: Option<&Metadata>) -> Self {
        if !Self::is_heard() {
            return Self { span: Span::none(), began: None };
        }
        Self::heard(core, message_type, connection, metadata)
    }

    /// Where somebody may listen.
    #[cold]
    #[inline(never)]
    fn heard(core: &Core, message_type: u16, connection: u64, metadata: Option<&Metadata>) -> Self {
        // The fields are looked at only if somebody listens.
        let span = tracing::debug_span!(
            "call",
            message_type = &*core.registry.name(message_type),
            connection,
            session = metadata.and_then(Metadata::session_text),
            caller = metadata.and_then(Metadata::caller_text),
            outcome = Empty,
            duration_us = Empty
        );
        if let (Some(adopt), Some(trace)) = (core.adopt_trace, metadata.and_then(Metadata::trace_context)) {
            adopt(&span, trace);
        }
        let began = (!span.is_disabled()).then(Instant::now);
        Self { span, began }
    }

    /// For the handler's own events to stand in.
    #[inline]
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Notes how the call ended.
    #[inline(always)]
    pub(crate) fn ended(&self, outcome: &'static str) {
        if let Some(began) = self.began {
            self.note(began, outcome);
        }
    }

    #[cold]
    fn note(&self, began: Instant, outcome: &'static str) {
        self.span.record("outcome", outcome);
        self.span.record("duration_us", u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}
