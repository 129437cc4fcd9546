//! `serve --api-port` before a provider that answers otherwise than it should.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
};

use serde_json::{Value, json};

use crate::{
    api_formats::{Response, exchange, get, post},
    api_port::address,
    support::{Home, PATIENCE, Running},
};

/// A provider that answers every request with what is made of its first line. Its threads end with the process of the test.
fn provider(answer: fn(&str) -> (&'static str, String)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                first = if first.is_empty() { line } else { first };
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let (status, body) = answer(&first);
            let head = "Content-Type: application/json\r\nConnection: close\r\n";
            let _ = write!(stream, "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

fn serve(home: &Home, url: &str) -> Running {
    let variables = [("OPENAI_BASE_URL", url), ("OPENAI_MODEL", "usual")];
    home.serve_with(["--provider", "openai", "--api-port", "0"], &variables)
}

#[test]
fn a_provider_that_cannot_list_its_models_has_the_one_that_is_set_and_may_have_others() {
    let home = Home::new();
    let url = provider(|_| ("404 Not Found", json!({"error": {"message": "no such path"}}).to_string()));
    let server = serve(&home, &url);
    let address = address(&server);
    let ids = |list: &Response| -> Vec<String> {
        let list = list.json();
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    };
    let list = get(&address, "/v1/models");
    assert_eq!(ids(&list), ["embedded/embedded", "openai/usual"]);
    let note = "the models of `openai` are not known: the provider answered 404";
    assert!(list.header("x-bellrope-notes").is_some_and(|notes| notes.contains(note)), "{list:?}");
    for path in ["/v1/models/openai%2Fother", "/v1/models/openai/other", "//v1//models/other"] {
        let model = get(&address, path);
        assert!(model.status == 200 && model.json()["id"].as_str().unwrap().ends_with("other"), "{path}: {model:?}");
        assert!(model.header("x-bellrope-notes").is_some_and(|notes| notes.contains(note)), "{path}: {model:?}");
    }
    let version = "anthropic-version: 2023-06-01\r\n";
    let model = exchange(&address, "GET", "/v1/models/openai%2Fother", version, "").json();
    assert_eq!((&model["type"], &model["id"]), (&json!("model"), &json!("openai/other")));
    assert_eq!(get(&address, "/v1/models/embedded%2Fother").status, 404, "that one lists its models");
}

#[test]
fn a_fallback_that_has_no_place_for_a_request_does_not_hide_why_the_first_provider_failed() {
    let home = Home::new();
    let first = provider(|_| ("503 Service Unavailable", json!({"error": {"message": "too busy"}}).to_string()));
    let second = provider(|_| ("500 Internal Server Error", String::new()));
    for pass_through in ["exact", "repaired"] {
        let config = home.config(&format!(
            "[gateway]\nprovider = \"first\"\nfallback = [\"second\"]\n\
             [gateway.providers.first]\nkind = \"openai\"\nbase_url = \"{first}/v1\"\nmodel = \"m\"\n\
             pass_through = \"{pass_through}\"\n\
             [gateway.providers.second]\nkind = \"openai-responses\"\nbase_url = \"{second}/v1\"\nmodel = \"m\"\n"
        ));
        let server = home.serve(["--api-port".as_ref(), "0".as_ref(), "--config".as_ref(), config.as_os_str()]);
        let address = address(&server);
        let question = json!([{"role": "user", "content": "Hi"}]);
        for stream in [false, true] {
            // Responses have no texts that end an answer, and nobody here reads sound.
            let sound = json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}]);
            let requests = [
                json!({"messages": question, "stop": ["END"], "stream": stream}),
                json!({"messages": sound, "stream": stream}),
            ];
            // What is put in order is read before anybody is asked.
            for request in &requests[..if pass_through == "exact" { 2 } else { 1 }] {
                let failed = post(&address, "/v1/chat/completions", request);
                assert!(
                    failed.status == 503 && failed.body.contains("too busy"),
                    "{pass_through} {request}: {failed:?}"
                );
                assert_eq!(failed.header("x-should-retry"), Some("true"), "{pass_through} {request}: {failed:?}");
            }
        }
    }
}

#[test]
fn one_odd_model_hides_no_other() {
    let home = Home::new();
    let url = provider(|_| {
        let entries =
            [json!({"id": null}), json!({"id": "a", "owned_by": 5}), json!("b"), json!({"name": "c"}), Value::Null];
        ("200 OK", json!(entries).to_string())
    });
    let server = serve(&home, &url);
    let list = get(&address(&server), "/v1/models");
    let ids: Vec<_> = list.json()["data"].as_array().unwrap().iter().map(|model| model["id"].to_string()).collect();
    assert_eq!(ids, ["\"embedded/embedded\"", "\"openai/a\"", "\"openai/b\"", "\"openai/c\""]);
    assert_eq!(list.header("x-bellrope-notes"), None);
}

#[test]
fn a_refusal_keeps_the_providers_code_and_field_and_a_request_that_cannot_be_read_names_its_own() {
    let home = Home::new();
    let url = provider(|_| {
        let error = json!({"message": "Unsupported parameter: it is not known", "param": "max_tokens", "code": "unsupported_parameter"});
        ("400 Bad Request", json!({ "error": error }).to_string())
    });
    let server = serve(&home, &url);
    let address = address(&server);
    for (path, field) in
        [("/v1/chat/completions", "messages"), ("/v1/responses", "input"), ("/v1/completions", "prompt")]
    {
        let question = match field {
            "messages" => json!([{"role": "user", "content": "Hi"}]),
            _ => json!("Hi"),
        };
        for stream in [false, true] {
            let refused = post(&address, path, &json!({field: question, "stream": stream}));
            let error = &refused.json()["error"];
            assert_eq!(refused.status, 400, "{path}: {refused:?}");
            assert_eq!(
                (&error["code"], &error["param"]),
                (&json!("unsupported_parameter"), &json!("max_tokens")),
                "{path}"
            );
        }
        let error = post(&address, path, &json!({field: question, "temperature": {}})).json()["error"].clone();
        assert_eq!(error["param"], "temperature", "{path}: {error}");
        let kind = "Content-Type: application/json\r\n";
        for (body, words) in [("", "it has no body"), ("{\"a\":1,}", "at line 1 column 8"), ("[]", "")] {
            let refused = exchange(&address, "POST", path, kind, body);
            assert!(refused.status == 400 && refused.body.contains(words), "{path}: {refused:?}");
            assert!(!refused.body.contains("struct"), "{path}: {refused:?}");
        }
    }
}
