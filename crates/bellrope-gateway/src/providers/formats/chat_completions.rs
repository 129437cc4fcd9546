//! OpenAI's chat completions, and every server that speaks them: llama.cpp, Ollama, vLLM, OpenRouter and others.

mod request;
mod translate;

pub(crate) use request::body;
pub use translate::Translator;
