//! An answer's body that says when it has gone out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Frame, SizeHint};

use super::places::{Doing, Place};

/// The body of an answer. Its connection is idle when this is dropped, which is when all of it was written.
pub(super) struct Tracked<B> {
    body: Pin<Box<B>>,
    place: Arc<Place>,
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, place: Arc<Place>) -> Self {
        place.is_now(Doing::Answering);
        Self { body: Box::pin(body), place }
    }
}

impl<B: Body> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

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

impl<B> Drop for Tracked<B> {
    fn drop(&mut self) {
        self.place.is_now(Doing::Idle);
    }
}
