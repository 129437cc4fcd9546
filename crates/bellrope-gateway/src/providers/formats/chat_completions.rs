//! OpenAI's chat completions, and every server that speaks them: llama.cpp, Ollama, vLLM, OpenRouter and others.

mod azure;
mod completion;
mod request;
mod sampling;
mod translate;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName};

use super::address::parse_base;
use super::translate::Translate;
use super::wire_format::{Post, ProviderServer, Segment, WireFormat};
use crate::error::ProviderError;
use crate::message::{ChatRequest, Prompt};
use crate::notes::Notes;
use crate::pass::PassFormat;
use crate::secret::Secret;

pub(super) use azure::Azure;
pub use translate::Translator;

/// Where prompts are continued.
const COMPLETIONS: &[Segment] = &[Segment::Word("completions")];

/// Chat completions as most servers speak them.
pub(super) struct ChatCompletions;

impl WireFormat for ChatCompletions {
    fn base(&self, written: &str, _: Option<&str>) -> Result<Url, &'static str> {
        parse_base(written, "/chat/completions")
    }

    fn wants_thoughts(&self) -> bool {
        true
    }

    fn most_stops(&self) -> usize {
        request::MAX_STOP
    }

    fn path(&self) -> &'static [Segment] {
        &[Segment::Word("chat"), Segment::Word("completions")]
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

    fn continues_prompts(&self) -> bool {
        true
    }

    fn completion(
        &self,
        request: &ChatRequest,
        prompt: &Prompt,
        model: Option<&str>,
        server: ProviderServer,
        notes: &mut Notes,
    ) -> Result<Post, ProviderError> {
        let body = completion::body(request, prompt, model, server, notes)?;
        Ok((COMPLETIONS, body))
    }

    fn embeddings(&self) -> Option<&'static [Segment]> {
        Some(&[Segment::Word("embeddings")])
    }

    fn passes(&self, format: PassFormat) -> Option<&'static [Segment]> {
        match format {
            PassFormat::ChatCompletions => Some(self.path()),
            PassFormat::Completions => Some(COMPLETIONS),
            _ => None,
        }
    }

    fn translator(&self, key: Option<Secret>) -> Box<dyn Translate> {
        Box::new(Translator::new(key))
    }
}
