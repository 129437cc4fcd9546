//! A socket whose reader must not stand still.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// A stream that fails when a write waited for its reader for too long. Reading has its own deadlines elsewhere.
#[derive(Debug)]
pub(super) struct Patience<T> {
    stream: T,
    limit: Duration,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<T> Patience<T> {
    pub(super) fn new(stream: T, limit: Duration) -> Self {
        Self { stream, limit, deadline: None }
    }

    /// The outcome of a write, unless it has waited for too long.
    fn bounded<O>(&mut self, outcome: Poll<io::Result<O>>, context: &mut Context<'_>) -> Poll<io::Result<O>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patience<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patience<T> {
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

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What one look at a write of four bytes comes to.
    async fn write<T: AsyncWrite + Unpin>(stream: &mut Patience<T>) -> Poll<io::Result<usize>> {
        poll_fn(|context| Poll::Ready(Pin::new(&mut *stream).poll_write(context, &[0; 4]))).await
    }

    #[tokio::test]
    async fn a_slow_reader_keeps_its_connection_each_write_that_goes_through_ends_the_wait() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut stream = Patience::new(near, Duration::from_secs(3600));
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
        let mut stream = Patience::new(near, Duration::from_millis(5));
        let stuck = tokio::time::timeout(Duration::from_secs(60), stream.write_all(&[0; 16])).await;
        assert_eq!(stuck.expect("an end of the wait").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
