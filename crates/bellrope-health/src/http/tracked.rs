//! An answer's body that says when nothing more comes of it.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::{
    answering::Content,
    places::{Doing, Place},
};

/// The body of an answer. It is dropped when hyper has all of it, and its connection is idle when the socket has.
pub(super) struct Tracked {
    body: Content,
    place: Arc<Place>,
}

impl Tracked {
    pub(super) fn new(body: Content, place: Arc<Place>) -> Self {
        place.is_now(Doing::Answering);
        Self { body, place }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.body.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.place.has_said();
    }
}
