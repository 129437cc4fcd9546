//! `serve --api-port`: OpenAI's chat completions on the loopback address, with raw HTTP and with OpenAI's own client.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bellrope_testkit::http;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    provider::{self, Provider},
    support::{Home, PATIENCE, Running, eventually},
};

const PORT: [&str; 2] = ["--api-port", "0"];

/// Where a server said that its API port is, as HOST:PORT.
#[track_caller]
pub(crate) fn address(server: &Running) -> String {
    let line = server.said("API port on http://");
    let address = line.rsplit("http://").next().unwrap();
    address.split(',').next().unwrap_or(address).trim().to_owned()
}

/// A response as it came.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    #[track_caller]
    fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()["error"].clone()
    }

    /// The data of the events of a stream.
    fn events(&self) -> Vec<&str> {
        self.body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect()
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn post(address: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request as it is and reads the response to the end of the connection.
fn exchange(address: &str, request: &str) -> Response {
    let mut stream = connect(address);
    // A request that is refused may not be read to its end.
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    response(&String::from_utf8(bytes).unwrap())
}

fn response(text: &str) -> Response {
    let (status, head, body) = http::response(text);
    Response { status, head, body }
}

fn chat(question: &str) -> Value {
    json!({"model": "default", "messages": [{"role": "user", "content": question}]})
}

#[test]
fn it_is_off_unless_a_port_is_given_and_then_on_the_loopback_address_alone() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    assert!(!server.said("bellrope serves").contains("API port"));
    drop(server);
    let server = home.serve(PORT);
    assert!(address(&server).starts_with("127.0.0.1:"));
    let taken = address(&server).rsplit(':').next().unwrap().to_owned();
    let second = Home::new();
    let error = second.run(["serve", "--openai-port", &taken]).failed(1);
    assert!(error.contains("choose another with --api-port"), "{error}");
    let config = second.config("openai_port = 0\n");
    address(&second.serve(["--config".as_ref(), config.as_os_str()]));
    address(&second.serve_with::<&str>([], &[("BELLROPE_OPENAI_PORT", "0")]));
}

#[test]
fn a_chat_is_answered_whole_or_streamed() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let whole = exchange(&address, &post(&address, &chat("Who is there?")));
    assert_eq!(whole.status, 200, "{whole:?}");
    let whole = whole.json();
    assert_eq!((&whole["object"], &whole["model"]), (&json!("chat.completion"), &json!("default")));
    let choice = &whole["choices"][0];
    assert!(choice["message"]["content"].as_str().unwrap().ends_with("You asked: Who is there?"), "{whole}");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(whole["usage"]["total_tokens"], 23);

    let mut request = chat("Who is there?");
    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let stream = exchange(&address, &post(&address, &request));
    assert!(stream.head.contains("text/event-stream"), "{stream:?}");
    let events = stream.events();
    assert_eq!(*events.last().unwrap(), "[DONE]");
    let events: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(text.ends_with("You asked: Who is there?"), "{text}");
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 20);
    assert!(events.len() > 10, "it came in {} pieces", events.len());
}

#[test]
fn a_models_name_chooses_the_provider() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let said = |model: &str| {
        let mut request = chat("hi");
        request["model"] = json!(model);
        let answer = exchange(&address, &post(&address, &request)).json();
        answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    assert_eq!((said("openai/other/x"), said("default")), ("Ding.".to_owned(), "Ding.".to_owned()));
    assert!(said("embedded").ends_with("You asked: hi"));
    let asked = provider.asked();
    assert_eq!((&asked[0]["model"], &asked[1]["model"]), (&json!("other/x"), &json!("usual")));

    let list = exchange(&address, &format!("GET /v1/models HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    let list = list.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert!(ids.contains(&&json!("openai/other")) && ids.contains(&&json!("embedded/embedded")), "{list}");
}

#[test]
fn tools_and_their_results_go_through_to_the_provider_and_back() {
    let home = Home::new();
    let call =
        json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}});
    let provider = Provider::of_events(&[
        json!({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}),
    ]);
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let tool = json!({"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}});
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "look", "arguments": "{\"at\":0}"}}]},
        {"role": "tool", "tool_call_id": "c0", "content": "nothing"},
    ]);
    let request =
        json!({"model": "m", "messages": messages, "tools": [tool], "tool_choice": "required", "max_tokens": 9});
    let answer = exchange(&address, &post(&address, &request)).json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "look", "arguments": "{\"at\":1}"}), "{answer}");
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("hm"), &Value::Null));
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    let asked = &provider.asked()[0];
    assert_eq!((&asked["messages"], &asked["tools"]), (&messages, &json!([tool])));
    assert_eq!(
        (&asked["tool_choice"], &asked["max_tokens"], &asked["model"]),
        (&json!("required"), &json!(9), &json!("m"))
    );
}

// Faults 70, 75.
#[test]
fn the_fields_of_a_request_go_to_the_provider_and_a_header_names_those_that_do_not() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    for stream in [false, true] {
        let request = json!({
            "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream,
            "top_p": 0.5, "seed": 7, "presence_penalty": 1, "frequency_penalty": 1, "logit_bias": {"5": 1}, "user": "u",
            "metadata": {"a": "b"}, "reasoning_effort": "low", "response_format": {"type": "json_object"},
            "service_tier": "auto", "max_tokens": 100.0, "logprobs": true, "modalities": ["text"], "store": false, "prediction": {"x": 1},
        });
        let answer = exchange(&address, &post(&address, &request));
        assert_eq!(answer.status, 200, "{answer:?}");
        let asked = provider.asked().pop().unwrap();
        let fields = [
            "top_p",
            "seed",
            "logit_bias",
            "user",
            "metadata",
            "reasoning_effort",
            "response_format",
            "service_tier",
            "logprobs",
            "prediction",
        ];
        for field in fields {
            assert_eq!(asked[field], request[field], "{field}");
        }
        assert_eq!((&asked["max_tokens"], &asked["presence_penalty"]), (&json!(100), &json!(1.0)));
        let named = answer.head.lines().find_map(|line| line.strip_prefix("x-bellrope-notes: "));
        let named = named.unwrap_or_else(|| panic!("{answer:?}"));
        assert!(
            named.contains("`modalities`")
                && !named.contains("logprobs")
                && !named.contains("prediction")
                && !named.contains("store"),
            "{named}"
        );
    }
    // A text that JSON can hold and Rust cannot.
    let request = post(&address, &chat("cut ???\u{fffd}")).replace("???\u{fffd}", "\\ud83d");
    let answer = exchange(&address, &request);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(provider.asked().pop().unwrap()["messages"][0]["content"], "cut \u{fffd}");
    assert!(!answer.head.contains("x-bellrope-notes"), "{answer:?}");
}

#[test]
fn errors_have_openais_form_and_the_right_status() {
    let home = Home::new();
    // It has a key, and lacks the name of a model.
    let server = home.serve_with(
        ["--api-port", "0", "--provider", "openai", "--set", "gateway.openai.pass_through=repaired"],
        &[("OPENAI_API_KEY", "sk-nobody")],
    );
    let address = address(&server);
    let ask = |body: &Value| exchange(&address, &post(&address, body));
    let unconfigured = ask(&chat("hi"));
    assert!(unconfigured.head.contains("x-should-retry: false"), "{unconfigured:?}");
    let error = unconfigured.error(500);
    assert_eq!((&error["code"], &error["type"]), (&json!("not_configured"), &json!("server_error")));
    let mut streamed = chat("hi");
    streamed["stream"] = json!(true);
    assert_eq!(ask(&streamed).error(500)["code"], "not_configured");
    assert_eq!(ask(&json!({"messages": []})).error(400)["param"], "messages");
    assert_eq!(ask(&json!(7)).error(400)["type"], "invalid_request_error");

    let raw = |line: &str, headers: &str| {
        exchange(&address, &format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"))
    };
    raw("GET /v1/chat/completions", "").error(405);
    raw("POST /v1/models", "Content-Length: 0\r\n").error(405);
    assert!(raw("GET /v2/models", "").error(404)["message"].as_str().unwrap().contains("/v1/models"));
    raw("POST /v1/chat/completions", "Content-Length: 2\r\nContent-Type: text/plain\r\n\r\n{}").error(415);
    let json = "Content-Type: application/json\r\n";
    raw("POST /v1/chat/completions", &format!("{json}Content-Length: 33554433\r\n")).error(413);
    assert_eq!(raw("GET /v1/models", &format!("X: {}\r\n", "x".repeat(16 * 1024))).status, 431);
}

#[test]
fn a_body_that_does_not_say_its_length_is_read_no_further_than_the_limit() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let mut stream = connect(&address);
    let head = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\n{head}").unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    // It is closed before all of this is written.
    let is_cut_off = (0..64).any(|_| stream.write_all(chunk.as_bytes()).is_err());
    assert!(is_cut_off, "64 MiB were read");
    let mut first = String::new();
    // The answer may be lost when the connection is reset while more comes in.
    if BufReader::new(stream).read_line(&mut first).is_ok_and(|count| count > 0) {
        assert!(first.contains("413"), "{first}");
    }
    assert_eq!(exchange(&address, &post(&address, &chat("hi"))).status, 200);
}

#[test]
fn a_web_page_is_refused_whatever_name_it_uses() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let body = chat("hi").to_string();
    let ask = |host: &str, headers: &str| {
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}");
        let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        exchange(&address, &format!("{head}{rest}"))
    };
    assert_eq!(ask("localhost:1234", "").status, 200);
    for (host, headers) in [
        ("rebound.example:8080", ""),
        (&*address, "Origin: https://evil.example\r\n"),
        (&*address, "Origin: null\r\n"),
        (&*address, "Sec-Fetch-Site: cross-site\r\n"),
    ] {
        let refused = ask(host, headers);
        assert_eq!(refused.error(403)["type"], "permission_error");
        assert!(!refused.head.to_ascii_lowercase().contains("access-control"), "{refused:?}");
    }
}

/// A provider whose answer begins and then stands still until its reader goes away, and whether that has happened.
fn standing_still() -> (Provider, Arc<AtomicBool>) {
    let left = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&left);
    let provider = Provider::start(Arc::new(move |_, stream: &mut TcpStream| {
        provider::say(stream, r#"{"choices":[{"index":0,"delta":{"content":"Wait"}}]}"#);
        let gone = stream.read(&mut [0]).is_ok_and(|count| count == 0);
        noted.store(gone, Ordering::SeqCst);
    }));
    (provider, left)
}

#[test]
fn a_client_that_goes_away_takes_its_providers_stream_along() {
    for stream in [true, false] {
        let home = Home::new();
        let (provider, left) = standing_still();
        let server = provider.serve(&home, &PORT);
        let address = address(&server);
        let mut client = connect(&address);
        let mut request = chat("hi");
        request["stream"] = json!(stream);
        client.write_all(post(&address, &request).as_bytes()).unwrap();
        eventually("the question at the provider", || provider.asked().len() == 1);
        if stream {
            let mut begun = [0; 8];
            client.read_exact(&mut begun).unwrap();
        }
        assert!(!left.load(Ordering::SeqCst));
        drop(client);
        eventually("the end of the provider's stream", || left.load(Ordering::SeqCst));
    }
}

// Fault 62.
#[test]
fn more_connections_than_may_be_put_out_those_that_ask_nothing_and_make_one_line() {
    const MOST: usize = 1_024;
    bellrope_shm::process::raise_descriptor_limit();
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let request = format!("GET /v1/models HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let alive = |stream: &mut TcpStream| {
        let mut byte = [0];
        stream.write_all(request.as_bytes()).is_ok() && stream.read(&mut byte).is_ok_and(|count| count == 1)
    };
    let mut open: Vec<_> = (0..65).map(|_| connect(&address)).collect();
    assert!(open.iter_mut().all(alive), "the 65th is served as the first");
    let silent: Vec<_> = (0..MOST).map(|_| connect(&address)).collect();
    for _ in 0..20 {
        assert!(alive(&mut connect(&address)), "whoever asks is answered");
    }
    server.said("the API port has no place left");
    drop(silent);
    server.signal(Signal::TERM);
    let said = server.finish().stderr;
    assert_eq!(said.matches("the API port has no place left").count(), 1, "a flood makes one line: {said}");
}

#[test]
fn bodies_that_take_too_much_memory_together_are_refused_for_a_while() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let body = |kib: usize| {
        let json = chat("hi").to_string();
        " ".repeat(kib * 1024 - json.len()) + &json
    };
    let head = |length: usize| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    // Bodies that lack one byte, and together leave 1 KiB of the 64 MiB that there are.
    let unfinished = [32_767, 32_767, 1].map(|kib| {
        let mut stream = connect(&address);
        let body = body(kib);
        stream.write_all((head(body.len() + 1) + &body).as_bytes()).unwrap();
        stream
    });
    let ask = || exchange(&address, &(head(4 * 1024) + &body(4)));
    let mut refused = None;
    // What was written may not be read yet.
    eventually("no room for one more", || {
        refused = Some(ask()).filter(|response| response.status == 503);
        refused.is_some()
    });
    let refused = refused.unwrap();
    let head = refused.head.to_ascii_lowercase();
    assert!(head.contains("retry-after: 1\r\n") && head.contains("x-should-retry: true"), "{head}");
    let error = refused.error(503);
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("overloaded"), &json!("too many large requests are under way; try again"))
    );
    assert_eq!(exchange(&address, &post(&address, &chat("hi"))).status, 200, "a small one has room");
    drop(unfinished);
    eventually("room again", || ask().status == 200);
}

#[test]
fn whoever_sends_nothing_is_closed() {
    let home = Home::new();
    let server = home.serve(PORT);
    let address = address(&server);
    let mut silent = connect(&address);
    let mut slow = connect(&address);
    slow.write_all(b"GET /v1/models HTTP/1.1\r\nHo").unwrap();
    let mut rest = String::new();
    silent.read_to_string(&mut rest).unwrap();
    slow.read_to_string(&mut rest).unwrap();
}

// Fault 50.
#[test]
fn a_server_that_is_told_to_stop_ends_what_is_under_way_and_takes_nothing_new() {
    let home = Home::new();
    let (provider, _) = standing_still();
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let idle = connect(&address);
    let mut request = chat("/tokens 2000");
    request["model"] = json!("embedded");
    request["stream"] = json!(true);
    let mut client = connect(&address);
    client.write_all(post(&address, &request).as_bytes()).unwrap();
    let mut begun = [0; 8];
    client.read_exact(&mut begun).unwrap();
    server.signal(Signal::TERM);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "the stream came whole");
    assert_eq!(server.finish().code, Some(0));
    assert!(TcpStream::connect(&address).is_err());
    drop(idle);
}

#[test]
fn an_answer_without_end_is_cut_off_at_the_deadline_of_the_stop() {
    let home = Home::new();
    let (provider, left) = standing_still();
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let mut request = chat("hi");
    request["stream"] = json!(true);
    let mut client = connect(&address);
    client.write_all(post(&address, &request).as_bytes()).unwrap();
    eventually("the question at the provider", || provider.asked().len() == 1);
    server.signal(Signal::TERM);
    let finished = server.finish();
    assert_eq!(finished.code, Some(0));
    assert!(finished.stderr.contains("were cut off"), "{}", finished.stderr);
    eventually("the end of the provider's stream", || left.load(Ordering::SeqCst));
}
