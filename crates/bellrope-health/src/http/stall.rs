//! A socket whose peer must keep reading.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::places::Place;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// A stream on which a write fails once it has waited for the peer for too long. Reads have their own deadlines elsewhere.
#[derive(Debug)]
pub(super) struct StallBound<T> {
    stream: T,
    /// `None`: a write may wait for ever.
    limit: Option<Duration>,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Where that is told.
    place: Option<Arc<Place>>,
}

impl<T> StallBound<T> {
    pub(super) fn new(stream: T, limit: Option<Duration>, place: Option<Arc<Place>>) -> Self {
        Self { stream, limit, deadline: None, place }
    }

    /// The outcome of a write, unless it has waited for too long.
    fn bounded<O>(&mut self, outcome: Poll<io::Result<O>>, context: &mut Context<'_>) -> Poll<io::Result<O>> {
        let (false, Some(limit)) = (outcome.is_ready(), self.limit) else {
            if self.deadline.take().is_some() {
                self.tell(false);
            }
            return outcome;
        };
        if self.deadline.is_none() {
            self.tell(true);
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn tell(&self, unread: bool) {
        if let Some(place) = &self.place {
            place.is_unread(unread);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for StallBound<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, into);
        if let Some(place) = &self.place {
            place.came(into.filled().len() - before);
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for StallBound<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        // It is asked for when all was written.
        if let (Poll::Ready(Ok(())), Some(place)) = (&outcome, &self.place) {
            place.has_gone_out();
        }
        self.bounded(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(outcome, context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What one look at a write of four bytes comes to.
    async fn write<T: AsyncWrite + Unpin>(stream: &mut StallBound<T>) -> Poll<io::Result<usize>> {
        poll_fn(|context| Poll::Ready(Pin::new(&mut *stream).poll_write(context, &[0; 4]))).await
    }

    #[tokio::test]
    async fn a_slow_reader_keeps_its_connection_each_write_that_goes_through_ends_the_wait() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut stream = StallBound::new(near, Some(Duration::from_secs(3600)), None);
        for _ in 0..3 {
            assert!(matches!(write(&mut stream).await, Poll::Ready(Ok(4))));
            assert!(stream.deadline.is_none(), "nothing waits");
            assert!(write(&mut stream).await.is_pending());
            let deadline = stream.deadline.as_ref().unwrap().deadline();
            assert!(write(&mut stream).await.is_pending());
            assert_eq!(stream.deadline.as_ref().unwrap().deadline(), deadline, "another look is no new wait");
            far.read_exact(&mut [0; 4]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_loses_its_connection() {
        let (near, _far) = tokio::io::duplex(4);
        let mut stream = StallBound::new(near, Some(Duration::from_millis(5)), None);
        let stuck = tokio::time::timeout(Duration::from_secs(60), stream.write_all(&[0; 16])).await;
        assert_eq!(stuck.expect("an end of the wait").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
