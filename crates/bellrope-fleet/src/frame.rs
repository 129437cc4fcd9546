//! What travels inside a NATS message: a version, a head, and what the head describes.
//!
//! Every byte may come from a stranger who may publish on our subjects, so nothing is allocated by a length in a head.

use serde::{Deserialize, Serialize};

/// The first byte of every message.
const VERSION: u8 = 1;

/// The bit of a call's number that says that its importing server has signed the call: without the signature it is a copy.
pub(crate) const SIGNED: u64 = 1 << 63;

/// From an importing server to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Up<'a> {
    /// The number of the importing server's link.
    pub(crate) from: u64,
    /// Its number of the call; 0 for what concerns none. With [`SIGNED`], if it is.
    pub(crate) call: u64,
    #[serde(borrow)]
    pub(crate) what: UpKind<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UpKind<'a> {
    /// A call, with the first part of its request.
    #[serde(borrow)]
    Call(Head<'a>),
    /// A further part of the request, or of a chunk.
    Data(ItemPart),
    /// No further chunks.
    Finish,
    /// The importing server has taken so many bytes of the answer.
    Credit(u32),
    /// Nobody wants the answer.
    Cancel,
    /// The importing server lives, and this is its clock. `nonce` is that of the question, 0 without one.
    Beat { clock_us: u64, nonce: u64 },
    /// The caller has left: it may come back for what is kept for it. An instance of an older version does not know this, and is
    /// told that nobody wants the answer when it says next what it holds.
    Left,
}

/// What a call is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head<'a> {
    /// The message type.
    pub(crate) name: &'a str,
    /// Its style: 0 unary, 1 server stream, 2 client stream, 3 duplex. 4 is no call: it is answered with the schema of the
    /// type. An instance of an older version refuses that as a style that it does not have.
    pub(crate) style: u8,
    /// What its payloads are, as the importing server's table says.
    pub(crate) codec: u8,
    pub(crate) schema: u64,
    /// When the call may begin at the latest, on the clock of the importing server, in microseconds.
    pub(crate) begin_by_us: u64,
    /// When its answer has to be there, on the same clock.
    pub(crate) deadline_us: Option<u64>,
    /// Who asks, as far as that is known: for logs and for what counts by caller.
    pub(crate) caller: &'a str,
    /// The session it belongs to.
    pub(crate) session: &'a str,
    /// A W3C trace context.
    pub(crate) trace: &'a str,
    /// Of the request as a whole.
    pub(crate) size: u64,
}

/// One part of an item: of a request, an answer or a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ItemPart {
    /// Which message of its direction it is, from 0.
    pub(crate) seq: u64,
    /// Bytes of the whole item.
    pub(crate) size: u64,
}

/// From an instance to an importing server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Down<'a> {
    /// The number of the instance.
    pub(crate) from: u64,
    /// The importing server's number of the call; 0 for what concerns none.
    pub(crate) call: u64,
    #[serde(borrow)]
    pub(crate) what: DownKind<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DownKind<'a> {
    /// This instance has the call.
    Taken,
    /// A part of the answer or of a chunk; `end` if nothing follows.
    Data { part: ItemPart, end: bool },
    /// The stream is whole, with so many chunks.
    End { items: u64 },
    /// The call failed.
    Failed { code: u16, detail: u64, text: &'a str },
    /// The call was not run and will not be.
    Refused { code: u16, detail: u64, text: &'a str },
    /// The instance has taken so many bytes of the caller's.
    Credit(u32),
    /// What does your clock say?
    Ask { nonce: u64 },
    /// The instance lives and has these calls: numbers of 8 bytes follow.
    Holding,
    /// To everybody: so many calls from the fleet run at the instance.
    Load { running: u64 },
    /// To everybody: the instance takes no further calls.
    Leaving,
    /// Some chunks of the answer, whole and small, each behind its length in four bytes. `seq` as in [`ItemPart`].
    Chunks { seq: u64 },
}

/// What came is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Foreign;

/// Writes a message.
pub(crate) fn write(head: &impl Serialize, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(payload.len() + 64);
    message.push(VERSION);
    // Numbers and short texts into memory: that cannot fail.
    message = postcard::to_extend(head, message).unwrap_or_default();
    message.extend_from_slice(payload);
    message
}

/// Reads a message into its head and what follows that.
pub(crate) fn read<'a, H: Deserialize<'a>>(message: &'a [u8]) -> Result<(H, &'a [u8]), Foreign> {
    match message {
        [VERSION, rest @ ..] => postcard::take_from_bytes(rest).map_err(|_| Foreign),
        _ => Err(Foreign),
    }
}

/// Most bytes of a text that says how a call ended.
const MOST_TEXT: usize = 1024;

/// A text as far as it may travel.
pub(crate) fn bounded(text: &str) -> &str {
    start_of(text, MOST_TEXT)
}

/// At most so many bytes of a text.
pub(crate) fn start_of(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The numbers behind a [`DownKind::Holding`].
pub(crate) fn numbers(payload: &[u8]) -> impl Iterator<Item = u64> + '_ {
    payload.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head<'static> {
        Head {
            name: "ai.chat",
            style: 1,
            codec: 2,
            schema: u64::MAX,
            begin_by_us: 7,
            deadline_us: Some(9),
            caller: "editor",
            session: "window 3",
            trace: "",
            size: 5,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let up = Up { from: 3, call: 4, what: UpKind::Call(head()) };
        let message = write(&up, b"hello");
        assert_eq!(read::<Up<'_>>(&message), Ok((up, &b"hello"[..])));
        let down = Down { from: 3, call: 4, what: DownKind::Failed { code: 7, detail: 1, text: "no" } };
        assert_eq!(read::<Down<'_>>(&write(&down, b"")), Ok((down, &b""[..])));
        assert_eq!(numbers(&[1, 0, 0, 0, 0, 0, 0, 0, 9, 9]).collect::<Vec<_>>(), [1]);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in [&bytes[..], &[&[VERSION][..], &bytes].concat()] {
                let _ = read::<Up<'_>>(message);
                let _ = read::<Down<'_>>(message);
            }
        }

        #[test]
        fn a_cut_message_is_foreign_or_has_less_behind_its_head(cut in 0_usize..60) {
            let message = write(&Up { from: 3, call: 4, what: UpKind::Call(head()) }, b"hello");
            let cut = cut.min(message.len());
            if let Ok((read, rest)) = read::<Up<'_>>(&message[..cut]) {
                prop_assert_eq!(read.what, UpKind::Call(head()));
                prop_assert!(rest.len() <= 5);
            }
        }
    }
}
