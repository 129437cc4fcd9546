//! Requests that may go to a provider as they came, and the end of an answer that broke off on its way back.

use bytes::Bytes;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::count::estimate_tokens_of;
use super::fault::{ErrorForm, Fault};
use super::messages::without_mark;
use super::wire::{model_of, no_json, route};
use super::writer::named;
use crate::apart::LONG;
use crate::error::ProviderError;
use crate::pass::{Carried, Envelope, Mark, PassFormat, PassRequest, Unreadable};

/// Reads no more of a request than has to be known to send it on as it came. `providers`: the names that may stand before a
/// model's name. `None` for one that wants something of this program, such as an answer to be asked for later.
///
/// ```
/// use bellrope_gateway::inbound::pass_request;
/// use bellrope_gateway::pass::PassFormat;
///
/// let body = br#"{"model":"anthropic/claude-opus-4-5[1m]","stream":true,"messages":[]}"#;
/// let request = pass_request(PassFormat::Messages, body.as_slice().into(), &["anthropic".to_owned()])?.unwrap();
/// assert_eq!((request.model.as_deref(), request.streams()), (Some("claude-opus-4-5"), true));
/// # Ok::<(), bellrope_gateway::inbound::Fault>(())
/// ```
///
/// # Errors
/// It is no JSON object, or the name of its model is none.
pub fn pass_request(format: PassFormat, body: Bytes, providers: &[String]) -> Result<Option<PassRequest>, Fault> {
    let envelope = Envelope::read(&body).map_err(|error| unreadable(error, &body))?;
    // No other format has such a field.
    if envelope.background && format == PassFormat::Responses {
        return Ok(None);
    }
    let name = model_of(envelope.model.clone())?;
    let is_anthropics = matches!(format, PassFormat::Messages | PassFormat::CountTokens);
    let (provider, model) = route(if is_anthropics { without_mark(&name) } else { &name }, providers);
    let is_long = body.len() > LONG && format != PassFormat::CountTokens;
    let mut request = PassRequest::new(format, envelope, body);
    (request.provider, request.model) = (provider, model);
    if is_long {
        request.set_tokens(estimate_tokens_of(request.body()));
    }
    Ok(Some(request))
}

/// Why a request cannot go on as it came, and where it cannot be read.
fn unreadable(error: Unreadable, body: &[u8]) -> Fault {
    match error {
        Unreadable::NoObject => no_json(body).map_or_else(
            || {
                let place = serde_json::from_slice::<IgnoredAny>(body).err().map(|error| format!(" ({error})"));
                Fault::invalid(None, format!("{error}{}", place.unwrap_or_default()))
            },
            |words| Fault::invalid(None, words),
        ),
        Unreadable::Twins(field) => Fault::invalid(Some(field), error.to_string()),
        Unreadable::Model => Fault::invalid(Some("model"), error.to_string()),
    }
}

/// The end of a stream in this format that broke off, in the bytes that tell a tool so.
pub fn cut_off(format: PassFormat, error: &ProviderError, mark: &Mark) -> Vec<u8> {
    #[derive(Serialize)]
    struct Failed<'a> {
        r#type: &'a str,
        sequence_number: u64,
        response: Response<'a>,
    }
    #[derive(Serialize)]
    struct Response<'a> {
        id: &'a str,
        object: &'a str,
        status: &'a str,
        error: Error<'a>,
        output: [(); 0],
    }
    #[derive(Serialize)]
    struct Error<'a> {
        code: &'a str,
        message: &'a str,
    }
    let fault = Fault::from(error.clone());
    let mut out = Vec::new();
    match format {
        PassFormat::Messages | PassFormat::CountTokens => named("error", &fault.anthropic(), &mut out),
        PassFormat::Responses => {
            const NAME: &str = "response.failed";
            let error = Error { code: "server_error", message: fault.message() };
            let id = mark.id.as_deref().unwrap_or("resp_unknown");
            let response = Response { id, object: "response", status: "failed", error, output: [] };
            named(NAME, &Failed { r#type: NAME, sequence_number: mark.next, response }, &mut out);
        }
        _ => {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(&fault.body(ErrorForm::OpenAi));
            out.extend_from_slice(b"\n\n");
        }
    }
    out
}

/// Fields of betas, which servers that do not know the beta refuse: its header goes no further, and so do they.
const OF_BETAS: [&str; 3] = ["container", "context_management", "mcp_servers"];

/// Fields that ask for what an answer that is put in order has no place for.
const OF_OTHER_ANSWERS: [&str; 4] = ["audio", "logprobs", "modalities", "top_logprobs"];

/// Fields that are known, and noted in words of their own.
const NOTED: [&str; 4] = ["store", "stream_options", "system", "truncation"];

/// What is known in part: of these objects single fields are carried.
const IN_PART: [&str; 3] = ["output_config", "reasoning", "text"];

/// Takes the fields of a request that nobody here knows, for providers of its own format. Their notes are taken out of `notes`.
pub(super) fn carried(format: PassFormat, body: &[u8], notes: &mut Vec<String>) -> Option<Carried> {
    Carried::take(format, body, notes, |field| match field.split_once('.') {
        Some((head, _)) => IN_PART.contains(&head),
        None => !OF_BETAS.contains(&field) && !OF_OTHER_ANSWERS.contains(&field) && !NOTED.contains(&field),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_end_of_a_broken_answer_has_the_form_of_its_format() {
        let error = ProviderError::Truncated { reason: "the line went dead".into() };
        let mark = Mark { id: Some("resp_7".into()), next: 5 };
        let told = |format| String::from_utf8(cut_off(format, &error, &mark)).unwrap();
        let json = |text: &str| serde_json::from_str::<Value>(text.split_once("data: ").unwrap().1).unwrap();
        let messages = told(PassFormat::Messages);
        assert!(messages.starts_with("event: error\n") && messages.ends_with("\n\n"), "{messages}");
        assert_eq!(json(&messages)["type"], "error");
        let responses = told(PassFormat::Responses);
        assert!(responses.starts_with("event: response.failed\n"), "{responses}");
        let event = json(&responses);
        assert_eq!((&event["sequence_number"], &event["response"]["id"]), (&json!(5), &json!("resp_7")));
        assert!(event["response"]["error"]["message"].as_str().unwrap().contains("the line went dead"));
        assert_eq!(json(&told(PassFormat::ChatCompletions))["error"]["code"], "truncated");
    }

    #[test]
    fn a_request_for_something_of_this_program_does_not_go_through() {
        let read = |body: &'static [u8]| pass_request(PassFormat::Responses, Bytes::from_static(body), &[]);
        assert!(read(br#"{"background":true,"input":"Hi"}"#).unwrap().is_none());
        assert!(read(br#"{"background":false,"input":"Hi"}"#).unwrap().is_some());
        for format in
            [PassFormat::ChatCompletions, PassFormat::Completions, PassFormat::Messages, PassFormat::CountTokens]
        {
            let passed = pass_request(format, Bytes::from_static(br#"{"background":true}"#), &[]).unwrap();
            assert!(passed.is_some(), "{format:?} has no such field: it is the provider's business");
        }
        for (body, words) in [
            (&b"[]"[..], "it is no whole JSON object"),
            (b"", "it has no body"),
            (b"\xff\xfe{\0", "no UTF-8"),
            (b"{\"a\":1,}", "at line 1 column 8"),
        ] {
            let fault = read(body).unwrap_err();
            assert!(fault.status == 400 && fault.to_string().contains(words), "{fault}");
        }
        assert_eq!(read(br#"{"model":"default"}"#).unwrap().unwrap().model, None);
    }
}
