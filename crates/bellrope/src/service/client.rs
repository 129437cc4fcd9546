//! What the clients of a service are made of.

mod asynchronous;
mod blocking;
mod caller;

pub use self::{
    asynchronous::{AsyncItems, AsyncOutgoing, AsyncUpload},
    blocking::{Items, Outgoing, Upload},
    caller::{Request, ServiceCaller},
};
