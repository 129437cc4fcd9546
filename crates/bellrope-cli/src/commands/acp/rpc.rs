//! JSON-RPC: what one line of the editor's means, and the lines that answer it.

use std::fmt;

use agent_client_protocol_schema::v1::{Error, RequestId, SessionNotification};
use bellrope_gateway::json;
use serde::{
    Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, json};

/// What a line of the editor's means.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Request {
        id: RequestId,
        method: String,
        params: Value,
    },
    Notification {
        method: String,
        params: Value,
    },
    /// A response: to what was asked of the editor, or to nothing.
    Response {
        id: Option<RequestId>,
        answer: Result<Value, String>,
    },
    /// No message. The editor is told, with the id null.
    Refused(Error),
}

/// Reads a line.
pub(super) fn parse(line: &str) -> Incoming {
    let Ok(value) = json::from_str(line) else {
        return Incoming::Refused(Error::parse_error().data(json!({ "line": line })));
    };
    match value {
        Value::Object(object) => message(object).unwrap_or_else(|| Incoming::Refused(Error::invalid_request())),
        Value::Array(_) => {
            let told = "JSON-RPC batches are not supported; send each message individually";
            Incoming::Refused(Error::invalid_request().data(Value::from(told)))
        }
        _ => Incoming::Refused(Error::invalid_request()),
    }
}

fn message(mut object: Map<String, Value>) -> Option<Incoming> {
    let outcome = object.contains_key("result") || object.contains_key("error");
    let Some(method) = object.remove("method") else {
        return outcome.then(|| response(object));
    };
    let Value::String(method) = method else { return None };
    if outcome || object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return None;
    }
    let params = object.remove("params").unwrap_or(Value::Null);
    if !matches!(params, Value::Null | Value::Array(_) | Value::Object(_)) {
        return None;
    }
    Some(match object.remove("id") {
        Some(id) => Incoming::Request { id: serde_json::from_value(id).ok()?, method, params },
        None => Incoming::Notification { method, params },
    })
}

fn response(mut object: Map<String, Value>) -> Incoming {
    let id = object.remove("id").and_then(|id| serde_json::from_value(id).ok());
    let answer = match object.remove("error") {
        None => Ok(object.remove("result").unwrap_or_default()),
        Some(error) => Err(error.get("message").and_then(Value::as_str).unwrap_or("it failed").to_owned()),
    };
    Incoming::Response { id, answer }
}

/// The line that asks the editor something.
pub(super) fn question(id: u64, method: &str, params: &Value) -> String {
    // A tree with text keys: writing it cannot fail.
    line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).unwrap_or_default()
}

/// The id of a request, in the beginning of its line.
pub(super) fn id_in(beginning: &str) -> Option<RequestId> {
    struct Ids(Option<RequestId>);

    impl<'de> Visitor<'de> for &mut Ids {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a message")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
            while let Some(name) = fields.next_key::<String>()? {
                if name == "id" {
                    self.0 = Some(fields.next_value()?);
                    break;
                }
                fields.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut ids = Ids(None);
    // It ends in the middle: what was found before that counts.
    let _ = serde_json::Deserializer::from_str(beginning).deserialize_map(&mut ids);
    ids.0
}

/// Reads the parameters of a method.
pub(super) fn params<T: DeserializeOwned>(params: &Value) -> Result<T, Error> {
    T::deserialize(params).map_err(|error| {
        let data = json!({ "error": error.to_string(), "json": params, "phase": "deserialization" });
        Error::invalid_params().data(data)
    })
}

/// The line of an answer.
pub(super) fn answer(id: &RequestId, outcome: Result<impl Serialize, Error>) -> String {
    #[derive(Serialize)]
    struct Good<'a, T> {
        jsonrpc: &'static str,
        id: &'a RequestId,
        result: T,
    }
    #[derive(Serialize)]
    struct Bad<'a> {
        jsonrpc: &'static str,
        id: &'a RequestId,
        error: Error,
    }
    let bad = |error| line(&Bad { jsonrpc: "2.0", id, error }).unwrap_or_default();
    match outcome {
        Ok(result) => {
            line(&Good { jsonrpc: "2.0", id, result }).unwrap_or_else(|error| bad(Error::into_internal_error(error)))
        }
        Err(error) => bad(error),
    }
}

/// The line of a piece of an answer.
pub(super) fn update(params: &SessionNotification) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Notification<'a> {
        jsonrpc: &'static str,
        method: &'static str,
        params: &'a SessionNotification,
    }
    line(&Notification { jsonrpc: "2.0", method: "session/update", params })
}

fn line(message: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use agent_client_protocol_schema::v1::{ErrorCode, PromptRequest};

    use super::*;

    fn refused(line: &str) -> Error {
        match parse(line) {
            Incoming::Refused(error) => error,
            other => panic!("{line} is {other:?}"),
        }
    }

    #[test]
    fn the_id_of_a_request_is_found_in_its_beginning_alone() {
        for (beginning, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"x":"cut"#, Some(RequestId::Number(7))),
            (r#"{"params":{"id":1},"id":"a","x":["#, Some(RequestId::Str("a".into()))),
            (r#"{"jsonrpc":"2.0","method":"m","params":{"id":1,"x":"cut"#, None),
            (r#"{"id":{},"method"#, None),
            ("xxxx", None),
        ] {
            assert_eq!(id_in(beginning), id, "{beginning}");
        }
    }

    #[test]
    fn requests_and_notifications_are_told_apart_by_the_id() {
        for (text, id) in
            [("7", RequestId::Number(7)), ("\"7\"", RequestId::Str("7".into())), ("null", RequestId::Null)]
        {
            let line = format!(r#"{{"jsonrpc":"2.0","id":{text},"method":"m","params":{{"a":1}}}}"#);
            let expected = Incoming::Request { id: id.clone(), method: "m".into(), params: json!({"a": 1}) };
            assert_eq!(parse(&line), expected);
            assert_eq!(answer(&id, Ok(json!({}))), format!("{{\"jsonrpc\":\"2.0\",\"id\":{text},\"result\":{{}}}}\n"));
        }
        let notification = parse(r#"{"jsonrpc":"2.0","method":"m"}"#);
        assert_eq!(notification, Incoming::Notification { method: "m".into(), params: Value::Null });
    }

    #[test]
    fn what_is_no_json_and_what_is_no_message_are_refused_each_with_its_code() {
        for line in ["{\"jsonrpc\": \"2.0\",", "nonsense", "{} {}", "["] {
            let error = refused(line);
            assert_eq!((error.code, error.data), (ErrorCode::ParseError, Some(json!({ "line": line }))));
        }
        for line in [
            "17",
            "null",
            "{}",
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"id":1,"method":"m"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":2}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":"p"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","result":1}"#,
        ] {
            assert_eq!((refused(line).code, refused(line).data), (ErrorCode::InvalidRequest, None), "{line}");
        }
        for line in ["[]", "[1, 2]", r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#] {
            let error = refused(line);
            assert_eq!(error.code, ErrorCode::InvalidRequest);
            assert!(error.data.unwrap().as_str().unwrap().starts_with("JSON-RPC batches are not supported"));
        }
    }

    #[test]
    fn responses_are_told_apart_even_where_they_are_wrong() {
        let right = parse(r#"{"jsonrpc":"2.0","id":3,"result":{"content":"x"}}"#);
        let id = Some(RequestId::Number(3));
        assert_eq!(right, Incoming::Response { id: id.clone(), answer: Ok(json!({"content": "x"})) });
        let wrong = parse(r#"{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":"no such file"}}"#);
        assert_eq!(wrong, Incoming::Response { id, answer: Err("no such file".to_owned()) });
        for line in [
            r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":99,"error":{"code":1,"message":"m"}}"#,
            r#"{"id":99,"result":1,"error":2}"#,
        ] {
            assert!(matches!(parse(line), Incoming::Response { .. }), "{line}");
        }
    }

    #[test]
    fn wrong_parameters_are_told_with_what_is_wrong_in_them() {
        let error = params::<PromptRequest>(&json!({"prompt": 3})).unwrap_err();
        assert_eq!(
            answer(&RequestId::Number(8), Err::<(), _>(error)),
            concat!(
                r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32602,"message":"Invalid params","data":"#,
                r#"{"error":"invalid type: integer `3`, expected a sequence","json":{"prompt":3},"phase":"deserialization"}}}"#,
                "\n"
            )
        );
    }
}
