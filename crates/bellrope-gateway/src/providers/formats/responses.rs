//! OpenAI's responses: the successor of chat completions, with an event for everything that happens.

mod request;
mod translate;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName};

use super::address::parse_base;
use super::translate::Translate;
use super::wire_format::{ProviderServer, Segment, WireFormat};
use crate::error::ProviderError;
use crate::message::ChatRequest;
use crate::notes::Notes;
use crate::pass::PassFormat;
use crate::secret::Secret;

pub use translate::Translator;

/// The format.
pub(super) struct Responses;

impl WireFormat for Responses {
    fn base(&self, written: &str, _: Option<&str>) -> Result<Url, &'static str> {
        parse_base(written, "/responses")
    }

    fn path(&self) -> &'static [Segment] {
        &[Segment::Word("responses")]
    }

    fn key_header(&self) -> (HeaderName, &'static str) {
        (AUTHORIZATION, "Bearer ")
    }

    fn body(
        &self,
        request: &ChatRequest,
        model: Option<&str>,
        server: ProviderServer,
        notes: &mut Notes,
    ) -> Result<Vec<u8>, ProviderError> {
        request::body(request, model, server, notes)
    }

    fn embeddings(&self) -> Option<&'static [Segment]> {
        Some(&[Segment::Word("embeddings")])
    }

    fn passes(&self, format: PassFormat) -> Option<&'static [Segment]> {
        (format == PassFormat::Responses).then(|| self.path())
    }

    fn translator(&self, key: Option<Secret>) -> Box<dyn Translate> {
        Box::new(Translator::new(key))
    }
}
