//! Requests that go through the API port as they came, from the socket of the tool to that of the provider and back.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use bellrope_testkit::http;
use serde_json::{Value, json};

use crate::{
    api_port::address,
    provider::{Provider, say},
    support::{Home, PATIENCE, Running},
};

/// A server whose provider `exact` takes requests as they come, and `other` speaks another format.
fn serve(home: &Home, exact: &str, other: &str, more: &str) -> Running {
    let config = home.config(&format!(
        r#"
        [gateway]
        provider = "exact"
        fallback = ["other"]
        [gateway.providers.exact]
        kind = "openai"
        base_url = "{exact}"
        pass_through = "exact"
        max_retries = 0
        {more}
        [gateway.providers.other]
        kind = "openai"
        base_url = "{other}"
        model = "usual"
        "#
    ));
    home.serve(["--api-port".as_ref(), "0".as_ref(), "--config".as_ref(), config.as_os_str()])
}

/// Posts a body as it is; the status, the head and the body of the response.
fn post(address: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}"
    );
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    http::response(&text)
}

const HI: &str = r#"{"model":"m","stream":true,"new":{"a":1.0e1},"messages":[{"role":"user","content":"Hi"}]}"#;

#[test]
fn a_request_and_its_answer_go_through_the_port_as_they_are() {
    let home = Home::new();
    let delta = r#"{ "choices":[{"index":0,"delta":{"content":"Ding","new":1e2}}] }"#;
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let provider = Provider::start(Arc::new(move |_, stream: &mut TcpStream| {
        let _ = write!(stream, ": hello\n\n");
        say(stream, delta);
        say(stream, end);
        say(stream, r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#);
        say(stream, "[DONE]");
    }));
    let server = serve(&home, &provider.url(), "http://127.0.0.1:1", "");
    let (status, head, body) = post(&address(&server), "", HI);
    assert_eq!((status, &*body), (200, &*format!(": hello\n\ndata: {delta}\n\ndata: {end}\n\ndata: [DONE]\n\n")));
    assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
    assert!(!head.contains("x-bellrope-notes"), "{head}");
    let asked = provider.asked().pop().unwrap();
    let mut expected: Value = serde_json::from_str(HI).unwrap();
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(asked, expected);
}

#[test]
fn an_answer_that_breaks_off_ends_with_an_error_and_without_done() {
    let home = Home::new();
    let delta = r#"{"choices":[{"index":0,"delta":{"content":"Ding"}}]}"#;
    let provider = Provider::start(Arc::new(move |_, stream: &mut TcpStream| {
        say(stream, delta);
        let _ = write!(stream, "data: {{\"choices\":[{{\"ind");
    }));
    let server = serve(&home, &provider.url(), "http://127.0.0.1:1", "");
    let (status, _, body) = post(&address(&server), "", HI);
    let told = body.strip_prefix(&format!("data: {delta}\n\ndata: ")).unwrap_or_else(|| panic!("{body}"));
    let error: Value = serde_json::from_str(told.trim_end()).unwrap();
    assert_eq!((status, &error["error"]["code"]), (200, &json!("truncated")));
}

#[test]
fn a_fallback_that_does_not_take_it_as_it_came_has_it_translated() {
    let home = Home::new();
    let provider = Provider::of_text("Dong.");
    // Nobody listens there.
    let server = serve(&home, "http://127.0.0.1:1", &provider.url(), "");
    let (status, _, body) = post(&address(&server), "", HI);
    assert!(status == 200 && body.contains("Dong.") && body.ends_with("data: [DONE]\n\n"), "{body}");
    let asked = provider.asked().pop().unwrap();
    assert_eq!(
        (&asked["model"], &asked["new"]),
        (&json!("usual"), &json!({"a": 10.0})),
        "a model means nothing to others"
    );
}

#[test]
fn a_tools_own_key_is_asked_for_and_never_said() {
    const KEY: &str = "sk-tool-4f9a1c77e0";
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = serve(&home, &provider.url(), "http://127.0.0.1:1", "credentials = \"client\"");
    let address = address(&server);
    let (status, _, body) = post(&address, "", HI);
    assert!(status == 401 && body.contains("gateway.providers.exact.credentials"), "{body}");
    assert!(provider.asked().is_empty(), "and nobody was asked");
    let (status, _, body) = post(&address, &format!("Authorization: Bearer {KEY}\r\n"), HI);
    assert!(status == 200 && body.contains("Ding."), "{body}");
    let (status, _, body) = post(&address, &format!("X-Api-Key: {KEY}\r\n"), "{\"model\":");
    assert!(status == 400 && !body.contains(KEY), "{body}");
    server.signal(rustix::process::Signal::TERM);
    let said = server.finish().stderr;
    assert!(!said.contains(KEY), "{said}");
}

#[test]
fn a_token_of_ours_goes_to_no_provider_however_it_is_written() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = serve(&home, &provider.url(), "http://127.0.0.1:1", "credentials = \"client\"");
    let address = address(&server);
    let token = home.run(["token", "add", "codex"]).succeeded().trim().to_owned();
    for shown in [
        format!("Authorization: Bearer {token}"),
        format!("Authorization: Bearer Bearer {token}"),
        format!("Authorization: Bearer \"{token}\""),
        format!("Authorization: Bearer sk-mine, Bearer {token}"),
        format!("X-Api-Key: '{token}'"),
        format!("X-Api-Key: sk-mine,{token}"),
        format!("X-Api-Key: {}", token.to_uppercase()),
    ] {
        let (status, _, body) = post(&address, &format!("{shown}\r\n"), HI);
        assert!(status == 401 && !body.contains(&token), "{shown}: {status} {body}");
    }
    assert!(provider.asked().is_empty(), "nobody was asked");
    let other = format!("X-Api-Key: sk-mine\r\nX-Request-Id: {token}\r\nOpenAI-Project: p\r\n");
    let (status, _, body) = post(&address, &other, HI);
    assert!(status == 200 && body.contains("Ding."), "{body}");
}

#[test]
fn a_budget_changes_what_asks_for_more_and_nothing_else() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = serve(&home, &provider.url(), "http://127.0.0.1:1", "");
    let address = address(&server);
    let token = home.run(["token", "add", "codex", "--budget", "2000tokens/day"]).succeeded().trim().to_owned();
    let ask = r#"{"model":"m","new":{"a":1},"max_tokens":20000,"max_completion_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let many = r#"{"model":"m","max_tokens":50,"n":100,"messages":[{"role":"user","content":"Hi"}]}"#;
    let key = format!("Authorization: Bearer {token}\r\n");
    let (status, _, body) = post(&address, &key, many);
    assert_eq!(status, 400, "{body}");
    let (status, _, body) = post(&address, &key, ask);
    assert_eq!(status, 200, "{body}");
    let asked = provider.asked();
    let most = |asked: &Value| {
        ["max_tokens", "max_completion_tokens"].map(|name| asked[name].as_u64().unwrap_or(0)).into_iter().max()
    };
    assert!(asked.len() == 1 && most(&asked[0]).unwrap() <= 2000, "{asked:?}");
    assert_eq!((&asked[0]["max_completion_tokens"], &asked[0]["new"]), (&json!(9), &json!({"a": 1})));
    // Whom no budget concerns has it as it came.
    let (status, _, body) = post(&address, "", ask);
    assert_eq!(status, 200, "{body}");
    assert_eq!(provider.asked().pop().unwrap()["max_tokens"], 20000);
}

#[test]
fn what_is_no_field_of_a_format_is_its_providers_business() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = serve(&home, &provider.url(), "http://127.0.0.1:1", "");
    let body = HI.replace("\"new\"", "\"background\":true,\"new\"");
    let (status, head, answer) = post(&address(&server), "", &body);
    assert!(status == 200 && answer.contains("Ding.") && !head.contains("x-bellrope-notes"), "{head}{answer}");
    assert_eq!(provider.asked().pop().unwrap()["background"], true);
    let doubled = "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n";
    let (status, _, answer) = post(&address(&server), doubled, HI);
    assert!(status == 400 && answer.contains("authorization stands there several times"), "{answer}");
    assert_eq!(provider.asked().len(), 1);
}
