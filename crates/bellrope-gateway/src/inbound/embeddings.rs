//! Vectors of texts. The request goes to the provider as it came, but for the model's name; so does the answer come back, but
//! for the form of the vectors where the provider did not keep to the one that was asked for.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::fault::Fault;
use super::wire::{DEFAULT_MODEL, read_wire, route};
use crate::asker::Asker;
use crate::error::{Excerpt, ProviderError};
use crate::json;
use crate::provider::EmbeddingRequest;
use crate::room::AnswerRoom;

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
    if matches!(input.get(), "null" | "[]" | "\"\"") {
        return Err(Fault::invalid(Some("input"), "there is no input"));
    }
    let (provider, model) = route(model.as_deref().unwrap_or(DEFAULT_MODEL), providers);
    let mut fields: Map<String, Value> = read_wire(body)?;
    fields.remove("model");
    let fields = Value::Object(fields).to_string();
    let (caller, asker, key, room) = (None, Asker::default(), None, AnswerRoom::default());
    let texts = Some(texts_in(input.get()));
    let request = EmbeddingRequest { provider, model, fields, texts, caller, asker, key, room };
    Ok((request, encoding_format.as_deref() == Some("base64")))
}

/// How many texts an input has: a list of numbers is one.
fn texts_in(input: &str) -> usize {
    match serde_json::from_str::<Vec<&RawValue>>(input) {
        Ok(list) if list.iter().all(|text| text.get().starts_with(['"', '['])) => list.len(),
        _ => 1,
    }
}

/// The answer of a provider, with its vectors in the form that was asked for. `texts`: for how many of them a vector is to come.
///
/// # Errors
/// It is no JSON, or has not one vector for each text: whoever keeps them would keep them for others.
pub fn embedding_response(answer: &[u8], is_base64: bool, texts: Option<usize>) -> serde_json::Result<Vec<u8>> {
    let mut answer: Value = json::from_slice(answer)?;
    check(&answer, texts).map_err(serde::de::Error::custom)?;
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
    serde_json::to_vec(&answer)
}

/// The error of an answer that is no list of vectors.
pub fn odd_vectors(error: &serde_json::Error) -> ProviderError {
    let reason = Excerpt::new(&error.to_string());
    if error.is_eof() { ProviderError::Truncated { reason } } else { ProviderError::Malformed { reason } }
}

fn check(answer: &Value, texts: Option<usize>) -> Result<(), String> {
    let rows = answer.get("data").and_then(Value::as_array).ok_or("there is no list `data` of vectors")?;
    if let Some(texts) = texts.filter(|texts| *texts != rows.len()) {
        return Err(format!("{} vectors came for {texts} texts", rows.len()));
    }
    let is_vector =
        |row: &Value| matches!(row.get("embedding"), Some(Value::Array(_) | Value::String(_) | Value::Object(_)));
    if let Some(at) = rows.iter().position(|row| !is_vector(row)) {
        return Err(format!("`data[{at}]` has no vector"));
    }
    let indices: Vec<_> = rows.iter().filter_map(|row| row.get("index")).filter_map(Value::as_u64).collect();
    let known: HashSet<_> = indices.iter().collect();
    if known.len() < indices.len() || indices.iter().any(|index| *index >= rows.len() as u64) {
        return Err("the vectors do not say which text each of them is of: their `index` is odd".to_owned());
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "vectors are of 32-bit numbers")]
fn numbers_of(numbers: &[Value]) -> Option<Vec<f32>> {
    numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 of the numbers' bytes.
fn encoded(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| u32::from(group.get(at).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The numbers whose bytes stand in base64.
fn decoded(text: &str) -> Option<Vec<f32>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
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
            let seen = embedding_response(sent.as_bytes(), is_base64, Some(1)).unwrap();
            let seen: Value = serde_json::from_slice(&seen).unwrap();
            assert_eq!(seen, answer(expected.clone()), "{is_base64}");
        }
        for odd in [json!("!"), json!("AAA"), json!({"a": 1})] {
            let seen = embedding_response(answer(odd.clone()).to_string().as_bytes(), false, None).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&seen).unwrap(), answer(odd), "what cannot be read stays");
        }
        assert!(embedding_response(b"<html>", true, None).is_err());
    }

    #[test]
    fn vectors_that_are_not_one_for_each_text_are_refused() {
        let (zero, one) = (json!({"index": 0, "embedding": [1.0]}), json!({"index": 1, "embedding": [2.0]}));
        let of = |rows: &[&Value], texts| {
            let answer = json!({ "data": rows }).to_string();
            embedding_response(answer.as_bytes(), false, texts).map(drop).map_err(|error| odd_vectors(&error))
        };
        assert!(of(&[&zero, &one], Some(2)).is_ok() && of(&[&one, &zero], Some(2)).is_ok());
        assert!(of(&[&zero, &one], None).is_ok());
        let (null, far) = (json!({"index": 1, "embedding": null}), json!({"index": 9, "embedding": [1.0]}));
        for (rows, texts) in [
            (&[&zero][..], 2),
            (&[&zero, &one], 1),
            (&[], 1),
            (&[&zero, &null], 2),
            (&[&zero, &zero], 2),
            (&[&zero, &far], 2),
        ] {
            assert_eq!(of(rows, Some(texts)).unwrap_err().code(), "malformed", "{rows:?}");
        }
        let cut = embedding_response(b"{\"data\":[{\"embedding\":[1", false, Some(1)).unwrap_err();
        assert_eq!(odd_vectors(&cut).code(), "truncated");
        for (input, texts) in [("\"a\"", 1), ("[\"a\",\"b\"]", 2), ("[1,2,3]", 1), ("[[1],[2]]", 2)] {
            assert_eq!(texts_in(input), texts, "{input}");
        }
    }

    #[test]
    fn every_length_is_written_so_that_it_is_read_again() {
        for count in 0..9_u8 {
            let numbers: Vec<f32> = (0..count).map(|number| f32::from(number) - 0.3).collect();
            assert_eq!(decoded(&encoded(&numbers)), Some(numbers));
        }
    }
}
