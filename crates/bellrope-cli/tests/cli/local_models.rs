//! Servers of models on this machine that nobody has set up.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use crate::support::{Home, Running};

/// An Ollama that has one model.
fn ollama() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let body = if head.starts_with("GET /api/tags ") {
                r#"{"models":[{"name":"llama3.2:latest"}]}"#
            } else {
                r#"{"object":"list","data":[{"id":"llama3.2:latest","owned_by":"library"}]}"#
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
    });
    port
}

#[test]
fn a_server_of_models_is_found_at_the_first_start_and_its_models_are_listed() {
    let home = Home::new();
    let port = ollama().to_string();
    let variable = format!("ollama={port}");
    let server = home.serve_with::<&str>([], &[("BELLROPE_LOCAL_MODELS", &variable)]);
    let hint = format!(
        "Ollama is at 127.0.0.1:{port}, with llama3.2:latest; `bellrope serve --provider ollama` lets it answer"
    );
    server.said(&hint);
    // Nobody is asked who was not named.
    assert!(home.run(["chat", "hi"]).succeeded().contains("embedded provider"));
    let models = home.run(["call", "ai.models"]).succeeded();
    assert!(models.contains(r#"{"id":"llama3.2:latest","provider":"ollama","owner":"library"}"#), "{models}");
    let doctor = Running::start(home.command(["doctor"]).env("BELLROPE_LOCAL_MODELS", &variable)).finish().stdout;
    assert!(
        doctor.contains(&format!("local models   Ollama is at 127.0.0.1:{port}, with llama3.2:latest")),
        "{doctor}"
    );
    assert!(!home.run(["doctor"]).stdout.contains("local models"));
}

#[test]
fn a_provider_that_is_set_up_without_its_key_is_named_when_the_server_starts() {
    let home = Home::new();
    let config = home.config("[gateway.providers.groq]\nmodel = \"m\"\n");
    let server = home.serve(["--config".as_ref(), config.as_os_str()]);
    server.said("the provider groq cannot answer: Groq needs a key; set GROQ_API_KEY");
}

#[test]
fn models_lists_what_a_server_has_and_what_is_found_beside_it() {
    let home = Home::new();
    let (port, other) = (ollama().to_string(), ollama().to_string());
    let found = format!("ollama={port}");
    let one_blank = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let list = |args: &[&str]| Running::start(home.command(args).env("BELLROPE_LOCAL_MODELS", &found)).finish();
    // Without a server there is what this machine has.
    let alone = list(&["models"]);
    let row = format!("ollama/llama3.2:latest ollama found at 127.0.0.1:{port}");
    assert!(one_blank(&alone.stdout).contains(&row), "{alone:?}");
    assert!(alone.stderr.contains("no server listens"), "{alone:?}");
    assert!(home.run(["models"]).stderr.contains("no server listens"));

    let server = home.serve([] as [&str; 0]);
    let table = list(&["models"]).stdout;
    assert!(table.contains("embedded/embedded") && table.contains("served") && table.contains("found at"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&list(&["models", "--json"]).stdout).unwrap();
    let models = json["models"].as_array().unwrap();
    assert_eq!(models[0], serde_json::json!({"name": "embedded/embedded", "provider": "embedded"}), "{json}");
    assert_eq!(models.last().unwrap()["found_at"], format!("127.0.0.1:{port}"));
    drop(server);

    // One that the server has itself is not found once more.
    let home = Home::new();
    let _server = home.serve_with::<&str>([], &[("BELLROPE_LOCAL_MODELS", &format!("ollama={other}"))]);
    let table = Running::start(home.command(["models"]).env("BELLROPE_LOCAL_MODELS", &found)).finish().stdout;
    assert!(one_blank(&table).contains("ollama/llama3.2:latest ollama served"), "{table}");
    assert!(!table.contains("found at"), "{table}");
}
