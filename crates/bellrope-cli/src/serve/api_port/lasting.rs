//! Work that lasts as long as the body of its answer.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bellrope::status::Working;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::body::AnswerBody;

/// A body, and the work that ends when it has been sent or its reader is gone.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) body: AnswerBody,
    /// Held until then.
    pub(super) _working: Working,
}

impl Body for Lasting {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
