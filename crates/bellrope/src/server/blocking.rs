//! Handlers that block, and the runtime that async handlers run on.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{
    ServerBuilder,
    error::HandlerError,
    handler::{owned_call::OwnedCall, registry::Handler},
};

impl ServerBuilder {
    /// Registers a handler that may block: it reads files, waits for locks or computes. It runs on a thread of its own of at
    /// most [`blocking_threads`](crate::server::ServerConfig::blocking_threads); further calls wait, those of each process and
    /// connection in turns, and one that is cancelled meanwhile never runs. One that runs already goes on to its end: it may ask
    /// [`OwnedCall::cancelled`] whether its answer is still wanted.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("files.sock");
    /// let server = bellrope::Server::builder()
    ///     .unary_blocking("read", |call| {
    ///         let name = String::from_utf8_lossy(call.payload());
    ///         Ok(std::fs::read(&*name)?)
    ///     })
    ///     .bind(&path)?;
    /// # let client = bellrope::Client::connect(&path)?;
    /// # assert!(client.call("read", b"/nowhere").is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unary_blocking<F>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(&OwnedCall) -> Result<Vec<u8>, HandlerError> + Send + Sync + 'static,
    {
        let (handler, pool) = (Arc::new(handler), self.blocking.clone());
        let handler = move |call: OwnedCall| {
            let handler = Arc::clone(&handler);
            Box::pin(pool.run(call, move |call, _| handler(call))) as _
        };
        self.registry.add(name, Handler::UnaryAsync(Box::new(handler)));
        self
    }

    /// Runs async handlers, and those that block, on this runtime instead of one of the server's own. It must outlive the
    /// server, and have its time enabled; `async_threads` means nothing then.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("private").join("echo.sock");
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let server = bellrope::Server::builder()
    ///     .runtime(runtime.handle().clone())
    ///     .unary_async("echo", |call| async move { Ok(call.into_payload()) })
    ///     .bind(&path)?;
    /// # assert_eq!(bellrope::Client::connect(&path)?.call("echo", b"ding")?, b"ding");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }
}
