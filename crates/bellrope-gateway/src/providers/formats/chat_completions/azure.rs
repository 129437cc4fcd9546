//! Chat completions at Azure: a header and addresses of its own, with OpenAI's models behind them.

use reqwest::Url;
use reqwest::header::HeaderName;

use super::request;
use super::translate::Translator;
use crate::error::ProviderError;
use crate::message::ChatRequest;
use crate::notes::Notes;
use crate::pass::PassFormat;
use crate::providers::formats::address::{parse_base, push_segment};
use crate::providers::formats::translate::Translate;
use crate::providers::formats::wire_format::{ProviderServer, Segment, WireFormat};
use crate::secret::Secret;

/// The version of the API where none is set.
const API_VERSION: &str = "2024-10-21";

/// Chat completions as Azure speaks them.
pub(in crate::providers::formats) struct Azure;

impl WireFormat for Azure {
    fn base(&self, written: &str, api_version: Option<&str>) -> Result<Url, &'static str> {
        let mut url = parse_base(written, "/openai")?;
        // `/v1` was added where there was no path.
        if url.path() == "/v1" {
            url.set_path("");
        }
        push_segment(&mut url, "openai");
        url.query_pairs_mut().append_pair("api-version", api_version.unwrap_or(API_VERSION));
        Ok(url)
    }

    fn most_stops(&self) -> usize {
        request::MAX_STOP
    }

    fn path(&self) -> &'static [Segment] {
        &[Segment::Word("deployments"), Segment::Model, Segment::Word("chat"), Segment::Word("completions")]
    }

    fn key_header(&self) -> (HeaderName, &'static str) {
        (HeaderName::from_static("api-key"), "")
    }

    fn needs_model(&self) -> bool {
        true
    }

    fn body(
        &self,
        request: &ChatRequest,
        model: Option<&str>,
        server: ProviderServer,
        notes: &mut Notes,
    ) -> Result<Vec<u8>, ProviderError> {
        request::body(request, model, ProviderServer { at_inventor: true, message_extras: false, ..server }, notes)
    }

    fn embeddings(&self) -> Option<&'static [Segment]> {
        Some(&[Segment::Word("deployments"), Segment::Model, Segment::Word("embeddings")])
    }

    fn passes(&self, format: PassFormat) -> Option<&'static [Segment]> {
        (format == PassFormat::ChatCompletions).then(|| self.path())
    }

    fn translator(&self, key: Option<Secret>) -> Box<dyn Translate> {
        Box::new(Translator::new(key))
    }
}
