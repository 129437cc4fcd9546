//! What blocking clients of a service stand on.

use std::{
    cell::RefCell,
    sync::{Mutex, PoisonError},
};

use bellrope_proto::handshake::SchemaMark;

use crate::client::{CallError, CallOptions, Client, Connection, MessageType, Pool};

/// What carries the calls of a blocking client of a service. `GreeterBlockingClient::from` takes any of these:
///
/// | over | calls of many threads | options |
/// |---|---|---|
/// | [`Client`] | share one connection, which is made anew when it is lost; streams too | all |
/// | [`Pool`] | have a connection each while they last | no retry; a time-out also bounds the wait for a connection |
/// | `RefCell<`[`Connection`]`>` | are none: it stays with one thread at a time, and is the shortest way there is | no retry |
/// | `Mutex<`[`Connection`]`>` | wait for each other, without regard to their time-outs | no retry |
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[bellrope::service]
/// # pub trait Greeter {
/// #     fn greet(&self, name: &str) -> String;
/// # }
/// # struct Host;
/// # #[bellrope::service]
/// # impl Greeter for Host {
/// #     fn greet(&self, name: &str) -> String { format!("HELLO {name}") }
/// # }
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("private").join("greeter.sock");
/// # let server = bellrope::Server::builder().service(Host).bind(&path)?;
/// use std::cell::RefCell;
///
/// use bellrope::client::{Connection, Pool, PoolConfig};
///
/// let pooled = GreeterBlockingClient::from(Pool::new(PoolConfig::new(&path)));
/// assert_eq!(pooled.greet("ding")?, "HELLO ding");
/// assert_eq!(pooled.as_ref().idle(), 1);
/// let own = GreeterBlockingClient::from(RefCell::new(Connection::connect(&path)?));
/// assert_eq!(own.greet("dong")?, "HELLO dong");
/// # Ok(())
/// # }
/// ```
pub trait ByteClient: sealed::Sealed {
    /// Looks a message type up, with what its payloads are.
    #[doc(hidden)]
    fn find(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError>;

    /// Calls what was looked up. The answer replaces what is in `reply`.
    #[doc(hidden)]
    fn call_once(
        &self,
        to: MessageType,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError>;

    /// Calls by a name that was not looked up.
    #[doc(hidden)]
    fn ask(&self, name: &str, payload: &[u8], options: &CallOptions) -> Result<Vec<u8>, CallError> {
        let (to, _) = self.find(name)?;
        let mut reply = Vec::new();
        self.call_once(to, payload, &mut reply, options)?;
        Ok(reply)
    }
}

mod sealed {
    /// Only Bellrope's own clients look message types up with what their payloads are.
    pub trait Sealed {}
}

impl sealed::Sealed for Client {}

impl ByteClient for Client {
    fn find(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        self.marked_type(name)
    }

    #[inline]
    fn call_once(
        &self,
        to: MessageType,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError> {
        self.call_into_with(to, payload, reply, options)
    }
}

impl sealed::Sealed for Pool {}

impl ByteClient for Pool {
    fn find(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        self.acquire_within(None)?.marked_type(name)
    }

    fn call_once(
        &self,
        to: MessageType,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError> {
        self.acquire_within(options.timeout)?.call_with(to, payload, reply, options)
    }
}

impl sealed::Sealed for RefCell<Connection> {}

/// It is borrowed while a call waits, when nothing of its user's runs.
impl ByteClient for RefCell<Connection> {
    fn find(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        self.borrow().marked_type(name)
    }

    #[inline]
    fn call_once(
        &self,
        to: MessageType,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError> {
        self.borrow_mut().call_with(to, payload, reply, options)
    }
}

impl sealed::Sealed for Mutex<Connection> {}

impl ByteClient for Mutex<Connection> {
    fn find(&self, name: &str) -> Result<(MessageType, SchemaMark), CallError> {
        self.lock().unwrap_or_else(PoisonError::into_inner).marked_type(name)
    }

    fn call_once(
        &self,
        to: MessageType,
        payload: &[u8],
        reply: &mut Vec<u8>,
        options: &CallOptions,
    ) -> Result<(), CallError> {
        self.lock().unwrap_or_else(PoisonError::into_inner).call_with(to, payload, reply, options)
    }
}
