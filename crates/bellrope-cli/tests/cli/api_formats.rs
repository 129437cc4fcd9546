//! `serve --api-port`: the formats beside chat completions, with raw HTTP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use bellrope_testkit::http;
use serde_json::{Value, json};

use crate::{
    api_port::address,
    provider::Provider,
    support::{Home, PATIENCE},
};

const PORT: [&str; 2] = ["--api-port", "0"];

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The names of the events of a stream, and their data.
    pub(crate) fn events(&self) -> Vec<(&str, Value)> {
        // Comments are nothing to a tool.
        let events = self.body.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
        let events = events.map(|event| event.strip_prefix("event: ").unwrap_or_else(|| panic!("{event:?}")));
        events
            .map(|event| {
                let (name, data) = event.split_once("\ndata: ").unwrap();
                (name, serde_json::from_str(data).unwrap())
            })
            .collect()
    }
}

/// Sends a request and reads the response to the end of the connection.
pub(crate) fn exchange(address: &str, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}");
    let length =
        if method == "GET" || method == "HEAD" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let _ = stream.write_all(format!("{head}{length}\r\n{body}").as_bytes());
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let (status, head, body) = http::response(&text);
    Response { status, head, body }
}

pub(crate) fn post(address: &str, path: &str, body: &Value) -> Response {
    exchange(address, "POST", path, "Content-Type: application/json\r\n", &body.to_string())
}

pub(crate) fn get(address: &str, path: &str) -> Response {
    exchange(address, "GET", path, "", "")
}

/// A provider that calls a tool.
fn calling() -> Provider {
    let call = json!({"index": 0, "id": "look:0", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}});
    Provider::of_events(&[
        json!({"choices": [{"index": 0, "delta": {"content": "I look."}}]}),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}),
    ])
}

#[test]
fn a_tool_of_anthropics_format_is_answered_by_a_provider_of_openais() {
    let home = Home::new();
    let provider = calling();
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let mut request = json!({
        "model": "openai/m[1m]", "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Look."}]}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "web_search"}],
        "metadata": {"user_id": "u"},
    });
    let whole = post(&address, "/v1/messages?beta=true", &request);
    let answer = whole.json();
    let [said, call] = &answer["content"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!((&said["text"], &call["input"], &call["name"]), (&json!("I look."), &json!({"at": 1}), &json!("look")));
    assert_eq!((&answer["stop_reason"], &answer["model"]), (&json!("tool_use"), &json!("openai/m[1m]")));
    assert_eq!((&answer["usage"]["input_tokens"], &answer["usage"]["output_tokens"]), (&json!(5), &json!(7)));
    let id = call["id"].as_str().unwrap();
    assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{id}");
    let notes = whole.header("x-bellrope-notes").unwrap();
    assert!(notes.contains("web_search") && notes.contains("cache_control"), "{notes}");
    let asked = provider.asked().pop().unwrap();
    assert_eq!((&asked["model"], &asked["max_tokens"]), (&json!("m"), &json!(9)));
    assert_eq!(asked["messages"][0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!((asked["tools"].as_array().unwrap().len(), asked.get("metadata")), (1, None));

    request["stream"] = json!(true);
    let result = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "a bell"}]});
    let messages = request["messages"].as_array_mut().unwrap();
    messages.extend([json!({"role": "assistant", "content": answer["content"]}), result]);
    let stream = post(&address, "/v1/messages", &request);
    assert!(stream.head.contains("text/event-stream"), "{stream:?}");
    let events = stream.events();
    assert!(events.iter().all(|(name, data)| data["type"] == *name), "{events:?}");
    let names: Vec<_> = events.iter().map(|(name, _)| *name).collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, expected);
    let asked = provider.asked().pop().unwrap();
    let [.., called, answered] = &asked["messages"].as_array().unwrap()[..] else { panic!("{asked}") };
    assert_eq!((&called["tool_calls"][0]["id"], &answered["tool_call_id"]), (&json!(id), &json!(id)));
    assert_eq!(answered["content"], "a bell");
}

#[test]
fn a_tool_of_the_format_of_responses_is_answered_by_a_provider_of_chat_completions() {
    let home = Home::new();
    let provider = calling();
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let mut request = json!({
        "model": "m", "instructions": "Be brief.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Look."}]}],
        "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}, {"type": "web_search"}],
        "store": false, "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"],
    });
    let whole = post(&address, "/v1/responses", &request);
    assert!(whole.header("x-bellrope-notes").unwrap().contains("web_search"));
    let answer = whole.json();
    let output = answer["output"].clone();
    assert_eq!((&output[0]["content"][0]["text"], &output[1]["call_id"]), (&json!("I look."), &json!("look:0")));
    assert_eq!((&answer["status"], &answer["usage"]["total_tokens"]), (&json!("completed"), &json!(12)));
    let asked = provider.asked().pop().unwrap();
    assert_eq!((&asked["reasoning_effort"], asked["tools"].as_array().unwrap().len()), (&json!("low"), 1));

    request["stream"] = json!(true);
    let input = request["input"].as_array_mut().unwrap();
    input.extend(output.as_array().unwrap().clone());
    input.push(json!({"type": "function_call_output", "call_id": "look:0", "output": "a bell"}));
    let stream = post(&address, "/v1/responses", &request);
    let events = stream.events();
    assert!(events.iter().zip(0..).all(|((name, data), at)| data["type"] == *name && data["sequence_number"] == at));
    let (last, data) = events.last().unwrap();
    assert_eq!((*last, &data["response"]["status"]), ("response.completed", &json!("completed")));
    let asked = provider.asked().pop().unwrap();
    let messages = asked["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &messages[3]["content"]), (4, &json!("a bell")));
    assert_eq!((&messages[2]["content"], &messages[2]["tool_calls"][0]["id"]), (&json!("I look."), &json!("look:0")));
}

#[test]
fn a_response_that_is_not_kept_is_answered_as_openai_does_and_no_other_protocol_is_spoken() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    for (method, path) in [
        ("GET", "/v1/responses/resp_1?stream=true&starting_after=4"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
    ] {
        let response = exchange(&address, method, path, "", "");
        let message = &response.json()["error"]["message"];
        assert_eq!((response.status, message), (404, &json!("Response with id 'resp_1' not found.")));
    }
    let further = post(&address, "/v1/responses", &json!({"input": "Hi", "previous_response_id": "resp_1"}));
    assert_eq!((further.status, &further.json()["error"]["code"]), (404, &json!("previous_response_not_found")));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(exchange(&address, "GET", "/v1/responses", upgrade, "").status, 426);
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    assert_eq!(exchange(&address, "GET", "/v1/models", h2c, "").status, 200);
    assert_eq!(get(&address, "/v1/responses").status, 405);
}

#[test]
fn tokens_that_no_provider_counts_are_estimated_and_the_header_says_so() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let mut request = json!({"model": "default", "messages": [{"role": "user", "content": "Hello, who is there?"}]});
    let counted = post(&address, "/v1/messages/count_tokens", &request);
    assert_eq!(counted.json(), json!({"input_tokens": 9}));
    assert!(counted.header("x-bellrope-notes").unwrap().contains("estimate"), "{counted:?}");
    request["tools"] = json!([{"name": "look", "input_schema": {"type": "object"}}]);
    let more = post(&address, "/v1/messages/count_tokens", &request).json();
    assert!(more["input_tokens"].as_u64() > Some(9), "{more}");
}

#[test]
fn a_models_name_with_a_provider_that_is_none_goes_to_the_usual_one_and_is_noted() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let hi = json!([{"role": "user", "content": "hi"}]);
    for (path, stream) in [("/v1/chat/completions", false), ("/v1/chat/completions", true), ("/v1/messages", false)] {
        let request = json!({"model": "delphi/xyz", "max_tokens": 9, "messages": hi, "stream": stream});
        let answer = post(&address, path, &request);
        assert_eq!(answer.status, 200, "{answer:?}");
        let note = answer.header("x-bellrope-notes").unwrap_or_else(|| panic!("{answer:?}"));
        assert!(note.contains("there is no provider `delphi` here (known: embedded, openai)"), "{note}");
    }
    server.said("there is no provider `delphi` here");
    let script = "the model `xyz` is not here: the server has no provider, and its script `embedded` answers";
    for (model, note) in [("default", None), ("embedded/xyz", None), ("xyz", Some(script))] {
        let answer = post(&address, "/v1/chat/completions", &json!({"model": model, "messages": hi}));
        assert_eq!((answer.status, answer.header("x-bellrope-notes")), (200, note), "{model}");
    }
}

#[test]
fn a_body_that_does_not_say_what_it_is_counts_as_json() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let body = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let answer = exchange(&address, "POST", path, "", &body);
        assert!(answer.status == 200 && answer.body.contains("You asked: hi"), "{answer:?}");
        // As `curl -d` says, and a page may.
        for kind in ["application/x-www-form-urlencoded", "text/plain", ""] {
            let refused = exchange(&address, "POST", path, &format!("Content-Type: {kind}\r\n"), &body);
            assert_eq!(refused.status, 415, "{kind} {refused:?}");
        }
        // What a page sends has an origin, whatever else it leaves out.
        let page = exchange(&address, "POST", path, "Origin: https://evil.example\r\n", &body);
        assert_eq!(page.status, 403, "{page:?}");
    }
}

#[test]
fn errors_have_the_form_of_their_format() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let anthropic = |response: &Response| {
        let body = response.json();
        assert_eq!(body["type"], "error", "{response:?}");
        assert!(body["request_id"].is_string(), "{response:?}");
        body["error"]["type"].as_str().unwrap().to_owned()
    };
    let hi = json!([{"role": "user", "content": "hi"}]);
    let empty = post(&address, "/v1/messages", &json!({"messages": []}));
    assert_eq!((empty.status, anthropic(&empty).as_str()), (400, "invalid_request_error"));
    let unknown = post(&address, "/v1/messages", &json!({"model": "openai/m", "messages": hi, "stream": true}));
    assert_eq!((unknown.status, anthropic(&unknown).as_str()), (500, "api_error"), "{unknown:?}");
    let wrong = get(&address, "/v1/messages");
    assert_eq!((wrong.status, anthropic(&wrong).as_str()), (405, "invalid_request_error"));
    for (method, path, allowed) in [
        ("GET", "/v1/messages", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/x", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ] {
        let wrong = exchange(&address, method, path, "", "");
        assert_eq!((wrong.status, wrong.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
    let nowhere = post(&address, "/v1/messages/batches", &json!({}));
    assert_eq!((nowhere.status, anthropic(&nowhere).as_str()), (404, "not_found_error"));
    assert!(nowhere.body.contains("/v1/responses") && nowhere.body.contains("/v1/messages/count_tokens"));
    let by_header = exchange(&address, "GET", "/nowhere", "anthropic-version: 2023-06-01\r\n", "");
    assert_eq!(anthropic(&by_header), "not_found_error");
    let openai = post(&address, "/v1/responses", &json!({}));
    assert_eq!((openai.status, &openai.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    let kind = "Content-Type: application/json\r\nContent-Encoding: zstd\r\n";
    let compressed = exchange(&address, "POST", "/v1/responses", kind, "x");
    assert!(compressed.status == 415 && compressed.body.contains("compressed"), "{compressed:?}");
}

#[test]
fn tools_find_out_that_somebody_listens_and_which_models_there_are() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    for (method, path) in [("HEAD", "/"), ("GET", "/"), ("GET", "/api/hello"), ("HEAD", "/v1/")] {
        let response = exchange(&address, method, path, "", "");
        assert_eq!((response.status, &*response.body), (200, ""), "{method} {path}");
    }
    for path in ["/v1/models/embedded/embedded", "/v1/models/embedded%2Fembedded", "/v1/models/embedded/"] {
        let model = get(&address, path).json();
        assert_eq!((&model["id"], &model["object"]), (&json!("embedded/embedded"), &json!("model")), "{path}");
    }
    // It stands for the provider's own model.
    let model = get(&address, "/v1/models/default").json();
    assert_eq!((&model["id"], &model["owned_by"]), (&json!("default"), &json!("embedded")));
    let version = "anthropic-version: 2023-06-01\r\n";
    let model = exchange(&address, "GET", "/v1/models/default", version, "").json();
    assert_eq!((&model["id"], &model["type"]), (&json!("default"), &json!("model")));
    let missing = get(&address, "/v1/models/delphi");
    assert!(missing.status == 404 && missing.body.contains("delphi"), "{missing:?}");
    let list = exchange(&address, "GET", "/v1/models?limit=1000", version, "").json();
    assert_eq!((&list["data"][0]["type"], &list["has_more"]), (&json!("model"), &json!(false)));
    assert_eq!(list["first_id"], "embedded/embedded");
    // Row 20: Codex reads `models` beside `data`, and takes a list without it for broken.
    let catalog = get(&address, "/v1/models?client_version=0.60.0").json();
    assert_eq!((&catalog["models"], &catalog["data"][0]["id"]), (&json!([]), &json!("embedded/embedded")));
    assert!(get(&address, "/v1/models").json().get("models").is_none());
    let slash = post(&address, "/v1/completions/", &json!({"prompt": "Who is there?", "stream": true}));
    assert!(slash.body.contains("text_completion") && slash.body.ends_with("data: [DONE]\n\n"), "{slash:?}");
    let vectors = post(&address, "/v1/embeddings", &json!({"input": "Hi"}));
    assert!(vectors.status == 400 && vectors.body.contains("`embedded` has no embeddings"), "{vectors:?}");
}

#[test]
fn a_tool_that_waits_for_leave_to_send_its_body_gets_it() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = json!({"messages": [{"role": "user", "content": "hi"}]}).to_string();
    write!(
        stream,
        "POST /v1/messages HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("100"), "{first}");
    stream.write_all(body.as_bytes()).unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("200 OK") && rest.contains("\"type\":\"message\""), "{rest}");
}

#[test]
fn a_large_request_goes_through() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let data = "A".repeat(20 << 20);
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}});
    let request = json!({"max_tokens": 9, "messages": [{"role": "user", "content": [image]}]});
    let answer = post(&address, "/v1/messages", &request);
    assert_eq!(answer.json()["content"][0]["text"], "Ding.");
    let asked = provider.asked().pop().unwrap();
    let url = asked["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap();
    assert_eq!(url.len(), data.len() + "data:image/png;base64,".len());
}
