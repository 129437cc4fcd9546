//! What blocking clients of a service are made of.

use std::{fmt, marker::PhantomData};

use super::{
    byte_client::ByteClient,
    caller::{Buffers, Compared, EncodedRequest, Looked, MOST_LOOKS, PATIENCE, ServiceCaller, look, question},
};
use crate::{
    client::{CallError, CallOptions, ChunkSink, ChunkStream, Client, MessageType},
    service::{
        error::ServiceError,
        method::{Failed, Method, Outcome, Output, read, write},
        schema::SCHEMA,
    },
};

impl<C: ByteClient> ServiceCaller<C> {
    fn find<M: Method>(&self) -> Result<MessageType, CallError> {
        if let Some(known) = self.known::<M>() {
            return Ok(known);
        }
        let mut looks = 0;
        loop {
            let (found, mark) = self.client.find(M::NAME)?;
            let Compared::Differs(ours) = self.compare::<M>(mark)? else { return Ok(self.keep::<M>(found)) };
            let theirs = self.client.ask(SCHEMA, &question::<M>(), &CallOptions::new().timeout(PATIENCE));
            match look::<M>(&ours, theirs, &mut looks) {
                // Who said so may be another server than the one that was found.
                Looked::Same if self.client.find(M::NAME)? == (found, mark) => return Ok(self.keep::<M>(found)),
                Looked::Same | Looked::Again if looks < MOST_LOOKS => {}
                Looked::Same | Looked::Again => return Err(CallError::NotExecuted),
                Looked::Refused(error) => return Err(error),
            }
        }
    }

    /// Makes a call with what the server that is there now offers.
    fn with_type<M: Method, T>(
        &self,
        mut call: impl FnMut(MessageType) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut tries = 0;
        loop {
            match self.find::<M>().and_then(&mut call) {
                Err(error) if self.is_outdated::<M>(&error, &mut tries) => {}
                other => return other,
            }
        }
    }

    /// Calls a method that answers once.
    pub fn call<M: Method>(&self, request: EncodedRequest, options: &CallOptions) -> Outcome<M> {
        let EncodedRequest(mut buffers) = request;
        let Buffers { request: bytes, reply, .. } = &mut buffers;
        let called = self.with_type::<M, _>(|found| self.client.call_once(found, bytes, reply, options));
        let outcome = called.map_err(ServiceError::Call).and_then(|()| read::<M>(reply));
        buffers.give_back();
        outcome
    }
}

impl ServiceCaller<Client> {
    /// Calls a method that answers with a stream.
    pub fn stream<M: Method + 'static>(
        &self,
        request: EncodedRequest,
        options: &CallOptions,
    ) -> Result<ItemsOf<M>, Failed<M>> {
        let bytes = request.0.request;
        let chunks = self.with_type::<M, _>(|found| self.client.stream_with(found, &bytes, options))?;
        Ok(Items { chunks: Some(chunks), read: read::<M> })
    }

    /// Calls a method that takes a stream and answers once.
    pub fn upload<M: Method + 'static>(
        &self,
        request: EncodedRequest,
        options: &CallOptions,
    ) -> Result<UploadOf<M>, Failed<M>> {
        let bytes = request.0.request;
        let upload = self.with_type::<M, _>(|found| self.client.client_stream_with(found, &bytes, options))?;
        Ok(Upload { upload, bytes, write: write_item::<M>, read: read::<M>, item: PhantomData })
    }

    /// Calls a method that has streams both ways.
    pub fn duplex<M: Method + 'static>(
        &self,
        request: EncodedRequest,
        options: &CallOptions,
    ) -> Result<HalvesOf<M>, Failed<M>> {
        let bytes = request.0.request;
        let (sink, chunks) = self.with_type::<M, _>(|found| self.client.duplex_with(found, &bytes, options))?;
        let outgoing = Outgoing { sink, bytes, write: write_item::<M>, item: PhantomData };
        Ok((outgoing, Items { chunks: Some(chunks), read: read::<M> }))
    }
}

type ItemsOf<M> = Items<<<M as Method>::Output as Output>::Value, <<M as Method>::Output as Output>::Error>;

type HalvesOf<M> = (Outgoing<<M as Method>::Sent>, ItemsOf<M>);

type UploadOf<M> =
    Upload<<M as Method>::Sent, <<M as Method>::Output as Output>::Value, <<M as Method>::Output as Output>::Error>;

/// Writes an item of a stream.
pub(super) fn write_item<M: Method>(item: &M::Sent, bytes: &mut Vec<u8>) -> Result<(), CallError> {
    write::<M>(item, bytes)?;
    if bytes.is_empty() {
        let fault = crate::service::CodecError::new("an item of a stream takes at least a byte");
        return Err(CallError::Unwritable { method: M::NAME, fault });
    }
    Ok(())
}

/// How an item is written.
pub(super) type WriteItem<I> = fn(&I, &mut Vec<u8>) -> Result<(), CallError>;

/// How an answer or an item is read.
pub(super) type Read<T, E> = fn(&[u8]) -> Result<T, ServiceError<E>>;

/// The items of a stream, as they come. An error of the application's is an item, and the stream may go on; after one of the
/// call it has ended. Dropping it before its end cancels the call.
pub struct Items<T, E> {
    /// `None` after an item that could not be read.
    chunks: Option<ChunkStream>,
    read: Read<T, E>,
}

impl<T, E> Iterator for Items<T, E> {
    type Item = Result<T, ServiceError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = match self.chunks.as_mut()?.next()? {
            Ok(chunk) => (self.read)(&chunk),
            Err(error) => Err(error.into()),
        };
        if matches!(item, Err(ServiceError::Call(_))) {
            self.chunks = None;
        }
        Some(item)
    }
}

impl<T, E> fmt::Debug for Items<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("chunks", &self.chunks).finish_non_exhaustive()
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
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("sums.sock");
/// # let server = Server::builder().service(Host).bind(&path)?;
/// let client = SumsBlockingClient::connect(&path)?;
/// let (mut numbers, mut sums) = client.sums()?;
/// numbers.send(&1)?;
/// numbers.send(&2)?;
/// assert_eq!((sums.next().unwrap()?, sums.next().unwrap()?), (1, 3));
/// numbers.finish();
/// assert!(sums.next().is_none());
///
/// let mut numbers = client.sum()?; // one answer
/// numbers.send(&1)?;
/// assert_eq!(numbers.finish()?, 1);
/// assert_eq!(client.sum()?.finish_with(&CallOptions::new().timeout(std::time::Duration::from_secs(5)))?, 0);
/// # Ok(())
/// # }
/// ```
pub struct Outgoing<I> {
    sink: ChunkSink,
    bytes: Vec<u8>,
    write: WriteItem<I>,
    item: PhantomData<fn(I)>,
}

impl<I> Outgoing<I> {
    /// Sends an item. Waits while the method is slow. Answers `false` if the call has ended, so that no more is wanted.
    /// [Example](Self).
    ///
    /// # Errors
    /// As [`ChunkSink::send`]; [`CallError::Unwritable`].
    pub fn send(&mut self, item: &I) -> Result<bool, CallError> {
        (self.write)(item, &mut self.bytes)?;
        self.sink.send(&self.bytes)
    }

    /// Ends the stream. [Example](Self).
    pub fn finish(self) {}
}

impl<I> fmt::Debug for Outgoing<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// A call that takes a stream of items and is answered once. Dropping it before [`finish`](Self::finish) cancels it.
pub struct Upload<I, T, E> {
    upload: crate::client::Upload,
    bytes: Vec<u8>,
    write: WriteItem<I>,
    read: Read<T, E>,
    item: PhantomData<fn(I)>,
}

impl<I, T, E> Upload<I, T, E> {
    /// Sends an item: see [`Outgoing::send`]. [Example](Outgoing).
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, item: &I) -> Result<bool, ServiceError<E>> {
        (self.write)(item, &mut self.bytes)?;
        Ok(self.upload.send(&self.bytes)?)
    }

    /// Ends the stream and waits for the answer. [Example](Outgoing).
    ///
    /// # Errors
    /// How the call ended.
    pub fn finish(self) -> Result<T, ServiceError<E>> {
        self.finish_with(&CallOptions::new())
    }

    /// As [`Self::finish`], with a time-out for the answer, or a cancel token. [Example](Outgoing).
    ///
    /// # Errors
    /// As there.
    pub fn finish_with(self, options: &CallOptions) -> Result<T, ServiceError<E>> {
        (self.read)(&self.upload.finish_with(options)?)
    }
}

impl<I, T, E> fmt::Debug for Upload<I, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("upload", &self.upload).finish_non_exhaustive()
    }
}
