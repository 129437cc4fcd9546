//! OpenAI's completions of a prompt, with `suffix` for the text after the place to fill.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::asked::Asked;
use super::counted::ToldTokens;
use super::fault::{ErrorForm, Fault};
use super::stamp::{seconds_since_1970, serial};
use super::wire::{FromText, OneOrMany, StreamOptions, model_of, read_wire, route, unknown};
use super::writer::{AnswerWriter, comment, data};
use crate::message::fields::{Known, Known::All, Known::Fields, Known::Unused};
use crate::message::{ChatRequest, ChatResponse, Chunk, Message, Prompt, Role, StopReason, Usage, lenient};

/// The fields that are passed on, or refused.
pub(super) const KNOWN: Known = Fields(&[
    ("model", All),
    ("prompt", All),
    ("suffix", All),
    ("max_tokens", All),
    ("temperature", All),
    ("top_p", All),
    ("top_k", All),
    ("stop", All),
    ("stream", All),
    ("stream_options", Fields(&[("include_usage", All)])),
    ("n", All),
    ("best_of", All),
    ("echo", All),
    ("seed", All),
    ("presence_penalty", All),
    ("frequency_penalty", All),
    ("logit_bias", All),
    ("user", All),
    ("logprobs", Unused),
]);

/// Reads a request.
pub(super) fn read(body: &[u8], providers: &[String]) -> Result<Asked, Fault> {
    let wire: Wire = read_wire(body)?;
    let OneOrMany(mut prompts) = wire.prompt;
    let (Some(Text(text)), true) = (prompts.pop(), prompts.is_empty()) else {
        return Err(Fault::invalid(Some("prompt"), "one prompt is continued at a time; give one text"));
    };
    if wire.n.is_some_and(|n| n > 1) || wire.best_of.is_some_and(|best_of| best_of > 1) {
        return Err(Fault::invalid(
            Some("n"),
            "one choice is made at a time; leave out n and best_of, or set them to 1",
        ));
    }
    if wire.echo == Some(true) {
        return Err(Fault::invalid(Some("echo"), "echo is not supported; put the prompt before the answer yourself"));
    }
    let model = model_of(wire.model)?;
    let (provider, asked) = route(&model, providers);
    let suffix = wire.suffix.filter(|suffix| !suffix.is_empty());
    let chat = ChatRequest {
        provider,
        model: asked,
        messages: vec![Message::new(Role::User, &*text)],
        prompt: Some(Prompt { text, suffix }),
        temperature: wire.temperature,
        max_tokens: wire.max_tokens,
        stop: wire.stop,
        top_p: wire.top_p,
        top_k: wire.top_k,
        seed: wire.seed,
        presence_penalty: wire.presence_penalty,
        frequency_penalty: wire.frequency_penalty,
        logit_bias: wire.logit_bias,
        user: wire.user,
        notes: unknown(body, KNOWN),
        ..ChatRequest::default()
    };
    let include_usage = wire.stream_options.is_some_and(|options| options.include_usage());
    let (id, created, counted) = (format!("cmpl-{}", serial()), seconds_since_1970(), ToldTokens::default());
    let writer = Script { id, created, model, include_usage, counted };
    Ok(Asked { chat, stream: wire.stream.unwrap_or(false), writer: Box::new(writer), stored: None })
}

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    prompt: OneOrMany<Text>,
    suffix: Option<String>,
    #[serde(default, deserialize_with = "lenient::count")]
    max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "lenient::number")]
    temperature: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "lenient::count")]
    top_k: Option<u32>,
    #[serde(default, deserialize_with = "lenient::texts")]
    stop: Vec<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "lenient::count")]
    n: Option<u32>,
    #[serde(default, deserialize_with = "lenient::count")]
    best_of: Option<u32>,
    echo: Option<bool>,
    #[serde(default, deserialize_with = "lenient::whole")]
    seed: Option<i64>,
    #[serde(default, deserialize_with = "lenient::number")]
    presence_penalty: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    frequency_penalty: Option<f64>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    logit_bias: Map<String, Value>,
    user: Option<String>,
}

/// A prompt. One of tokens is no text.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text(String);

impl FromText for Text {
    fn from_text(text: String) -> Self {
        Self(text)
    }
}

/// Writes one answer. What the model thinks has no place in it.
struct Script {
    id: String,
    /// Seconds since 1970.
    created: u64,
    model: String,
    include_usage: bool,
    counted: ToldTokens,
}

impl Script {
    fn object(&self, choices: &[Choice<'_>]) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model, "choices": choices,
        })
    }

    fn piece(&self, text: &str, finish_reason: Option<&'static str>, out: &mut Vec<u8>) {
        data(&self.object(&[Choice { index: 0, text, logprobs: (), finish_reason }]), out);
    }
}

impl AnswerWriter for Script {
    fn expect(&mut self, input_tokens: u64) {
        self.counted.expect(input_tokens);
    }

    fn whole(&mut self, response: ChatResponse) -> serde_json::Result<Vec<u8>> {
        self.counted.take_whole(&response);
        let finish_reason = Some(finish(response.stop_reason));
        let mut whole = self.object(&[Choice { index: 0, text: &response.text, logprobs: (), finish_reason }]);
        if let Some(usage) = &self.counted.said() {
            whole["usage"] = counts(usage);
        }
        serde_json::to_vec(&whole)
    }

    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        self.counted.take_in(&chunk);
        match chunk {
            Chunk::Text { text } => self.piece(&text, None, out),
            Chunk::Notice { text } => comment(&text, out),
            Chunk::Done { stop_reason } => {
                self.piece("", Some(finish(stop_reason)), out);
                if let Some(usage) = self.counted.said().filter(|_| self.include_usage) {
                    let mut last = self.object(&[]);
                    last["usage"] = counts(&usage);
                    data(&last, out);
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            Chunk::Error(info) => {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(&Fault::from(info).body(ErrorForm::OpenAi));
                out.extend_from_slice(b"\n\n");
            }
            _ => {}
        }
    }
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    text: &'a str,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

fn finish(reason: StopReason) -> &'static str {
    match reason {
        StopReason::MaxTokens | StopReason::ContextWindow => "length",
        StopReason::ContentFilter => "content_filter",
        _ => "stop",
    }
}

fn counts(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &Value) -> Result<Asked, String> {
        read(&serde_json::to_vec(body).unwrap(), &["local".to_owned()]).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_prompt_with_its_suffix_is_taken_over() {
        let body = json!({
            "model": "local/qwen", "prompt": ["fn a("], "suffix": ") {}", "max_tokens": 9, "stop": "\n", "seed": 7,
            "temperature": 0.5, "top_p": 0.9, "user": "u", "n": 1, "logprobs": 3, "echo": false,
        });
        let chat = of(&body).unwrap().chat;
        let prompt = Prompt { text: "fn a(".into(), suffix: Some(") {}".into()) };
        assert_eq!(
            (chat.prompt, chat.provider.as_deref(), chat.model.as_deref()),
            (Some(prompt), Some("local"), Some("qwen"))
        );
        assert_eq!((chat.max_tokens, chat.seed, chat.stop), (Some(9), Some(7), vec!["\n".to_owned()]));
        assert_eq!(chat.notes, ["`logprobs` was left out: no such field is known here"]);
        let prompt = of(&json!({"prompt": "a", "suffix": ""})).unwrap().chat.prompt.unwrap();
        assert_eq!(prompt, Prompt { text: "a".into(), suffix: None });
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (body, words) in [
            (json!({}), "missing field `prompt`"),
            (json!({"prompt": ["a", "b"]}), "one prompt"),
            (json!({"prompt": []}), "one prompt"),
            (json!({"prompt": [1, 2]}), "prompt"),
            (json!({"prompt": "a", "n": 2}), "one choice"),
            (json!({"prompt": "a", "best_of": 2}), "one choice"),
            (json!({"prompt": "a", "echo": true}), "echo"),
        ] {
            let fault = of(&body).err().unwrap();
            assert!(fault.contains(words), "{body}: {fault}");
        }
    }

    #[test]
    fn an_answer_has_the_form_that_tools_know() {
        let mut writer =
            of(&json!({"prompt": "a", "model": "m", "stream_options": {"include_usage": true}})).unwrap().writer;
        let mut out = Vec::new();
        writer.begin(&mut out);
        let usage = Usage { input_tokens: 3, output_tokens: 4, ..Usage::default() };
        for chunk in [
            Chunk::reasoning("hm"),
            Chunk::text("b"),
            Chunk::Usage(usage),
            Chunk::Done { stop_reason: StopReason::MaxTokens },
        ] {
            writer.chunk(chunk, &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        let events: Vec<_> = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        let [piece, end, usage, "[DONE]"] = events[..] else { panic!("{events:?}") };
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(
            (&json(piece)["choices"][0]["text"], &json(piece)["object"]),
            (&json!("b"), &json!("text_completion"))
        );
        assert_eq!(json(end)["choices"][0]["finish_reason"], "length");
        assert_eq!((&json(usage)["choices"], &json(usage)["usage"]["total_tokens"]), (&json!([]), &json!(7)));
        let response =
            json!({"text": "b", "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2}});
        let whole = writer.whole(serde_json::from_value(response).unwrap()).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!((&whole["choices"][0]["text"], &whole["usage"]["total_tokens"]), (&json!("b"), &json!(3)));
    }
}
