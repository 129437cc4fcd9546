//! Vectors of texts. The request goes to the provider as it came, but for the model's name; so does the answer come back, but
//! for the form of the vectors where the provider did not keep to the one that was asked for.

mod input;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use self::input::look;
use super::fault::Fault;
use super::wire::{DEFAULT_MODEL, read_wire, route};
use crate::asker::Asker;
use crate::error::{Excerpt, ProviderError};
use crate::json;
use crate::provider::EmbeddingRequest;
use crate::room::AnswerRoom;
use crate::text::{base64, from_base64};

/// Reads a request for vectors. `providers`: the names that may stand before a model's name. Also whether the vectors are to
/// come as base64 of little-endian 32-bit numbers, in place of lists of numbers.
///
/// ```
/// use bellrope_gateway::inbound::embedding_request;
///
/// let body = br#"{"model":"openai/text-embedding-3-small","input":"Hi","encoding_format":"base64"}"#;
/// let (request, is_base64) = embedding_request(body, &["openai".to_owned()])?;
/// assert_eq!((request.model.as_deref(), is_base64), (Some("text-embedding-3-small"), true));
/// # Ok::<(), bellrope_gateway::inbound::Fault>(())
/// ```
///
/// # Errors
/// It is no object, or has no input.
pub fn embedding_request(body: &[u8], providers: &[String]) -> Result<(EmbeddingRequest, bool), Fault> {
    #[derive(Deserialize)]
    struct Wire {
        model: Option<String>,
        input: Box<RawValue>,
        encoding_format: Option<String>,
    }

    let Wire { model, input, encoding_format } = read_wire(body)?;
    let texts = look(&input).map_err(|words| Fault::invalid(Some("input"), words))?;
    let (provider, model) = route(model.as_deref().unwrap_or(DEFAULT_MODEL), providers);
    let mut fields: Map<String, Value> = read_wire(body)?;
    fields.remove("model");
    let fields = Value::Object(fields).to_string();
    let (caller, asker, key, room) = (None, Asker::default(), None, AnswerRoom::default());
    let request = EmbeddingRequest { provider, model, fields, texts, caller, asker, key, room };
    Ok((request, encoding_format.as_deref() == Some("base64")))
}

/// The answer of a provider, with its vectors in the form that was asked for, and in the order of their texts.
///
/// # Errors
/// It is no JSON.
pub fn embedding_response(answer: &[u8], is_base64: bool) -> serde_json::Result<Vec<u8>> {
    let mut answer: Value = json::from_slice(answer)?;
    let rows = answer.get_mut("data").and_then(Value::as_array_mut).into_iter().flatten();
    for vector in rows.filter_map(|row| row.get_mut("embedding")) {
        let other = match vector {
            Value::Array(numbers) if is_base64 => numbers_of(numbers).map(|numbers| encoded(&numbers).into()),
            Value::String(text) if !is_base64 => decoded(text).map(Value::from),
            _ => None,
        };
        if let Some(other) = other {
            *vector = other;
        }
    }
    put_in_order(&mut answer);
    serde_json::to_vec(&answer)
}

/// The error of an answer that is no list of vectors.
pub fn odd_vectors(error: &serde_json::Error) -> ProviderError {
    let reason = Excerpt::new(&error.to_string());
    if error.is_eof() { ProviderError::Truncated { reason } } else { ProviderError::Malformed { reason } }
}

/// Puts vectors in the order of their texts, as many tools go by that alone, and has each say its place as a number.
fn put_in_order(answer: &mut Value) {
    let Some(rows) = answer.get_mut("data").and_then(Value::as_array_mut) else { return };
    let place = |(at, row): (usize, &Value)| match row.get("index") {
        None | Some(Value::Null) => Some(at),
        Some(Value::String(digits)) => digits.parse().ok(),
        Some(index) => usize::try_from(index.as_u64()?).ok(),
    };
    let Some(places) = rows.iter().enumerate().map(place).collect::<Option<Vec<_>>>() else { return };
    let mut placed: Vec<_> = places.into_iter().zip(rows.drain(..)).collect();
    placed.sort_by_key(|(place, _)| *place);
    rows.extend(placed.into_iter().map(|(place, mut row)| {
        if let Some(fields) = row.as_object_mut() {
            fields.insert("index".to_owned(), place.into());
        }
        row
    }));
}

#[expect(clippy::cast_possible_truncation, reason = "vectors are of 32-bit numbers")]
fn numbers_of(numbers: &[Value]) -> Option<Vec<f32>> {
    numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

/// Base64 of the numbers' bytes.
fn encoded(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    base64(&bytes)
}

/// The numbers whose bytes stand in base64.
fn decoded(text: &str) -> Option<Vec<f32>> {
    let bytes = from_base64(text)?;
    let numbers = bytes.chunks_exact(4);
    numbers
        .remainder()
        .is_empty()
        .then(|| numbers.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_but_the_model_goes_on_as_it_came() {
        let body = json!({"model": "p/m/x", "input": ["a", "b"], "dimensions": 256, "later": {"x": [1]}});
        let (request, is_base64) = embedding_request(body.to_string().as_bytes(), &["p".to_owned()]).unwrap();
        assert_eq!((request.provider.as_deref(), request.model.as_deref(), is_base64), (Some("p"), Some("m/x"), false));
        let fields: Value = serde_json::from_str(&request.fields).unwrap();
        assert_eq!(fields, json!({"input": ["a", "b"], "dimensions": 256, "later": {"x": [1]}}));
        for (body, words) in [
            (json!({"model": "m"}), "missing field `input`"),
            (json!({"input": ""}), "there is no input"),
            (json!({"input": null}), "there is no input"),
            (json!({"input": []}), "there is no input"),
            (json!({"input": true}), "input is a text"),
            (json!({"input": -1}), "input is a text"),
            (json!({"input": {}}), "input is a text"),
            (json!({"input": [{}]}), "input[0] is odd: each element of input"),
            (json!({"input": ["a", null]}), "each element of input"),
            (json!([]), "cannot be read"),
        ] {
            let fault = embedding_request(body.to_string().as_bytes(), &[]).unwrap_err().to_string();
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn vectors_come_in_the_form_that_was_asked_for() {
        let answer = |vector: Value| json!({"data": [{"index": 0, "embedding": vector}], "usage": {"total_tokens": 1}});
        let (numbers, text) = (json!([1.0, -2.5]), json!("AACAPwAAIMA="));
        for (sent, is_base64, expected) in
            [(&numbers, true, &text), (&text, true, &text), (&text, false, &numbers), (&numbers, false, &numbers)]
        {
            let sent = answer(sent.clone()).to_string();
            let seen = embedding_response(sent.as_bytes(), is_base64).unwrap();
            let seen: Value = serde_json::from_slice(&seen).unwrap();
            assert_eq!(seen, answer(expected.clone()), "{is_base64}");
        }
        for odd in [json!("!"), json!("AAA"), json!({"a": 1})] {
            let seen = embedding_response(answer(odd.clone()).to_string().as_bytes(), false).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&seen).unwrap(), answer(odd), "what cannot be read stays");
        }
        assert!(embedding_response(b"<html>", true).is_err());
    }

    #[test]
    fn vectors_come_in_the_order_of_their_texts() {
        let row = |index: Value, number: f64| json!({"index": index, "embedding": [number]});
        let (first, second) = (row(json!(0), 1.0), row(json!(1), 2.0));
        for rows in [
            [second.clone(), first.clone()],
            [first.clone(), second.clone()],
            [row(json!("1"), 2.0), row(json!("0"), 1.0)],
            [row(json!(null), 1.0), json!({"embedding": [2.0]})],
        ] {
            let mut answer = json!({"data": rows});
            put_in_order(&mut answer);
            assert_eq!(answer, json!({"data": [first, second]}));
        }
        let odd = json!({"data": [row(json!({}), 2.0), first]});
        let mut same = odd.clone();
        put_in_order(&mut same);
        assert_eq!(same, odd);
    }

    #[test]
    fn every_length_is_written_so_that_it_is_read_again() {
        for count in 0..9_u8 {
            let numbers: Vec<f32> = (0..count).map(|number| f32::from(number) - 0.3).collect();
            assert_eq!(decoded(&encoded(&numbers)), Some(numbers));
        }
    }
}
