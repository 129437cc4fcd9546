//! What a record means: its header, its kinds, and the codes an error carries.

use crate::{Violation, layout};

/// The extension of a cancel whose caller leaves, and may come back for what is kept for it. Only on connections that have
/// agreed to [`LEAVE`](crate::handshake::LEAVE).
pub const LEAVING: u64 = 1;

/// A header word as it came out of shared memory. Worth nothing until it has become a [`Header`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHeader(pub u64);

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Nothing more in this lap: go on at the start of the ring. The header word is all there is of it.
    Pad = 1,
    /// Client: a call, or the last part of one. The extension, if any, is its deadline on the server's clock, in
    /// microseconds.
    Request = 2,
    /// Client: the answer to this call is no longer wanted. The extension, if any, is [`LEAVING`].
    Cancel = 3,
    /// More credit for a stream that comes from the other side; the extension is the number of bytes.
    Credit = 4,
    /// Server: the answer to a call, or the last part of it.
    Response = 5,
    /// Server: the call failed; the message type field is the [`ErrorCode`], the payload its text, the extension, if
    /// any, its [detail](crate::Failure::detail).
    Error = 6,
    /// A chunk of a stream; the extension is its number, counted from 0.
    Chunk = 7,
    /// The stream is done; the extension is the number of chunks it had.
    End = 8,
    /// The next part of a request or response that is too large for one record; the extension is the size of the whole
    /// in bytes. The last part travels as the request or response itself.
    Fragment = 9,
    /// Server, over a socket only: it ends the connection; the extension is the number of requests that it took.
    Admitted = 10,
    /// Server: its message types have changed; the payload says [how](crate::table), the extension how many there are now.
    /// For clients that asked for it with [`TABLE`](crate::handshake::TABLE).
    Types = 12,
    /// Client: as a [request](Self::Request), whose payload begins with [metadata](crate::metadata). For servers that agreed
    /// to [`METADATA`](crate::handshake::METADATA).
    Described = 13,
}

impl Kind {
    /// Whether it is a call, or the last part of one.
    #[inline]
    #[must_use]
    pub fn is_request(self) -> bool {
        matches!(self, Self::Request | Self::Described)
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Pad,
            2 => Self::Request,
            3 => Self::Cancel,
            4 => Self::Credit,
            5 => Self::Response,
            6 => Self::Error,
            7 => Self::Chunk,
            8 => Self::End,
            9 => Self::Fragment,
            10 => Self::Admitted,
            12 => Self::Types,
            13 => Self::Described,
            _ => return None,
        })
    }
}

/// A checked header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes.
    pub len: u32,
    /// Message type of a request, code of an error, else 0.
    pub message_type: u16,
    /// What kind of record it is.
    pub kind: Kind,
    /// Whether an extension word follows the call id.
    pub extended: bool,
}

/// In the place of a call id: an [error](Kind::Error) of no call, by which a server says why it is about to close the
/// connection. No client of ours gives a call this id.
pub(crate) const WHOLE_CONNECTION: u64 = 0;

/// The one flag that every record may have: an extension word follows the call id.
pub(crate) const EXTENDED: u64 = 1 << 56;

/// The flag that only header words in the front of a compact ring have: the next record begins at the start of the front.
/// A pad with it leads to the front, one without it to the back. It is the ring's alone: no [`Header`] has it.
pub(crate) const RESTART: u64 = 2 << 56;

impl Header {
    /// The header word.
    #[inline]
    #[must_use]
    pub fn encode(self) -> u64 {
        u64::from(self.len)
            | u64::from(self.message_type) << 32
            | (self.kind as u64) << 48
            | u64::from(self.extended) << 56
    }

    /// The header word of a pad record.
    #[must_use]
    pub fn pad() -> u64 {
        Self { len: 0, message_type: 0, kind: Kind::Pad, extended: false }.encode()
    }

    /// Bytes the record takes in the ring.
    #[inline]
    #[must_use]
    pub fn record_size(self) -> u64 {
        record_size(u64::from(self.len), self.extended)
    }
}

/// Bytes that a record with `len` payload bytes takes in the ring.
#[inline]
#[must_use]
pub fn record_size(len: u64, extended: bool) -> u64 {
    layout::RECORD_HEAD + u64::from(extended) * layout::WORD + ((len + layout::WORD - 1) & !(layout::WORD - 1))
}

impl TryFrom<RawHeader> for Header {
    type Error = Violation;

    #[inline]
    fn try_from(raw: RawHeader) -> Result<Self, Violation> {
        let kind = Kind::from_bits((raw.0 >> 48) as u8).ok_or(Violation::Header(raw.0))?;
        let flags = raw.0 & !(EXTENDED - 1);
        if flags & !EXTENDED != 0 || kind == Kind::Pad && raw.0 != Self::pad() {
            return Err(Violation::Header(raw.0));
        }
        Ok(Self { len: raw.0 as u32, message_type: (raw.0 >> 32) as u16, kind, extended: flags == EXTENDED })
    }
}

/// Why a call failed, as it travels in an error record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The handler answered with an error of its own.
    Handler,
    /// The handler panicked; the connection goes on.
    HandlerPanic,
    /// No handler has this message type.
    UnknownMessageType,
    /// The message is larger than the limit.
    MessageTooLarge,
    /// The deadline passed before there was an answer.
    DeadlineExceeded,
    /// The caller no longer wants the answer.
    Cancelled,
    /// Refused for now: too much in flight, or the server is going away. The handler has not run.
    Rejected,
    /// The handler refused the request's contents: the caller's mistake.
    InvalidRequest,
    /// The handler has run, but the server's buffer budget had no room for its reply.
    Exhausted,
    /// Something behind the handler failed, which has a breaker of its own.
    Upstream,
    /// Whoever the handler forwards to has not run the call: it is safe to send it again.
    NotExecuted,
    /// Whoever the handler forwards to is lost and may have run the call, once.
    Unknown,
    /// A code of a newer version.
    Other(u16),
}

impl ErrorCode {
    /// The code as it travels.
    #[must_use]
    pub fn to_bits(self) -> u16 {
        match self {
            Self::Handler => 1,
            Self::HandlerPanic => 2,
            Self::UnknownMessageType => 3,
            Self::MessageTooLarge => 4,
            Self::DeadlineExceeded => 5,
            Self::Cancelled => 6,
            Self::Rejected => 7,
            Self::InvalidRequest => 8,
            Self::Exhausted => 9,
            Self::Upstream => 10,
            Self::NotExecuted => 11,
            Self::Unknown => 12,
            Self::Other(bits) => bits,
        }
    }

    /// The code that travels as `bits`.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        match bits {
            1 => Self::Handler,
            2 => Self::HandlerPanic,
            3 => Self::UnknownMessageType,
            4 => Self::MessageTooLarge,
            5 => Self::DeadlineExceeded,
            6 => Self::Cancelled,
            7 => Self::Rejected,
            8 => Self::InvalidRequest,
            9 => Self::Exhausted,
            10 => Self::Upstream,
            11 => Self::NotExecuted,
            12 => Self::Unknown,
            bits => Self::Other(bits),
        }
    }

    /// A short name for logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Handler => "handler_error",
            Self::HandlerPanic => "handler_panic",
            Self::UnknownMessageType => "unknown_message_type",
            Self::MessageTooLarge => "message_too_large",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::InvalidRequest => "invalid_request",
            Self::Exhausted => "exhausted",
            Self::Upstream => "upstream_error",
            Self::NotExecuted => "not_executed",
            Self::Unknown => "unknown",
            Self::Other(_) => "other",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Other(bits) => write!(f, "error code {bits}"),
            code => f.write_str(code.name()),
        }
    }
}

/// Why a call was refused before its handler ran, as it travels in the detail of a [`ErrorCode::Rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// As many calls are under way as the server allows, or its buffer budget is used up.
    Busy,
    /// The breaker of the message type is open.
    Breaker,
    /// The server is going away.
    Draining,
    /// A reason of a newer version, or none given.
    Other,
}

impl Rejection {
    /// The detail that carries this reason and, if known, the milliseconds after which to try again.
    #[must_use]
    pub fn to_detail(self, retry_after_ms: Option<u64>) -> u64 {
        let reason = match self {
            Self::Other => 0,
            Self::Busy => 1,
            Self::Breaker => 2,
            Self::Draining => 3,
        };
        reason | retry_after_ms.unwrap_or(0).min(u64::MAX >> 8) << 8
    }

    /// The reason and the milliseconds after which to try again, from a detail.
    #[must_use]
    pub fn from_detail(detail: u64) -> (Self, Option<u64>) {
        let reason = match detail & 0xFF {
            1 => Self::Busy,
            2 => Self::Breaker,
            3 => Self::Draining,
            _ => Self::Other,
        };
        (reason, Some(detail >> 8).filter(|after| *after > 0))
    }

    /// A short name for logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Breaker => "breaker",
            Self::Draining => "draining",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reserved_words_are_no_headers() {
        assert_eq!(Header::try_from(RawHeader(layout::EMPTY)), Err(Violation::Header(0)));
        assert_eq!(Header::try_from(RawHeader(layout::ASLEEP)), Err(Violation::Header(u64::MAX)));
    }

    // Fault 7.
    #[test]
    fn sizes_are_whole_words() {
        assert_eq!(record_size(0, false), 16);
        assert_eq!(record_size(1, false), 24);
        assert_eq!(record_size(8, true), 32);
        assert_eq!(record_size(u64::from(u32::MAX), true), (1 << 32) + 24);
    }

    #[test]
    fn every_error_and_every_reason_to_reject_has_a_name_of_its_own() {
        let codes: BTreeSet<_> = (1..=13).map(|bits| ErrorCode::from_bits(bits).name()).collect();
        assert_eq!((codes.len(), ErrorCode::from_bits(13).name()), (13, "other"));
        assert_eq!(ErrorCode::Exhausted.to_string(), "exhausted");
        assert_eq!(ErrorCode::Other(77).to_string(), "error code 77");
        let reasons: BTreeSet<_> = (0..=3).map(|reason| Rejection::from_detail(reason).0.name()).collect();
        assert_eq!(reasons.len(), 4);
    }

    proptest! {
        // Fault 7.
        #[test]
        fn a_word_is_refused_or_encodes_back_to_itself(word in any::<u64>(), kind in 0_u8..15) {
            let word = word & !(0xFF << 48) | u64::from(kind) << 48;
            if let Ok(header) = Header::try_from(RawHeader(word)) {
                prop_assert_eq!(header.encode(), word);
            }
        }

        #[test]
        fn every_header_survives_its_word(len: u32, message_type: u16, extended: bool, kind in prop::sample::select(vec![2_u8, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13])) {
            let header = Header { len, message_type, kind: Kind::from_bits(kind).unwrap(), extended };
            prop_assert_eq!(Header::try_from(RawHeader(header.encode())), Ok(header));
        }

        #[test]
        fn every_rejection_survives_its_detail(after in prop::option::of(1_u64..1 << 56)) {
            for reason in [Rejection::Busy, Rejection::Breaker, Rejection::Draining, Rejection::Other] {
                prop_assert_eq!(Rejection::from_detail(reason.to_detail(after)), (reason, after));
            }
        }

        #[test]
        fn every_error_code_survives_its_bits(bits: u16) {
            prop_assert_eq!(ErrorCode::from_bits(bits).to_bits(), bits);
        }
    }
}
