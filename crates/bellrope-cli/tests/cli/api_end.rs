//! `serve --api-port`: answers that are under way when the server has to end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, mpsc},
    thread,
};

use bellrope_testkit::http;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    api_port::address,
    provider::Provider,
    support::{Home, PATIENCE},
};

/// A provider that says this, and then nothing more as long as somebody listens.
fn begun(events: &'static [&'static str]) -> Provider {
    Provider::start(Arc::new(move |_, stream: &mut TcpStream| {
        for event in events {
            let _ = write!(stream, "{event}\n\n");
        }
        let _ = stream.read(&mut [0]);
    }))
}

const CHAT: &[&str] = &[r#"data: {"choices":[{"index":0,"text":"Ding","delta":{"content":"Ding"}}]}"#];
const RESPONSES: &[&str] = &[
    "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_9\"}}",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"item_id\":\"m\",\"output_index\":0,\"content_index\":0,\"delta\":\"Ding\"}",
];
const MESSAGES: &[&str] = &[
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Ding\"}}",
];

/// Posts a request, says when its answer has begun, and reads to the end of the connection.
fn ask(address: &str, path: &str, body: &Value, begun: &mpsc::Sender<()>) -> String {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
    write!(&stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let (mut reader, mut text) = (BufReader::new(stream), String::new());
    while reader.read_line(&mut text).unwrap() > 0 {
        if text.contains("Ding") {
            begun.send(()).unwrap();
            break;
        }
    }
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_answer_that_ends_with_its_server_says_so_in_the_form_of_its_tool() {
    let home = Home::new();
    let providers = [begun(CHAT), begun(RESPONSES), begun(MESSAGES)];
    let [chat, responses, messages] = providers.each_ref().map(Provider::url);
    let config = home.config(&format!(
        r#"
        [gateway]
        provider = "chat"
        [gateway.providers.chat]
        kind = "openai"
        base_url = "{chat}"
        pass_through = "exact"
        [gateway.providers.responses]
        kind = "openai-responses"
        base_url = "{responses}"
        pass_through = "exact"
        [gateway.providers.messages]
        kind = "anthropic"
        base_url = "{messages}"
        pass_through = "exact"
        "#
    ));
    let server = home.serve(["--api-port".as_ref(), "0".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let address = address(&server);
    let words = json!([{"role": "user", "content": "Hi"}]);
    let (began, beginnings) = mpsc::channel();
    // A format's own provider has it as it came; another's is translated.
    let cases = [
        ("/v1/chat/completions", "chat/m", true),
        ("/v1/chat/completions", "messages/m", true),
        ("/v1/completions", "chat/m", true),
        ("/v1/responses", "responses/m", true),
        ("/v1/responses", "chat/m", true),
        ("/v1/messages", "messages/m", true),
        ("/v1/messages", "responses/m", true),
        ("/v1/chat/completions", "messages/m", false),
        ("/v1/messages", "chat/m", false),
        // One that goes on without its reader, which is read all the same.
        ("/v1/responses", "chat/background", true),
    ];
    let asked: Vec<_> = cases
        .map(|(path, model, stream)| {
            let mut body = json!({"model": model, "stream": stream, "max_tokens": 100});
            match path {
                "/v1/responses" => body["input"] = json!("Hi"),
                "/v1/completions" => body["prompt"] = json!("Hi"),
                _ => body["messages"] = words.clone(),
            }
            if model.ends_with("background") {
                body["background"] = json!(true);
            }
            let (address, began) = (address.clone(), began.clone());
            thread::spawn(move || ask(&address, path, &body, &began))
        })
        .into();
    drop(began);
    let streams = cases.iter().filter(|(.., stream)| *stream).count();
    for _ in 0..streams {
        beginnings.recv_timeout(PATIENCE).unwrap();
    }
    crate::support::eventually("all are asked", || {
        providers.iter().map(|provider| provider.asked().len()).sum::<usize>() == cases.len()
    });
    server.signal(Signal::TERM);
    for ((path, model, stream), text) in cases.into_iter().zip(asked) {
        let text = text.join().unwrap();
        let (status, head, body) = http::response(&text);
        if !stream {
            assert!(status == 503 && head.to_ascii_lowercase().contains("x-should-retry: true"), "{path} {text}");
            let error = &serde_json::from_str::<Value>(&body).unwrap()["error"];
            assert!(error["message"].as_str().unwrap().contains("the server stops"), "{path} {text}");
            continue;
        }
        assert!(text.ends_with("\r\n0\r\n\r\n"), "{path} {model}: {text}");
        let last = body.trim_end().rsplit("\n\n").next().unwrap();
        let (name, data) = last.split_once("data: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        let message = match (path, model) {
            ("/v1/messages", _) => {
                assert_eq!((name, &data["type"]), ("event: error\n", &json!("error")));
                &data["error"]["message"]
            }
            ("/v1/responses", "chat/background") => {
                assert_eq!((name, &data["code"]), ("event: error\n", &json!("truncated")));
                &data["message"]
            }
            ("/v1/responses", _) => {
                assert_eq!((name, &data["response"]["status"]), ("event: response.failed\n", &json!("failed")));
                assert!(model != "responses/m" || data["sequence_number"] == 2, "{data}");
                &data["response"]["error"]["message"]
            }
            _ => {
                assert_eq!((name, &data["error"]["code"]), ("", &json!("truncated")), "{body}");
                &data["error"]["message"]
            }
        };
        assert!(message.as_str().unwrap().contains("the server stops"), "{path} {model}: {data}");
    }
    let said = server.finish().stderr;
    assert!(said.contains("some answers were not done within 5s and were cut off"), "{said}");
}
