//! What the words of an error name: the provider's own code, and the field that is at fault. Errors travel as words, also from server
//! to server.

use crate::error::AT;

/// What the words of a provider's refusal begin with, before its status.
const REFUSED: &str = "the provider answered ";

/// What a provider's error within an answer begins with.
const BROKE_OFF: &str = "the provider broke off with ";

/// What the words for a request that contradicts itself began with in an earlier version, which a server of a fleet may be.
const EARLIER: &str = "the request is invalid: ";

/// Whether the words of an error are those of a provider's refusal.
pub(super) fn is_providers(message: &str) -> bool {
    message.starts_with(REFUSED) || message.starts_with(BROKE_OFF)
}

/// The provider's own code in the words of its refusal, if it says more than that the request is at fault: tools act on some, as on
/// `unsupported_parameter`.
pub(super) fn providers_code(message: &str) -> Option<&str> {
    let (status, rest) = message.strip_prefix(REFUSED)?.split_once(" (")?;
    let (code, _) = rest.split_once("):").filter(|_| status.bytes().all(|byte| byte.is_ascii_digit()))?;
    let is_word = code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let says_more = code.contains('_') && !code.ends_with("_error") && code != "invalid_request";
    (is_word && says_more).then_some(code)
}

/// The fields of requests by which errors name what is wrong: all that the formats of OpenAI know, so that its tools are told.
const FIELDS: [&str; 45] = [
    "audio",
    "background",
    "best_of",
    "conversation",
    "dimensions",
    "echo",
    "encoding_format",
    "frequency_penalty",
    "functions",
    "include",
    "input",
    "instructions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "suffix",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

/// The field, or the place in one, that the words of an error name: at their beginning, or in quotes where they are a provider's.
pub(super) fn named_field(message: &str) -> Option<&str> {
    let is_field = |place: &&str| FIELDS.contains(&place.split(['.', '[']).next().unwrap_or_default());
    let end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '[' | ']'));
    let Some(words) = message.strip_prefix(REFUSED) else {
        // This program's own begin with the field.
        let words = message.strip_prefix(EARLIER).unwrap_or(message).trim_start_matches('`');
        return Some(&words[..words.find(end).unwrap_or(words.len())]).filter(is_field);
    };
    if let Some((_, place)) = words.split_once(AT) {
        return place.split('`').next();
    }
    let quoted = |quote: char| words.split(quote).skip(1).step_by(2).find(is_field);
    quoted('\'').or_else(|| quoted('`'))
}

#[cfg(test)]
mod tests {
    use super::{FIELDS, named_field};
    use crate::inbound::{ErrorForm, Fault, chat_completions, completions, responses};
    use crate::message::ErrorInfo;
    use crate::message::fields::Known;

    #[test]
    fn a_refused_request_keeps_the_providers_code_and_the_field_that_it_names() {
        let unsupported = "the provider answered 400 (unsupported_parameter): Unsupported parameter: 'max_tokens' is not supported \
            with this model. Use 'max_completion_tokens' instead.";
        for (message, code, param) in [
            (unsupported, "unsupported_parameter", Some("max_tokens")),
            (
                "the provider answered 400 (unsupported_value): 'temperature' does not",
                "unsupported_value",
                Some("temperature"),
            ),
            (
                "the provider answered 400 (invalid_value): bad (at `messages[1].role`)",
                "invalid_value",
                Some("messages[1].role"),
            ),
            ("the provider answered 400 (invalid_request_error): 'x' is no field", "invalid_request", None),
            ("the provider answered 400 (400): no", "invalid_request", None),
            ("the provider answered 400: see (a_b): no", "invalid_request", None),
            (
                "the request is invalid: temperature -1 is out of range; give 0 or more",
                "invalid_request",
                Some("temperature"),
            ),
            ("tools[1].name is empty", "invalid_request", Some("tools[1].name")),
            ("`input` has to be a text", "invalid_request", Some("input")),
            ("it has no messages", "invalid_request", None),
        ] {
            let info = ErrorInfo { code: "invalid_request".into(), message: message.into(), ..ErrorInfo::default() };
            let body: serde_json::Value = serde_json::from_slice(&Fault::from(info).body(ErrorForm::OpenAi)).unwrap();
            let error = &body["error"];
            assert_eq!((error["code"].as_str(), error["param"].as_str()), (Some(code), param), "{message}");
        }
    }

    #[test]
    fn an_error_may_name_each_field_that_a_format_of_openai_has() {
        for known in [&chat_completions::KNOWN, &completions::KNOWN, &responses::KNOWN] {
            let Known::Fields(fields) = known else { panic!("a request is an object") };
            for (field, _) in *fields {
                assert!(FIELDS.contains(field), "FIELDS lacks {field}: an error about it would have no `param`");
                let refused = format!("the provider answered 400: Unsupported value: '{field}' does not support this");
                assert_eq!(named_field(&refused), Some(*field));
            }
        }
    }
}
