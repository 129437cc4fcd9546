//! What async clients of a service are made of.

use std::{
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use super::{
    blocking::{Read, WriteItem, write_item},
    caller::{Buffers, Compared, EncodedRequest, Looked, MOST_LOOKS, PATIENCE, ServiceCaller, look, question},
};
use crate::{
    client::{AsyncChunkSink, AsyncClient, AsyncStream, CallError, CallOptions, MessageType},
    service::{
        error::ServiceError,
        method::{Failed, Method, Outcome, Output, read},
        schema::SCHEMA,
    },
};

/// Makes a call with what the server that is there now offers. No function, because a future that borrows what a closure is
/// given could not change threads.
macro_rules! with_type {
    ($caller:ident, $method:ty, |$found:ident| $call:expr) => {{
        let mut tries = 0;
        loop {
            let called = match $caller.find::<$method>().await {
                Ok($found) => $call.await,
                Err(error) => Err(error),
            };
            match called {
                Err(error) if $caller.is_outdated::<$method>(&error, &mut tries) => {}
                other => break other,
            }
        }
    }};
}

impl ServiceCaller<AsyncClient> {
    async fn find<M: Method>(&self) -> Result<MessageType, CallError> {
        if let Some(known) = self.known::<M>() {
            return Ok(known);
        }
        let mut looks = 0;
        loop {
            let (found, mark) = self.client.marked_type(M::NAME).await?;
            let Compared::Differs(ours) = self.compare::<M>(mark)? else { return Ok(self.keep::<M>(found)) };
            let theirs = self.client.call_within(SCHEMA, &question::<M>(), PATIENCE).await;
            match look::<M>(&ours, theirs, &mut looks) {
                // Who said so may be another server than the one that was found.
                Looked::Same if self.client.marked_type(M::NAME).await? == (found, mark) => {
                    return Ok(self.keep::<M>(found));
                }
                Looked::Same | Looked::Again if looks < MOST_LOOKS => {}
                Looked::Same | Looked::Again => return Err(CallError::NotExecuted),
                Looked::Refused(error) => return Err(error),
            }
        }
    }

    /// Calls a method that answers once.
    pub async fn call<M: Method>(&self, request: EncodedRequest, options: &CallOptions) -> Outcome<M> {
        let EncodedRequest(mut buffers) = request;
        let Buffers { request: bytes, reply, .. } = &mut buffers;
        let called = with_type!(self, M, |found| self.client.call_into_with(found, bytes, reply, options));
        let outcome = called.map_err(ServiceError::Call).and_then(|()| read::<M>(reply));
        buffers.give_back();
        outcome
    }

    /// Calls a method that answers with a stream.
    pub async fn stream<M: Method + 'static>(
        &self,
        request: EncodedRequest,
        options: &CallOptions,
    ) -> Result<ItemsOf<M>, Failed<M>> {
        let bytes = request.0.request;
        let chunks = with_type!(self, M, |found| self.client.stream_with(found, &bytes, options))?;
        Ok(AsyncItems { chunks: Some(chunks), read: read::<M> })
    }

    /// Calls a method that takes a stream and answers once.
    pub async fn upload<M: Method + 'static>(
        &self,
        request: EncodedRequest,
        options: &CallOptions,
    ) -> Result<UploadOf<M>, Failed<M>> {
        let bytes = request.0.request;
        let upload = with_type!(self, M, |found| self.client.client_stream_with(found, &bytes, options))?;
        Ok(AsyncUpload { upload, bytes, write: write_item::<M>, read: read::<M>, item: PhantomData })
    }

    /// Calls a method that has streams both ways.
    pub async fn duplex<M: Method + 'static>(
        &self,
        request: EncodedRequest,
        options: &CallOptions,
    ) -> Result<HalvesOf<M>, Failed<M>> {
        let bytes = request.0.request;
        let (sink, chunks) = with_type!(self, M, |found| self.client.duplex_with(found, &bytes, options))?;
        let outgoing = AsyncOutgoing { sink, bytes, write: write_item::<M>, item: PhantomData };
        Ok((outgoing, AsyncItems { chunks: Some(chunks), read: read::<M> }))
    }
}

type ItemsOf<M> = AsyncItems<<<M as Method>::Output as Output>::Value, <<M as Method>::Output as Output>::Error>;

type HalvesOf<M> = (AsyncOutgoing<<M as Method>::Sent>, ItemsOf<M>);

type UploadOf<M> = AsyncUpload<
    <M as Method>::Sent,
    <<M as Method>::Output as Output>::Value,
    <<M as Method>::Output as Output>::Error,
>;

/// The items of a stream, as they come; also a [`Stream`]. An error of the application's is an item, and the stream may go
/// on; after one of the call it has ended. Dropping it before its end cancels the call.
pub struct AsyncItems<T, E> {
    /// `None` after an item that could not be read.
    chunks: Option<AsyncStream>,
    read: Read<T, E>,
}

impl<T, E> AsyncItems<T, E> {
    /// The next item. `None` after the last one, or after an error of the call. [Example](AsyncOutgoing).
    pub async fn next(&mut self) -> Option<Result<T, ServiceError<E>>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, ServiceError<E>>>> {
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(None) };
        let item = match ready!(Pin::new(chunks).poll_next(context)) {
            None => return Poll::Ready(None),
            Some(Ok(chunk)) => (self.read)(&chunk),
            Some(Err(error)) => Err(error.into()),
        };
        if matches!(item, Err(ServiceError::Call(_))) {
            self.chunks = None;
        }
        Poll::Ready(Some(item))
    }
}

impl<T, E> Stream for AsyncItems<T, E> {
    type Item = Result<T, ServiceError<E>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

impl<T, E> fmt::Debug for AsyncItems<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncItems").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

/// What a method is sent that has streams both ways. Dropping it, or [`finish`](Self::finish), ends the stream.
///
/// ```
/// use bellrope::{Server, client::CallOptions, service::{Incoming, Stream, produce}};
///
/// #[bellrope::service]
/// trait Sums {
///     async fn sum(&self, numbers: Incoming<u32>) -> u32;
///     fn sums(&self, numbers: Incoming<u32>) -> impl Stream<Item = u32>;
/// }
/// # struct Host;
/// # #[bellrope::service]
/// # impl Sums for Host {
/// #     async fn sum(&self, mut numbers: Incoming<u32>) -> u32 {
/// #         let mut sum = 0;
/// #         while let Some(number) = numbers.next().await { sum += number; }
/// #         sum
/// #     }
/// #     fn sums(&self, mut numbers: Incoming<u32>) -> impl Stream<Item = u32> {
/// #         produce(async move |sender| {
/// #             let mut sum = 0;
/// #             while let Some(number) = numbers.next().await { sum += number; sender.send(sum).await; }
/// #         })
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("sums.sock");
/// # let server = Server::builder().service(Host).bind(&path)?;
/// let client = SumsClient::connect(&path).await?;
/// let (mut numbers, mut sums) = client.sums().await?;
/// numbers.send(&1).await?;
/// numbers.send(&2).await?;
/// assert_eq!((sums.next().await.unwrap()?, sums.next().await.unwrap()?), (1, 3));
/// numbers.finish();
/// assert!(sums.next().await.is_none());
///
/// let mut numbers = client.sum().await?; // one answer
/// numbers.send(&1).await?;
/// assert_eq!(numbers.finish().await?, 1);
/// let soon = CallOptions::new().timeout(std::time::Duration::from_secs(5));
/// assert_eq!(client.sum().await?.finish_with(&soon).await?, 0);
/// # Ok(())
/// # }
/// ```
pub struct AsyncOutgoing<I> {
    sink: AsyncChunkSink,
    bytes: Vec<u8>,
    write: WriteItem<I>,
    item: PhantomData<fn(I)>,
}

impl<I> AsyncOutgoing<I> {
    /// Sends an item. Waits while the method is slow. Answers `false` if the call has ended, so that no more is wanted.
    /// [Example](Self).
    ///
    /// # Errors
    /// As [`AsyncChunkSink::send`]; [`CallError::Unwritable`].
    pub async fn send(&mut self, item: &I) -> Result<bool, CallError> {
        (self.write)(item, &mut self.bytes)?;
        self.sink.send(&self.bytes).await
    }

    /// Ends the stream. [Example](Self).
    pub fn finish(self) {}
}

impl<I> fmt::Debug for AsyncOutgoing<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncOutgoing").field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// A call that takes a stream of items and is answered once. Dropping it before [`finish`](Self::finish) has answered cancels it.
pub struct AsyncUpload<I, T, E> {
    upload: crate::client::AsyncUpload,
    bytes: Vec<u8>,
    write: WriteItem<I>,
    read: Read<T, E>,
    item: PhantomData<fn(I)>,
}

impl<I, T, E> AsyncUpload<I, T, E> {
    /// Sends an item: see [`AsyncOutgoing::send`]. [Example](AsyncOutgoing).
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, item: &I) -> Result<bool, ServiceError<E>> {
        (self.write)(item, &mut self.bytes)?;
        Ok(self.upload.send(&self.bytes).await?)
    }

    /// Ends the stream and waits for the answer. [Example](AsyncOutgoing).
    ///
    /// # Errors
    /// How the call ended.
    pub async fn finish(self) -> Result<T, ServiceError<E>> {
        self.finish_with(&CallOptions::new()).await
    }

    /// As [`Self::finish`], with a time-out for the answer, or a cancel token. [Example](AsyncOutgoing).
    ///
    /// # Errors
    /// As there.
    pub async fn finish_with(self, options: &CallOptions) -> Result<T, ServiceError<E>> {
        (self.read)(&self.upload.finish_with(options).await?)
    }
}

impl<I, T, E> fmt::Debug for AsyncUpload<I, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncUpload").field("upload", &self.upload).finish_non_exhaustive()
    }
}
