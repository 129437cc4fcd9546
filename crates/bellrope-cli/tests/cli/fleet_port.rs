//! The API port of a server that leaves `ai.*` to a fleet: tools of every format are answered by the fleet's instances.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bellrope_testkit::nats::Nats;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    api_formats::{Response, exchange, get, post},
    api_port::address,
    provider::{Provider, say},
    support::{Home, PATIENCE, Running, eventually},
};

/// A desk that leaves `ai.*` to the fleet, with a port for tools.
fn desk(home: &Home, url: &str, more: &[&str]) -> Running {
    let settings = ["--fleet", url, "--import", "ai.*", "--set", "fleet.order=only", "--api-port", "0"];
    home.serve([&settings[..], more].concat())
}

/// An instance that asks this provider.
fn instance(provider: &Provider, home: &Home, url: &str) -> Running {
    provider.serve(home, &["--fleet", url, "--offer", "ai.*"])
}

/// An answer that calls a tool, and says what it took.
fn calling() -> Provider {
    let call =
        json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}});
    Provider::of_events(&[
        json!({"choices": [{"index": 0, "delta": {"content": "I look."}}]}),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}),
    ])
}

/// A provider that says a word now and then, for ever, and how many answers of it are read.
fn endless() -> (Provider, Arc<AtomicU64>) {
    let reading = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&reading);
    let provider = Provider::start(Arc::new(move |_, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let word = json!({"choices": [{"index": 0, "delta": {"content": "ding "}}]}).to_string();
        while write!(stream, "data: {word}\n\n").is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
        counted.fetch_sub(1, Ordering::SeqCst);
    }));
    (provider, reading)
}

/// Begins an answer in events, and reads its first line of data.
fn begin(address: &str, path: &str, body: &Value) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = body.to_string();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the answer has no data");
    }
    reader
}

fn hi(more: &Value) -> Value {
    let mut body = json!({"model": "default", "max_tokens": 9, "messages": [{"role": "user", "content": "Look."}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// What a tool asks at each path, as a stream or not.
fn asked(path: &str, stream: bool) -> Value {
    match path {
        "/v1/responses" => json!({"model": "default", "input": "Look.", "stream": stream}),
        "/v1/completions" => json!({"model": "default", "prompt": "Look.", "stream": stream}),
        _ => hi(&json!({"stream": stream})),
    }
}

const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"];

#[test]
fn every_format_of_the_port_is_answered_by_the_fleet_whole_and_as_a_stream() {
    let Some(nats) = Nats::start() else { return };
    let (provider, home, there) = (calling(), Home::new(), Home::new());
    let _instance = instance(&provider, &there, &nats.url());
    let desk = desk(&home, &nats.url(), &[]);
    let address = address(&desk);
    let ask = |path: &str, stream: bool| {
        let answer = post(&address, path, &asked(path, stream));
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        assert_eq!(answer.head.contains("text/event-stream"), stream, "{answer:?}");
        answer
    };
    let whole = |path| ask(path, false).json();

    let chat = whole("/v1/chat/completions");
    let message = &chat["choices"][0]["message"];
    assert_eq!((&message["content"], &message["tool_calls"][0]["id"]), (&json!("I look."), &json!("c1")));
    assert_eq!((&chat["usage"]["prompt_tokens"], &chat["usage"]["completion_tokens"]), (&json!(5), &json!(7)));
    let responses = whole("/v1/responses");
    let output = &responses["output"];
    assert_eq!((&output[0]["content"][0]["text"], &output[1]["name"]), (&json!("I look."), &json!("look")));
    let messages = whole("/v1/messages");
    assert_eq!((&messages["content"][1]["input"], &messages["stop_reason"]), (&json!({"at": 1}), &json!("tool_use")));
    assert_eq!(messages["usage"]["output_tokens"], 7);
    let completion = whole("/v1/completions");
    assert_eq!(completion["choices"][0]["text"], "I look.");

    let chat = ask("/v1/chat/completions", true).body;
    assert!(chat.contains("I look.") && chat.contains("\"look\"") && chat.ends_with("data: [DONE]\n\n"), "{chat}");
    let responses = ask("/v1/responses", true);
    assert_eq!(responses.events().last().unwrap().0, "response.completed");
    let messages = ask("/v1/messages", true);
    assert_eq!(messages.events().last().unwrap().0, "message_stop");
    let completion = ask("/v1/completions", true).body;
    assert!(completion.contains("I look.") && completion.ends_with("data: [DONE]\n\n"), "{completion}");
    assert_eq!(provider.asked().len(), 8);
    assert!(provider.asked().iter().all(|asked| asked["model"] == "usual"), "{:?}", provider.asked());
}

#[test]
fn models_and_vectors_of_the_fleet_are_had_at_the_port_and_a_model_is_asked_for_by_the_name_in_the_list() {
    let Some(nats) = Nats::start() else { return };
    let (provider, home, there) = (calling(), Home::new(), Home::new());
    let _instance = instance(&provider, &there, &nats.url());
    let desk = desk(&home, &nats.url(), &[]);
    let address = address(&desk);
    // Before anybody has asked for the list.
    let answer = post(&address, "/v1/chat/completions", &hi(&json!({"model": "openai/other"})));
    assert_eq!((answer.status, &provider.asked().pop().unwrap()["model"]), (200, &json!("other")), "{answer:?}");
    let list = get(&address, "/v1/models").json();
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(names.contains(&"openai/other") && names.contains(&"embedded/embedded"), "{names:?}");
    for (model, words) in [("embedded/embedded", "You asked: Look."), ("fleet/embedded/embedded", "You asked: Look.")] {
        let answer = post(&address, "/v1/chat/completions", &hi(&json!({"model": model, "max_tokens": 99})));
        assert!(answer.body.contains(words), "{model} {answer:?}");
    }
    // A name with a slash that is no provider's goes as it is.
    post(&address, "/v1/chat/completions", &hi(&json!({"model": "meta/llama"})));
    assert_eq!(provider.asked().pop().unwrap()["model"], "meta/llama");
    assert_eq!(get(&address, "/v1/models/default").json()["owned_by"], "fleet");

    let vectors = post(&address, "/v1/embeddings", &json!({"model": "openai/v", "input": ["a", "b"]})).json();
    assert_eq!(vectors["data"][1], json!({"object": "embedding", "index": 1, "embedding": [0.5, -1.0]}));
    assert_eq!((&vectors["model"], &vectors["usage"]["prompt_tokens"]), (&json!("vectors"), &json!(3)));
    let base64 = json!({"model": "openai/v", "input": "a", "encoding_format": "base64"});
    assert_eq!(post(&address, "/v1/embeddings", &base64).json()["data"][0]["embedding"], "AAAAPwAAgL8=");
    let tokens = post(&address, "/v1/embeddings", &json!({"model": "openai/v", "input": [1, 2]}));
    assert!(tokens.status == 400 && tokens.body.contains("a list of texts"), "{tokens:?}");
    let none = post(&address, "/v1/embeddings", &json!({"model": "embedded/embedded", "input": "a"}));
    assert!(none.status == 400 && none.body.contains("`embedded` has no embeddings"), "{none:?}");
    let counted = post(&address, "/v1/messages/count_tokens", &hi(&json!({})));
    assert!(counted.json()["input_tokens"].as_u64() > Some(0), "{counted:?}");
}

#[test]
fn an_instance_that_is_killed_in_mid_answer_ends_it_with_an_error_and_the_next_answer_comes() {
    let Some(nats) = Nats::start() else { return };
    let (home, homes) = (Home::new(), [Home::new(), Home::new()]);
    let (slow, _) = endless();
    let quick = calling();
    for path in PATHS {
        let doomed = instance(&slow, &homes[0], &nats.url());
        let desk = desk(&home, &nats.url(), &[]);
        let address = address(&desk);
        let mut reader = begin(&address, path, &asked(path, true));
        doomed.signal(Signal::KILL);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("may have run"), "{path} {rest}");
        doomed.finish();
        let _next = instance(&quick, &homes[1], &nats.url());
        eventually("the next instance answers", || post(&address, path, &asked(path, false)).status == 200);
        desk.stop();
    }
}

#[test]
fn a_tool_that_goes_away_ends_the_providers_stream_of_the_instance() {
    let Some(nats) = Nats::start() else { return };
    let (home, there, (slow, reading)) = (Home::new(), Home::new(), endless());
    let _instance = instance(&slow, &there, &nats.url());
    let desk = desk(&home, &nats.url(), &[]);
    let address = address(&desk);
    for (path, stream) in PATHS.map(|path| (path, true)).into_iter().chain([("/v1/messages", false)]) {
        let leaves = match stream {
            true => begin(&address, path, &asked(path, true)).into_inner(),
            false => {
                let body = asked(path, false).to_string();
                let mut tool = TcpStream::connect(&address).unwrap();
                let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
                write!(tool, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
                tool
            }
        };
        eventually("the provider answers", || reading.load(Ordering::SeqCst) == 1);
        drop(leaves);
        eventually("the provider's stream is dropped", || reading.load(Ordering::SeqCst) == 0);
    }
}

#[test]
fn errors_of_the_fleet_keep_their_kind_and_only_what_has_not_run_is_to_be_sent_again() {
    let Some(nats) = Nats::start() else { return };
    let (home, there) = (Home::new(), Home::new());
    let desk = desk(&home, &nats.url(), &[]);
    let address = address(&desk);
    let again = |answer: &Response| answer.header("x-should-retry") == Some("true");
    for (path, stream) in PATHS.into_iter().flat_map(|path| [(path, false), (path, true)]) {
        let nobody = post(&address, path, &asked(path, stream));
        assert!(nobody.status == 503 && again(&nobody), "{path} {nobody:?}");
        assert!(nobody.body.contains("no instance of the fleet has offered"), "{nobody:?}");
    }
    let failing =
        Provider::of_events(&[json!({"error": {"message": "out of bells", "type": "server_error", "code": 500}})]);
    let backend = instance(&failing, &there, &nats.url());
    let ask = || post(&address, "/v1/messages", &asked("/v1/messages", false));
    eventually("the instance is known", || !ask().body.contains("has offered"));
    for stream in [false, true] {
        let failed = post(&address, "/v1/messages", &asked("/v1/messages", stream));
        assert!(failed.body.contains("out of bells"), "{failed:?}");
    }
    let unset = post(&address, "/v1/chat/completions", &hi(&json!({"model": "embedded/x", "messages": []})));
    assert_eq!(unset.status, 400, "{unset:?}");
    backend.signal(Signal::KILL);
    backend.finish();
    eventually("nobody is there any more, and that is said", || {
        let gone = post(&address, "/v1/chat/completions", &hi(&json!({})));
        assert!(gone.status >= 500, "{gone:?}");
        gone.status == 502 && again(&gone) && gone.body.contains("it has not run")
    });
}

#[test]
fn a_tools_token_counts_in_the_books_here_and_in_the_budget_of_the_instance() {
    let Some(nats) = Nats::start() else { return };
    let (home, there, provider) = (Home::new(), Home::new(), calling());
    // One key for both.
    let seed = there.path("seed");
    std::fs::write(&seed, "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y\n").unwrap();
    let key = format!("fleet.signing_seed_file={}", seed.display());
    let config = there.config("[[budgets]]\nname = \"few\"\nwindow = \"month\"\ntoken = \"tool\"\nrequests = 2\n");
    let url = nats.url();
    let config = ["--config", config.to_str().unwrap(), "--fleet", &*url, "--offer", "ai.*", "--set", &*key];
    let _instance = provider.serve(&there, &config);
    let token = home.run(["token", "add", "tool"]).succeeded().trim().to_owned();
    let desk = desk(&home, &url, &["--set", &*key]);
    let address = address(&desk);
    let headers = |token: &str| format!("Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
    let ask = |headers: &str, stream: bool| {
        exchange(&address, "POST", "/v1/chat/completions", headers, &hi(&json!({"stream": stream})).to_string())
    };
    for stream in [false, true] {
        assert_eq!(ask(&headers(&token), stream).status, 200);
    }
    for stream in [false, true] {
        let refused = ask(&headers(&token), stream);
        assert!(refused.status == 429 && refused.body.contains("the budget `few` allows no more"), "{refused:?}");
    }
    // Without a token another one asks.
    assert_eq!(ask("Content-Type: application/json\r\n", false).status, 200);
    let rows = |by: &str| -> Vec<(String, u64, u64)> {
        let said: Value = serde_json::from_str(&home.run(["usage", "--by", by, "--json"]).succeeded()).unwrap();
        let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
        let row = |row: &Value| {
            (row["of"].as_str().unwrap().to_owned(), number(row, "requests"), number(row, "output_tokens"))
        };
        said["rows"].as_array().unwrap().iter().map(row).collect()
    };
    assert!(rows("client").contains(&("tool".to_owned(), 4, 14)), "{:?}", rows("client"));
    assert_eq!(rows("provider"), [("fleet".to_owned(), 5, 21)]);
}

/// What the books of this server have by provider: requests, and tokens of the answers.
fn by_provider(home: &Home) -> Vec<(String, u64, u64)> {
    let said: Value = serde_json::from_str(&home.run(["usage", "--by", "provider", "--json"]).succeeded()).unwrap();
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let row =
        |row: &Value| (row["of"].as_str().unwrap().to_owned(), number(row, "requests"), number(row, "output_tokens"));
    said["rows"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn what_this_server_answers_itself_is_booked_once_and_holds_up_no_request_of_its_own() {
    let Some(nats) = Nats::start() else { return };
    let (home, provider) = (Home::new(), calling());
    let token = home.run(["token", "add", "tool"]).succeeded().trim().to_owned();
    let config = home.config("[[budgets]]\nname = \"few\"\nwindow = \"month\"\ntoken = \"tool\"\nrequests = 2\n");
    let url = nats.url();
    let settings = ["--config", config.to_str().unwrap(), "--fleet", &*url, "--import", "ai.*", "--api-port", "0"];
    let desk = provider.serve(&home, &[&settings[..], &["--set", "fleet.order=first"]].concat());
    let address = address(&desk);
    let headers = format!("Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
    let ask = |stream: bool| {
        let body = hi(&json!({"stream": stream})).to_string();
        exchange(&address, "POST", "/v1/chat/completions", &headers, &body)
    };
    for stream in [false, true] {
        let answer = ask(stream);
        assert!(answer.status == 200 && !answer.body.contains("allows no more"), "{answer:?}");
    }
    assert_eq!(ask(false).status, 429);
    let rows = by_provider(&home);
    assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 14, "{rows:?}");
    assert!(rows.iter().all(|row| row.0 == "fleet"), "{rows:?}");
    // A program at the socket is booked by whoever answers it.
    home.run(["chat", "Look."]).succeeded();
    let rows = by_provider(&home);
    assert!(rows.iter().any(|row| row.0 == "openai" && row.1 == 1), "{rows:?}");
}

#[test]
fn what_an_answer_of_the_port_cost_is_said_by_who_answered() {
    let Some(nats) = Nats::start() else { return };
    let price = |provider: &str, output: u32| {
        format!("[[prices]]\nprovider = \"{provider}\"\nmodel = \"*\"\ninput = 0\noutput = {output}\n")
    };
    // Seven tokens each.
    for (prices, own, theirs) in [
        (price("fleet", 1_000_000), 7_000_000, 7_000_000),
        ([price("*", 1_000), price("fleet", 1_000_000)].concat(), 7_000_000, 7_000_000),
        ([price("fleet", 1_000_000), price("openai", 2_000)].concat(), 14_000, 14_000),
        (price("openai", 3_000), 21_000, 21_000),
    ] {
        let (home, there, provider) = (Home::new(), Home::new(), calling());
        let url = nats.url();
        let config = home.config(&prices);
        let settings = ["--config", config.to_str().unwrap(), "--fleet", &*url, "--import", "ai.*", "--api-port", "0"];
        let desk = provider.serve(&home, &[&settings[..], &["--set", "fleet.order=first"]].concat());
        let address = address(&desk);
        let costs = || -> Vec<(String, u64)> {
            let said: Value =
                serde_json::from_str(&home.run(["usage", "--by", "model", "--json"]).succeeded()).unwrap();
            let cost =
                |row: &Value| (row["of"].as_str().unwrap().to_owned(), row["costs"][0]["micros"].as_u64().unwrap());
            said["rows"].as_array().unwrap().iter().map(cost).collect()
        };
        assert_eq!(post(&address, PATHS[0], &asked(PATHS[0], true)).status, 200);
        assert_eq!(costs(), [("openai/usual".to_owned(), own)], "{prices}");
        let _instance = instance(&provider, &there, &url);
        eventually("the instance answers", || {
            // Its ledger is there with the first answer.
            post(&address, PATHS[0], &asked(PATHS[0], false)).status == 200 && there.run(["usage"]).code == Some(0)
        });
        let all: u64 = costs().iter().map(|row| row.1).sum();
        let asked = by_provider(&home).iter().map(|row| row.1).sum::<u64>();
        assert_eq!(all, own + (asked - 1) * theirs, "{prices}");
    }
}

#[test]
fn a_count_that_the_provider_did_not_say_is_estimated_in_the_books_of_the_port_too() {
    let Some(nats) = Nats::start() else { return };
    let (home, there) = (Home::new(), Home::new());
    let provider = Provider::of_events(&[
        json!({"choices": [{"index": 0, "delta": {"content": "four hundred letters".repeat(20)}}]}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 5}}),
    ]);
    let _instance = instance(&provider, &there, &nats.url());
    let desk = desk(&home, &nats.url(), &[]);
    let answer = post(&address(&desk), PATHS[0], &asked(PATHS[0], true));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(by_provider(&home)[0].2, 100);
    assert_eq!(by_provider(&there)[0].2, 100);
}

#[test]
fn a_request_that_an_instance_refuses_by_itself_uses_up_no_budget_here() {
    let Some(nats) = Nats::start() else { return };
    let (home, there, provider) = (Home::new(), Home::new(), calling());
    let slow = there.config("[gateway.providers.openai]\nrequests_per_minute = 1\nburst = 1\n");
    let slow = ["--config", slow.to_str().unwrap(), "--fleet", &*nats.url(), "--offer", "ai.*"].map(str::to_owned);
    let _instance = provider.serve(&there, &slow.each_ref().map(|arg| &**arg));
    let config = home.config("[[budgets]]\nname = \"few\"\nwindow = \"month\"\nrequests = 2\n");
    let desk = desk(&home, &nats.url(), &["--config", config.to_str().unwrap()]);
    let address = address(&desk);
    assert_eq!(post(&address, PATHS[0], &asked(PATHS[0], true)).status, 200);
    // Its own limit: no provider has them.
    for _ in 0..3 {
        let limited = post(&address, PATHS[0], &asked(PATHS[0], true));
        assert!(limited.body.contains("requests_per_minute"), "{limited:?}");
    }
    assert_eq!(provider.asked().len(), 1);
}

#[test]
fn a_spent_budget_sends_requests_on_to_a_model_of_the_fleet() {
    let Some(nats) = Nats::start() else { return };
    let (home, there, provider) = (Home::new(), Home::new(), calling());
    let _instance = instance(&provider, &there, &nats.url());
    // A provider that is the fleet's alone.
    let budget = "[[budgets]]\nname = \"few\"\nwindow = \"month\"\nrequests = 1\nmodel = \"openai/other\"\n";
    let fleet = format!("[fleet]\nservers = [\"{}\"]\nimport = [\"ai.*\"]\norder = \"only\"\n", nats.url());
    let config = home.config(&format!("{budget}{fleet}"));
    home.run(["config", "check", config.to_str().unwrap()]).succeeded();
    let config = home.config(&budget.replace("openai/other", "embedded/embedded"));
    let desk = desk(&home, &nats.url(), &["--config", config.to_str().unwrap()]);
    let address = address(&desk);
    let ask = || post(&address, "/v1/chat/completions", &hi(&json!({"max_tokens": 99})));
    assert!(ask().body.contains("I look."));
    let moved = ask();
    assert!(moved.status == 200 && moved.body.contains("You asked: Look."), "{moved:?}");
}

#[test]
fn what_nobody_has_taken_uses_up_no_budget_of_requests() {
    let Some(nats) = Nats::start() else { return };
    let (home, there, provider) = (Home::new(), Home::new(), calling());
    let config = home.config("[[budgets]]\nname = \"few\"\nwindow = \"month\"\nrequests = 1\n");
    let desk = desk(&home, &nats.url(), &["--config", config.to_str().unwrap()]);
    let address = address(&desk);
    let ask = || post(&address, "/v1/chat/completions", &hi(&json!({})));
    for _ in 0..3 {
        let nobody = ask();
        assert_eq!(nobody.status, 503, "{nobody:?}");
    }
    let _instance = instance(&provider, &there, &nats.url());
    eventually("the instance answers", || {
        let answer = ask();
        assert_ne!(answer.status, 429, "{answer:?}");
        answer.status == 200
    });
    assert_eq!(ask().status, 429);
}

#[test]
fn a_tool_that_reads_slowly_loses_nothing_of_a_long_answer() {
    let Some(nats) = Nats::start() else { return };
    let (home, there) = (Home::new(), Home::new());
    let long = Provider::start(Arc::new(|_, stream| {
        for number in 0..2_000 {
            let words = format!("<{number}>{}", "x".repeat(1_000));
            say(stream, &json!({"choices": [{"index": 0, "delta": {"content": words}}]}).to_string());
        }
        say(stream, &json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string());
        say(stream, "[DONE]");
    }));
    let _instance = instance(&long, &there, &nats.url());
    let desk = desk(&home, &nats.url(), &[]);
    let mut reader = begin(&address(&desk), "/v1/chat/completions", &hi(&json!({"stream": true})));
    std::thread::sleep(Duration::from_millis(1_500));
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    for number in 1..2_000 {
        assert!(rest.contains(&format!("<{number}>")), "{number} is missing");
    }
    assert!(rest.contains("[DONE]"));
}
