//! Anthropic's messages.

mod request;
mod thinking;
mod translate;

use reqwest::Url;
use reqwest::header::HeaderName;

use super::address::{parse_base, push_segment};
use super::translate::Translate;
use super::wire_format::{Post, ProviderServer, Segment, WireFormat, is_anthropics};
use crate::error::ProviderError;
use crate::message::ChatRequest;
use crate::notes::Notes;
use crate::pass::PassFormat;
use crate::secret::Secret;

pub use translate::Translator;

/// The version of the format, sent with every request.
const VERSION: &str = "2023-06-01";

/// Where tokens are counted.
const COUNT: &[Segment] = &[Segment::Word("messages"), Segment::Word("count_tokens")];

/// The format.
pub(super) struct Messages;

impl WireFormat for Messages {
    fn base(&self, written: &str, _: Option<&str>) -> Result<Url, &'static str> {
        let mut url = parse_base(written, "/messages")?;
        if !url.path().ends_with("/v1") {
            push_segment(&mut url, "v1");
        }
        Ok(url)
    }

    fn path(&self) -> &'static [Segment] {
        &[Segment::Word("messages")]
    }

    fn key_header(&self) -> (HeaderName, &'static str) {
        (HeaderName::from_static("x-api-key"), "")
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", VERSION)]
    }

    fn may_be_own(&self, key: &Secret) -> bool {
        is_anthropics(key)
    }

    fn longest_name(&self) -> usize {
        128
    }

    fn takes_plain_names_only(&self, _server: ProviderServer) -> bool {
        true
    }

    fn needs_model(&self) -> bool {
        true
    }

    fn usual_max_tokens(&self, model: Option<&str>) -> Option<u32> {
        Some(request::usual_max_tokens(model))
    }

    fn body(
        &self,
        request: &ChatRequest,
        model: Option<&str>,
        _: ProviderServer,
        notes: &mut Notes,
    ) -> Result<Vec<u8>, ProviderError> {
        request::body(request, model, notes)
    }

    fn count(&self, request: &ChatRequest, model: Option<&str>) -> Result<Option<Post>, ProviderError> {
        request::count_body(request, model).map(|body| Some((COUNT, body)))
    }

    fn passes(&self, format: PassFormat) -> Option<&'static [Segment]> {
        match format {
            PassFormat::Messages => Some(self.path()),
            PassFormat::CountTokens => Some(COUNT),
            _ => None,
        }
    }

    fn translator(&self, key: Option<Secret>) -> Box<dyn Translate> {
        Box::new(Translator::new(key))
    }
}
