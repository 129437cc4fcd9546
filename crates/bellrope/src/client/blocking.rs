//! The blocking client.

mod caller;
mod streams;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bellrope_proto::handshake::Style;
use caller::Caller;
pub use streams::{ChunkSink, ChunkStream, Upload};

use super::{
    config::{ClientConfig, ConnectionState},
    options::CallOptions,
};
use crate::error::{CallError, ConnectError};

/// A client for any number of threads. Clones share one connection, which is made anew, by itself, when the server was
/// away and comes back.
///
/// See the [crate's example](crate).
#[derive(Debug, Clone)]
pub struct Client {
    caller: Caller,
}

impl Client {
    /// Connects to the server at `path` with default settings.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: impl Into<PathBuf>) -> Result<Self, ConnectError> {
        Self::with(ClientConfig::new(path))
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn with(config: ClientConfig) -> Result<Self, ConnectError> {
        Ok(Self { caller: Caller::connect(config)? })
    }

    /// The message types that the server offers: name and style. Empty while there is no connection.
    #[must_use]
    pub fn message_types(&self) -> Vec<(String, Style)> {
        self.caller.shared().lock().message_types()
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.caller.shared().lock().connection_state()
    }

    /// Has `watcher` called whenever the connection is lost, made anew or closed. It runs on a thread that all clients of
    /// the process share, so it must not block.
    pub fn on_state_change(&self, watcher: impl Fn(ConnectionState) + Send + Sync + 'static) {
        self.caller.shared().on_change(Arc::new(watcher));
    }

    /// Closes the connection for all clones. Calls under way, and all later ones, end as [`CallError::Closed`].
    pub fn close(&self) {
        self.caller.shared().close();
    }

    /// Calls a message type by name and waits for the answer, at most as long as the configuration's `call_timeout`.
    ///
    /// # Errors
    /// [`CallError`] says what happened, and whether it is safe to send the call again.
    pub fn call(&self, name: &str, payload: &[u8]) -> Result<Vec<u8>, CallError> {
        self.call_with(name, payload, &CallOptions::new())
    }

    /// As [`Self::call`], but the answer replaces what is in `reply`, whose memory is used for the answer of a later
    /// call: then calls of up to 64 KiB allocate nothing. What is in `reply` after an error means nothing.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_into(&self, name: &str, payload: &[u8], reply: &mut Vec<u8>) -> Result<(), CallError> {
        let used = std::mem::replace(reply, self.call(name, payload)?);
        self.caller.shared().lock().free_list.keep_reply(used);
        Ok(())
    }

    /// As [`Self::call`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_within(&self, name: &str, payload: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
        self.call_with(name, payload, &CallOptions::new().timeout(timeout))
    }

    /// As [`Self::call`], with options.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_with(&self, name: &str, payload: &[u8], options: &CallOptions) -> Result<Vec<u8>, CallError> {
        self.caller.call(name, payload, options)
    }

    /// Calls a message type that is answered with a stream. Dropping the stream cancels it at the server.
    ///
    /// # Errors
    /// [`CallError`] if the call could not be sent. What happens later is told by the stream.
    pub fn stream(&self, name: &str, payload: &[u8]) -> Result<ChunkStream, CallError> {
        self.stream_with(name, payload, &CallOptions::new())
    }

    /// As [`Self::stream`], with options. A time-out is for the whole stream.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn stream_with(&self, name: &str, payload: &[u8], options: &CallOptions) -> Result<ChunkStream, CallError> {
        let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
        let ticket = self.caller.start(name, Style::ServerStream, payload, deadline, options)?;
        let registration = self.caller.register(ticket, options);
        Ok(ChunkStream::new(self.caller.clone(), ticket, deadline, registration))
    }

    /// Calls a message type that takes a stream of chunks and answers once.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn client_stream(&self, name: &str, payload: &[u8]) -> Result<Upload, CallError> {
        let ticket = self.caller.start(name, Style::ClientStream, payload, None, &CallOptions::new())?;
        Ok(Upload::new(ChunkSink::new(self.caller.clone(), ticket)))
    }

    /// Calls a message type that has streams both ways: what is returned first sends, what is returned second receives.
    /// Each may go to a thread of its own. Dropping the receiving half cancels the call at the server.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub fn duplex(&self, name: &str, payload: &[u8]) -> Result<(ChunkSink, ChunkStream), CallError> {
        let ticket = self.caller.start(name, Style::Duplex, payload, None, &CallOptions::new())?;
        Ok((ChunkSink::new(self.caller.clone(), ticket), ChunkStream::new(self.caller.clone(), ticket, None, None)))
    }
}
