//! Calls and handlers as services of [tower](https://docs.rs/tower), so that its layers apply: time-outs, limits, retries,
//! load shedding, one's own.
//!
//! ```
//! use std::time::Duration;
//!
//! use bellrope::{AsyncClient, Server, server::OwnedCall, tower::{Calls, Request}};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("private").join("tower.sock");
//! let shout = ServiceBuilder::new()
//!     .concurrency_limit(8)
//!     .service(service_fn(async |call: OwnedCall| Ok::<_, std::io::Error>(call.payload().to_ascii_uppercase())));
//! let _server = Server::builder().tower("shout", shout).bind(&path)?;
//!
//! let caller = ServiceBuilder::new()
//!     .timeout(Duration::from_secs(1))
//!     .service(Calls::new(AsyncClient::connect(&path).await?));
//! assert_eq!(caller.oneshot(Request::new("shout", "ding")).await?, b"DING");
//! # Ok(())
//! # }
//! ```

use std::{
    error::Error,
    future::poll_fn,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use tower_service::Service;

use crate::{
    AsyncClient,
    client::{CallError, CallOptions},
    server::{HandlerError, OwnedCall, ServerBuilder},
};

/// A call to be made by [`Calls`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The name of its message type.
    pub message_type: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// How it is called.
    pub options: CallOptions,
}

impl Request {
    /// A call with the client's own options. [Example](crate::tower).
    pub fn new(message_type: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { message_type: message_type.into(), payload: payload.into(), options: CallOptions::new() }
    }

    /// With these options.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bellrope::{client::CallOptions, tower::Request};
    ///
    /// let request = Request::new("shout", "ding").options(CallOptions::new().timeout(Duration::from_secs(1)));
    /// assert_eq!(request.message_type, "shout");
    /// ```
    #[must_use]
    pub fn options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }
}

/// Makes calls that are answered once. It is always ready: the client's own limits refuse calls, and the layers around it
/// may wait. A call whose future is dropped, as a layer does whose time is over, is cancelled at the server.
#[derive(Debug, Clone)]
pub struct Calls {
    client: AsyncClient,
}

impl Calls {
    /// Calls through this client. [Example](crate::tower).
    #[must_use]
    pub fn new(client: AsyncClient) -> Self {
        Self { client }
    }
}

impl From<AsyncClient> for Calls {
    fn from(client: AsyncClient) -> Self {
        Self::new(client)
    }
}

/// What the services here answer with in time.
type ResponseFuture<E> = Pin<Box<dyn Future<Output = Result<Vec<u8>, E>> + Send>>;

impl Service<Request> for Calls {
    type Response = Vec<u8>;
    type Error = CallError;
    type Future = ResponseFuture<CallError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let client = self.client.clone();
        Box::pin(async move {
            let Request { message_type, payload, options } = request;
            client.call_with(message_type.as_str(), &payload, &options).await
        })
    }
}

impl ServerBuilder {
    /// Registers a service of tower as the [async handler](Self::unary_async) of a message type. Each call has a clone of it,
    /// and waits until that is ready. A [`HandlerError`] is answered as it is; of any other error the caller gets the words,
    /// as of [`HandlerError::new`]. [Example](crate::tower).
    #[must_use]
    pub fn tower<S>(self, name: &str, service: S) -> Self
    where
        S: Service<OwnedCall, Response = Vec<u8>> + Clone + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send,
    {
        // Whatever is cloned from any thread needs no more than to be sent.
        let service = Mutex::new(service);
        self.unary_async(name, move |call| {
            let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move {
                let answer = async {
                    poll_fn(|context| service.poll_ready(context)).await?;
                    service.call(call).await
                };
                answer.await.map_err(|error| refused(error.into()))
            }
        })
    }
}

fn refused(error: Box<dyn Error + Send + Sync>) -> HandlerError {
    match error.downcast::<HandlerError>() {
        Ok(error) => *error,
        Err(error) => HandlerError::new(error.to_string()),
    }
}
