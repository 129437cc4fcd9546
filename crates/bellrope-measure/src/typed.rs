//! The service of the measurement of typed calls: three small fields there, three back, with both codecs; and the same
//! bytes without types.

use bellrope::{Client, server::ServerBuilder};
use serde::{Deserialize, Serialize};

/// Answers with the bytes of the request, as a handler without types does.
pub(crate) const RAW: &str = "bench.raw";

/// What comes back.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Returned {
    pub(crate) id: u32,
    pub(crate) length: u32,
    pub(crate) on: bool,
}

#[bellrope::service(name = "bench.json")]
trait AsJson {
    fn see(&self, id: u32, name: &str, on: bool) -> Result<Returned, String>;
}

#[bellrope::service(codec = "postcard", name = "bench.postcard")]
trait AsPostcard {
    fn see(&self, id: u32, name: &str, on: bool) -> Result<Returned, String>;
}

struct JsonEye;
struct PostcardEye;

fn seen(id: u32, name: &str, on: bool) -> Result<Returned, String> {
    if name.is_empty() { Err("no name".to_owned()) } else { Ok(Returned { id, length: name.len() as u32, on }) }
}

#[bellrope::service]
impl AsJson for JsonEye {
    fn see(&self, id: u32, name: &str, on: bool) -> Result<Returned, String> {
        seen(id, name, on)
    }
}

#[bellrope::service]
impl AsPostcard for PostcardEye {
    fn see(&self, id: u32, name: &str, on: bool) -> Result<Returned, String> {
        seen(id, name, on)
    }
}

/// What calls it, with either codec.
pub(crate) struct TypedClients {
    json: AsJsonBlockingClient,
    postcard: AsPostcardBlockingClient,
}

impl TypedClients {
    /// Both go through one client of bytes.
    pub(crate) fn over(client: &Client) -> Self {
        Self { json: client.clone().into(), postcard: client.clone().into() }
    }

    #[inline]
    pub(crate) fn json(&self, id: u32, name: &str, on: bool) -> anyhow::Result<Returned> {
        Ok(self.json.see(id, name, on)?)
    }

    #[inline]
    pub(crate) fn postcard(&self, id: u32, name: &str, on: bool) -> anyhow::Result<Returned> {
        Ok(self.postcard.see(id, name, on)?)
    }
}

/// Registers all three.
pub(crate) fn register(builder: ServerBuilder) -> ServerBuilder {
    let builder = builder.unary(RAW, |call, reply| {
        reply.put(call.payload());
        Ok(())
    });
    builder.service(JsonEye).service(PostcardEye)
}
