//! The offering side's memory of strangers, for a fuzzer.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::peers::{Came, Peers, Verdict};
use crate::frame::{Up, UpKind};

/// Takes what comes, and claims that no stranger makes it remember more than it may.
#[derive(Debug)]
pub(crate) struct OfferingSide {
    peers: Peers,
    now: Instant,
    /// The number by which a clock was asked last.
    asked: u64,
}

impl Default for OfferingSide {
    fn default() -> Self {
        Self { peers: Peers::default(), now: Instant::now(), asked: 0 }
    }
}

impl OfferingSide {
    pub(crate) fn take(&mut self, up: &Up<'_>, message: &[u8]) {
        let Self { peers, now, asked } = self;
        *now += Duration::from_millis(1);
        let came = Came { message: Bytes::copy_from_slice(message), signed: None };
        peers.heard(up.from, *now);
        match &up.what {
            UpKind::Call(head) if !peers.was_cancelled(up.from, up.call) => {
                let verdict = peers.judge(up.from, up.call, head.begin_by_us, &came, *now);
                match verdict {
                    Verdict::Begin(theirs) => {
                        assert!(theirs <= head.begin_by_us, "a call begins that is late");
                        peers.note_unsigned(up.from, up.call, *now);
                        assert!(!peers.note_unsigned(up.from, up.call, *now), "a call begins again");
                    }
                    Verdict::Wait(Some(nonce)) => *asked = nonce,
                    Verdict::Wait(None) | Verdict::TooLate | Verdict::Full => {}
                }
            }
            UpKind::Beat { clock_us, nonce } => {
                // An odd one stands for the number that nobody guesses.
                let nonce = if *nonce % 2 == 1 { *asked } else { *nonce };
                let (_, again) = peers.beat(up.from, *clock_us, nonce, None, *now);
                *asked = again.unwrap_or(*asked);
            }
            UpKind::Cancel | UpKind::Left => peers.cancel(up.from, up.call),
            _ => {}
        }
        if up.call % 64 == 63 {
            *now += Duration::from_secs(up.call % 256);
            peers.sweep(*now);
        }
        peers.check();
    }
}
