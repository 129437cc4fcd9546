//! The fields of a request that say how to answer, as far as the formats differ in them.

use serde_json::{Map, Value};

use super::said::invalid;
use crate::error::ProviderError;
use crate::message::ChatRequest;
use crate::notes::Notes;

/// A temperature from 0 to `most`; one above counts as `most`, and is noted.
///
/// # Errors
/// It is below 0.
pub(super) fn temperature(request: &ChatRequest, most: f64, notes: &mut Notes) -> Result<Option<f64>, ProviderError> {
    let Some(temperature) = request.temperature else { return Ok(None) };
    // A comparison with what is no number is false.
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return Err(invalid(&format!("temperature {temperature} is out of range; give 0 or more")));
    }
    if temperature > most {
        notes.add(&format!("temperature {temperature} was sent as {most}: this provider takes 0 to {most}"));
        return Ok(Some(most));
    }
    Ok(Some(temperature))
}

/// A share from 0 to 1.
///
/// # Errors
/// It is out of this range.
pub(super) fn top_p(request: &ChatRequest) -> Result<Option<f64>, ProviderError> {
    match request.top_p {
        Some(share) if !(0.0..=1.0).contains(&share) => {
            Err(invalid(&format!("top_p {share} is out of range; give 0 to 1")))
        }
        share => Ok(share),
    }
}

/// A number of tokens that is one.
pub(super) fn max_tokens(request: &ChatRequest) -> Option<u32> {
    request.max_tokens.filter(|tokens| *tokens > 0)
}

/// Checks the texts that end the answer.
///
/// # Errors
/// There are more than `most`.
pub(super) fn check_stop(request: &ChatRequest, most: usize) -> Result<(), ProviderError> {
    let count = request.stop.len();
    if count > most {
        return Err(invalid(&format!("stop has {count} texts; this provider takes at most {most}")));
    }
    Ok(())
}

/// The form of the answer, if one is asked for: `json_object`, or `json_schema` with the schema, its name and so on.
///
/// # Errors
/// It is none of the forms.
pub(super) fn response_format(request: &ChatRequest) -> Result<Option<Form<'_>>, ProviderError> {
    let Some(format) = request.response_format.as_ref().filter(|format| !format.is_null()) else { return Ok(None) };
    match (format.get("type").and_then(Value::as_str), format.get("json_schema").and_then(Value::as_object)) {
        (Some("text"), _) => Ok(None),
        (Some("json_object"), _) => Ok(Some(Form::Object)),
        (Some("json_schema"), Some(schema)) if schema.get("name").is_some_and(Value::is_string) => {
            Ok(Some(Form::Schema(schema)))
        }
        (Some("json_schema"), _) => {
            Err(invalid("response_format of type json_schema needs json_schema: an object with a name and a schema"))
        }
        _ => Err(invalid("response_format must be an object whose type is text, json_object or json_schema")),
    }
}

/// The form of the answer as it came, for servers that have forms of their own, such as a `grammar`, or a schema without a name.
///
/// # Errors
/// It is no object that says what it is.
pub(super) fn any_response_format(request: &ChatRequest) -> Result<Option<&Value>, ProviderError> {
    let Some(format) = request.response_format.as_ref().filter(|format| !format.is_null()) else { return Ok(None) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some(_) => Ok(Some(format)),
        None => Err(invalid("response_format must be an object with a type, such as json_object or json_schema")),
    }
}

/// What the provider keeps with the request. A `user_id` alone is Anthropic's word for who asks, and of use there alone.
pub(super) fn metadata<'a>(request: &'a ChatRequest, notes: &mut Notes) -> Option<&'a Map<String, Value>> {
    let metadata = Some(&request.metadata).filter(|metadata| !metadata.is_empty())?;
    if metadata.keys().eq(["user_id"]) {
        notes.left_out("`metadata.user_id`", "only Anthropic's messages have it");
        return None;
    }
    Some(metadata)
}

/// A form of an answer other than text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    Object,
    Schema(&'a Map<String, Value>),
}

/// The optional fields that only some formats have, each with whether a request sets it.
pub(super) fn note_left_out(request: &ChatRequest, fields: &[&str], reason: &str, notes: &mut Notes) {
    for field in fields {
        let is_set = match *field {
            "top_k" => request.top_k.is_some(),
            "seed" => request.seed.is_some(),
            "presence_penalty" => request.presence_penalty.is_some_and(|penalty| penalty != 0.0),
            "frequency_penalty" => request.frequency_penalty.is_some_and(|penalty| penalty != 0.0),
            "logprobs" => request.logprobs,
            "top_logprobs" => request.top_logprobs.is_some(),
            "logit_bias" => !request.logit_bias.is_empty(),
            "metadata" => !request.metadata.is_empty(),
            "reasoning_effort" => request.reasoning_effort.is_some(),
            "thinking" => request.thinking.as_ref().is_some_and(|thinking| thinking["type"] != "disabled"),
            _ => unreachable!("no optional field is called {field}"),
        };
        if is_set {
            notes.left_out(&format!("`{field}`"), reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(field: &str, value: &Value) -> ChatRequest {
        serde_json::from_value(json!({"messages": [], field: value})).unwrap()
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_by_name_or_brought_into_it_and_noted() {
        for (value, expected, noted) in [(1.7, Some(1.0), 1), (1.0, Some(1.0), 0), (0.0, Some(0.0), 0), (-0.1, None, 0)]
        {
            let mut notes = Notes::default();
            let outcome = temperature(&request("temperature", &value.into()), 1.0, &mut notes);
            assert_eq!((outcome.clone().ok().flatten(), notes.into_vec().len()), (expected, noted), "{value}");
            assert_eq!(outcome.is_ok(), expected.is_some());
        }
        for value in [-0.1, 1.5] {
            let fault = top_p(&request("top_p", &value.into())).unwrap_err().to_string();
            assert!(fault.contains("top_p") && fault.contains("0 to 1"), "{fault}");
        }
        let fault = check_stop(&request("stop", &json!(["a", "b"])), 1).unwrap_err().to_string();
        assert!(fault.contains("stop has 2 texts"), "{fault}");
    }

    #[test]
    fn a_form_that_is_none_is_refused() {
        assert!(response_format(&request("response_format", &json!({"type": "text"}))).unwrap().is_none());
        assert!(response_format(&request("response_format", &json!(null))).unwrap().is_none());
        for format in [
            json!("json"),
            json!({}),
            json!({"type": "xml"}),
            json!({"type": "json_schema"}),
            json!({"type": "json_schema", "json_schema": {"schema": {}}}),
        ] {
            let fault = response_format(&request("response_format", &format)).unwrap_err().to_string();
            assert!(fault.contains("response_format"), "{fault}");
        }
        for format in [json!({"type": "json_schema", "schema": {}}), json!({"type": "grammar", "value": "x"})] {
            let request = request("response_format", &format);
            assert_eq!(any_response_format(&request).unwrap(), Some(&format));
        }
        assert!(any_response_format(&request("response_format", &json!("json"))).is_err());
        assert_eq!(any_response_format(&request("response_format", &json!({"type": "text"}))).unwrap(), None);
    }
}
