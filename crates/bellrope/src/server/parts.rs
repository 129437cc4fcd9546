//! Handlers that take a large request, or give a large reply, part by part.
//!
//! On the wire they are streams of bytes: the parts of many calls mix on a connection, each call has credit of its own, and
//! one whose reader is slow holds up nobody else.

use std::{io::Write as _, sync::Arc};

use super::{
    ServerBuilder,
    calls::blocking_pool::CallerPatience,
    error::HandlerError,
    handler::{
        owned_call::OwnedCall,
        parts::{ReplyWriter, RequestReader},
        registry::Handler,
        streams::{ChunkReceiver, ChunkSender},
    },
};

impl ServerBuilder {
    /// Registers a handler that reads its request part by part while it comes, however large it is, and answers once.
    /// Callers use [`Client::call_writer`](crate::Client::call_writer), or any other form of a client stream.
    ///
    /// It runs on a thread that may block, as one of [`Self::unary_blocking`], which it holds for as long as its caller takes
    /// to send: a caller that should take no longer than so and so gives its call a time-out. While other calls wait for a thread,
    /// [reading fails](crate::server::RequestReader) of one that sends nothing for `stall_timeout_ms`, or too little in all. The
    /// handler holds `stream_window` and one part in memory, not the request; `max_message_bytes` does not bound it, so a handler
    /// that keeps what it reads must count.
    ///
    /// ```
    /// use std::io::{BufRead as _, Write as _};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("lines.sock");
    /// let server = bellrope::Server::builder()
    ///     .unary_reader("lines", |_, request| {
    ///         let mut lines = 0_u64;
    ///         while request.skip_until(b'\n')? > 0 {
    ///             lines += 1;
    ///         }
    ///         Ok(lines.to_string().into_bytes())
    ///     })
    ///     .bind(&path)?;
    /// let client = bellrope::Client::connect(&path)?;
    /// let mut request = client.call_writer("lines", b"")?;
    /// for n in 0..100_000 {
    ///     writeln!(request, "line {n}")?;
    /// }
    /// assert_eq!(request.finish()?, b"100000");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unary_reader<F>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(&OwnedCall, &mut RequestReader) -> Result<Vec<u8>, HandlerError> + Send + Sync + 'static,
    {
        let (handler, pool) = (Arc::new(handler), self.blocking.clone());
        let handler = move |call: OwnedCall, parts: ChunkReceiver| {
            let handler = Arc::clone(&handler);
            let run = pool.run(call, move |call, patience| handler(call, &mut RequestReader::new(parts, patience)));
            Box::pin(run) as _
        };
        self.registry.add(name, Handler::ClientStream(Box::new(handler)));
        self
    }

    /// Registers a handler that is given its request whole and writes its reply part by part, however large it is, at the
    /// pace of its reader. Callers use [`Client::call_reader`](crate::Client::call_reader), or any other form of a server
    /// stream. It runs on a thread that may block, and holds no more of the reply than two parts of 32 KiB. While other calls
    /// wait for a thread, [writing fails](crate::server::ReplyWriter) for one that reads nothing for `stall_timeout_ms`, or too
    /// little in all.
    ///
    /// ```
    /// use std::io::{BufRead as _, Write as _};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("count.sock");
    /// let server = bellrope::Server::builder()
    ///     .unary_writer("count", |call, reply| {
    ///         let most: u32 = String::from_utf8_lossy(call.payload()).parse().unwrap_or(0);
    ///         (0..most).try_for_each(|n| writeln!(reply, "{n}"))?;
    ///         Ok(())
    ///     })
    ///     .bind(&path)?;
    /// let client = bellrope::Client::connect(&path)?;
    /// let reply = client.call_reader("count", b"100000")?;
    /// assert_eq!(reply.lines().count(), 100_000);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unary_writer<F>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(&OwnedCall, &mut ReplyWriter) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let (handler, pool) = (Arc::new(handler), self.blocking.clone());
        let handler = move |call: OwnedCall, parts: ChunkSender| {
            let handler = Arc::clone(&handler);
            let run = pool.run(call, move |call, patience| write_whole(parts, patience, |reply| handler(call, reply)));
            Box::pin(run) as _
        };
        self.registry.add(name, Handler::ServerStream(Box::new(handler)));
        self
    }

    /// Registers a handler that reads its request and writes its reply part by part, in whatever order it likes: a filter
    /// holds a part of each. Callers use [`Client::call_both_ways`](crate::Client::call_both_ways), or any other form of a
    /// duplex call. As [`Self::unary_reader`] and [`Self::unary_writer`] otherwise.
    ///
    /// ```
    /// use std::io::{Read as _, Write as _};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let server = bellrope::Server::builder()
    ///     .unary_filter("echo", |_, request, reply| Ok(std::io::copy(request, reply).map(drop)?))
    ///     .bind(&path)?;
    /// let client = bellrope::Client::connect(&path)?;
    /// let (mut request, mut reply) = client.call_both_ways("echo", b"")?;
    /// let writing = std::thread::spawn(move || {
    ///     request.write_all(&[7; 1_000_000])?;
    ///     request.finish()
    /// });
    /// let mut came = Vec::new();
    /// reply.read_to_end(&mut came)?;
    /// assert_eq!(came, vec![7; 1_000_000]);
    /// writing.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unary_filter<F>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(&OwnedCall, &mut RequestReader, &mut ReplyWriter) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let (handler, pool) = (Arc::new(handler), self.blocking.clone());
        let handler = move |call: OwnedCall, incoming: ChunkReceiver, outgoing: ChunkSender| {
            let handler = Arc::clone(&handler);
            let run = pool.run(call, move |call, patience| {
                let mut request = RequestReader::new(incoming, patience.clone());
                write_whole(outgoing, patience, |reply| handler(call, &mut request, reply))
            });
            Box::pin(run) as _
        };
        self.registry.add(name, Handler::Duplex(Box::new(handler)));
        self
    }
}

/// Has a reply written, and sends what is left of it: of one that failed, nothing more.
fn write_whole(
    parts: ChunkSender,
    patience: CallerPatience,
    write: impl FnOnce(&mut ReplyWriter) -> Result<(), HandlerError>,
) -> Result<(), HandlerError> {
    let mut reply = ReplyWriter::new(parts, patience);
    write(&mut reply)?;
    Ok(reply.flush()?)
}
