//! `serve --api-port`: OpenAI's responses that are kept, with raw HTTP.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::atomic::Ordering,
};

use serde_json::{Value, json};

use crate::{
    api_formats::{Response, exchange},
    api_port::address,
    provider::Provider,
    resumable::handed,
    support::{Home, PATIENCE, eventually},
};

const PORT: [&str; 2] = ["--api-port", "0"];

/// A tool that asks with a key.
struct Tool<'a> {
    address: &'a str,
    key: &'a str,
}

impl Tool<'_> {
    fn ask(&self, body: &Value) -> Response {
        self.send("POST", "", &body.to_string())
    }

    fn send(&self, method: &str, below: &str, body: &str) -> Response {
        let headers = format!("Content-Type: application/json\r\nAuthorization: Bearer {}\r\n", self.key);
        exchange(self.address, method, &format!("/v1/responses{below}"), &headers, body)
    }
}

/// The numbers of the events of a stream, and the text that they bring.
fn read(response: &Response) -> (Vec<u64>, String) {
    let events = response.events();
    let numbers = events.iter().map(|(_, event)| event["sequence_number"].as_u64().unwrap()).collect();
    let deltas = events.iter().filter(|(name, _)| *name == "response.output_text.delta");
    (numbers, deltas.map(|(_, event)| event["delta"].as_str().unwrap()).collect())
}

#[test]
fn a_response_in_the_background_outlives_its_reader_and_is_read_on_from_any_event() {
    let home = Home::new();
    let (provider, hand, _) = handed();
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let tool = Tool { address: &address, key: "one" };
    let request = json!({"model": "m", "input": "Tell me", "background": true, "stream": true}).to_string();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("POST /v1/responses HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer one\r\n");
    let length = request.len();
    write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{request}").unwrap();
    hand.send("one ".to_owned()).unwrap();
    let (mut id, mut lines) = (String::new(), BufReader::new(stream).lines());
    let last = loop {
        let line = lines.next().unwrap().unwrap();
        let Some(event) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(event).unwrap();
        if let Some(found) = event["response"]["id"].as_str() {
            assert_eq!((&event["response"]["background"], &event["response"]["store"]), (&json!(true), &json!(true)));
            id = found.to_owned();
        }
        if event["delta"] == "one " {
            break event["sequence_number"].as_u64().unwrap();
        }
    };
    // The tool is gone, as when its process dies.
    drop(lines);
    hand.send("two ".to_owned()).unwrap();
    let so_far = tool.send("GET", &format!("/{id}"), "").json();
    assert_eq!((&so_far["status"], &so_far["output"][0]["status"]), (&json!("in_progress"), &json!("in_progress")));
    hand.send("three".to_owned()).unwrap();
    drop(hand);
    let rest = tool.send("GET", &format!("/{id}?stream=true&starting_after={last}"), "");
    let (numbers, text) = read(&rest);
    assert_eq!((numbers[0], &*text), (last + 1, "two three"));
    let whole = tool.send("GET", &format!("/{id}?stream=true"), "");
    let (numbers, text) = read(&whole);
    assert_eq!((numbers, &*text), ((0..whole.events().len() as u64).collect(), "one two three"));
    assert_eq!(whole.events().last().unwrap().0, "response.completed");
    let answer = tool.send("GET", &format!("/{id}"), "").json();
    assert_eq!(answer, whole.events().last().unwrap().1["response"]);
    let after_the_end = tool.send("GET", &format!("/{id}?stream=true&starting_after=999"), "");
    assert_eq!((after_the_end.status, &*after_the_end.body), (200, ""));
    assert_eq!(provider.asked().len(), 1);

    // Whoever has another key has no such response, and after a restart nobody has.
    let stranger = Tool { address: &address, key: "two" };
    for (method, below) in
        [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "?stream=true"), ("GET", "/input_items")]
    {
        for (tool, id) in [(&stranger, &*id), (&tool, "resp_00000000000000000000000000000000")] {
            let refused = tool.send(method, &format!("/{id}{below}"), "");
            let error = json!({"message": format!("Response with id '{id}' not found."),
                "type": "invalid_request_error", "param": null, "code": null});
            assert_eq!((refused.status, &refused.json()["error"]), (404, &error), "{method} {below}");
        }
    }
    // The same key is the same asker in whatever header it stands.
    let input = exchange(&address, "GET", &format!("/v1/responses/{id}/input_items"), "X-Api-Key: one\r\n", "").json();
    assert_eq!(
        (&input["object"], &input["data"][0]["content"][0]["text"], &input["has_more"]),
        (&json!("list"), &json!("Tell me"), &json!(false))
    );
    let doubled = "Authorization: Bearer two\r\nAuthorization: Bearer one\r\n";
    let refused = exchange(&address, "GET", &format!("/v1/responses/{id}"), doubled, "");
    assert!(
        refused.status == 400 && refused.body.contains("authorization stands there several times"),
        "{}",
        refused.body
    );
    assert_eq!(tool.send("PUT", &format!("/{id}"), "").status, 405);
    let deleted = tool.send("DELETE", &format!("/{id}"), "").json();
    assert_eq!(deleted, json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!(tool.send("GET", &format!("/{id}"), "").status, 404);
}

// Fault 54.
#[test]
fn a_response_in_the_background_is_asked_for_until_it_is_there_and_cancelled_at_its_provider() {
    let home = Home::new();
    let (provider, hand, is_left) = handed();
    let server = provider.serve(&home, &PORT);
    let address = address(&server);
    let tool = Tool { address: &address, key: "one" };
    let begun = tool.ask(&json!({"input": "Tell me", "background": true})).json();
    let id = begun["id"].as_str().unwrap().to_owned();
    assert_eq!((&begun["status"], &begun["output"], id.len()), (&json!("in_progress"), &json!([]), 37));
    hand.send("one".to_owned()).unwrap();
    let text = || tool.send("GET", &format!("/{id}"), "").json()["output"][0]["content"][0]["text"].clone();
    eventually("the first word", || text() == "one");
    let further = tool.ask(&json!({"input": "Go on", "previous_response_id": id}));
    assert_eq!(further.json()["error"]["message"], "the response is under way; wait for its end");
    for _ in 0..2 {
        let cancelled = tool.send("POST", &format!("/{id}/cancel"), "").json();
        assert_eq!((&cancelled["status"], &cancelled["error"]), (&json!("cancelled"), &Value::Null));
        assert_eq!(cancelled["output"][0]["status"], "incomplete");
    }
    // What it would still say finds nobody.
    eventually("the end of the provider's stream", || {
        hand.send("more".to_owned()).unwrap();
        is_left.load(Ordering::SeqCst)
    });
    let events = tool.send("GET", &format!("/{id}?stream=true"), "");
    let last = events.events().pop().unwrap();
    assert_eq!((last.0, &last.1["response"]["status"]), ("response.incomplete", &json!("cancelled")));
}

#[test]
fn a_request_goes_on_from_a_response_that_is_kept_for_whoever_asked_until_it_expires() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let server = provider.serve(&home, &[PORT[0], PORT[1], "--set", "gateway.answers.keep_s=2"]);
    let port = address(&server);
    let tool = Tool { address: &port, key: "one" };
    let not_kept = tool.ask(&json!({"input": "Hi", "instructions": "Be brief."})).json();
    let id = not_kept["id"].as_str().unwrap();
    assert_eq!((&not_kept["store"], tool.send("GET", &format!("/{id}"), "").status), (&json!(false), 404));
    for stream in [false, true] {
        let request = json!({"input": "One?", "instructions": "Be brief.", "store": true, "stream": stream});
        let answer = tool.ask(&request);
        let first = if stream { answer.events().pop().unwrap().1["response"].clone() } else { answer.json() };
        assert_eq!(first["store"], true);
        let id = first["id"].as_str().unwrap();
        assert_eq!(tool.send("GET", &format!("/{id}"), "").json(), first);
        let refused = tool.send("GET", &format!("/{id}?stream=true"), "").json();
        assert!(refused["error"]["message"].as_str().unwrap().contains("`background`"), "{refused}");
        let mut further = json!({"input": "Two?", "previous_response_id": id});
        let second = tool.ask(&further).json();
        assert_eq!((&second["previous_response_id"], &second["status"]), (&json!(id), &json!("completed")));
        let asked = provider.asked().pop().unwrap();
        let said: Vec<_> = asked["messages"].as_array().unwrap().iter().map(|message| &message["content"]).collect();
        // The instructions of an earlier request are not those of this one.
        assert_eq!(said, ["One?", "Ding.", "Two?"]);
        let stranger = Tool { address: &port, key: "two" }.ask(&further);
        let error = &stranger.json()["error"];
        let message = format!("Previous response with id '{id}' not found.");
        assert_eq!((stranger.status, &error["message"]), (404, &json!(message)));
        assert_eq!(error["code"], "previous_response_not_found");
        eventually("the end of its time", || tool.send("GET", &format!("/{id}"), "").status == 404);
        further["store"] = json!(false);
        assert_eq!(tool.ask(&further).status, 404);
    }
    let kept = tool.ask(&json!({"input": "One?", "store": true})).json();
    drop(server);
    let server = provider.serve(&home, &PORT);
    let port = address(&server);
    let tool = Tool { address: &port, key: "one" };
    assert_eq!(tool.send("GET", &format!("/{}", kept["id"].as_str().unwrap()), "").status, 404);
}
