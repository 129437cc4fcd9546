//! A service whatever its type, so that the code of a connection is there once for all listeners.

use std::{convert::Infallible, error::Error, future::Future, pin::Pin, sync::Arc};

use http_body_util::BodyExt as _;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Incoming},
    service::Service,
};

/// The body of an answer.
pub(super) type Content = Pin<Box<dyn Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>> + Send>>;
/// An answer that is being made.
pub(super) type Answering = Pin<Box<dyn Future<Output = Response<Content>> + Send>>;
/// A service.
pub(super) type Answerer = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// This service, without its type.
pub(super) fn answerer<S, B>(service: S) -> Answerer
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    Arc::new(move |request| {
        let answering = service.call(request);
        Box::pin(async move {
            let response = answering.await.unwrap_or_else(|never| match never {});
            response.map(|body| Box::pin(body.map_err(Into::into)) as Content)
        })
    })
}
