//! What the clients of a service are made of.

mod asynchronous;
mod blocking;
mod byte_client;
mod caller;

pub use self::{
    asynchronous::{AsyncItems, AsyncOutgoing, AsyncUpload},
    blocking::{Items, Outgoing, Upload},
    byte_client::ByteClient,
    caller::{EncodedRequest, ServiceCaller},
};
