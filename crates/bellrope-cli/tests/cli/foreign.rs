//! Servers that are not `bellrope serve`: with message types of every style, with fewer than a client asks for, and with
//! answers that break the rules. They live within the test.

use bellrope::{HandlerError, Server, server::ServerBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    editor::{Editor, message, prompt, stopped},
    support::{Finished, Home},
    twins::{Number, Text},
};

/// Serves where the programs of this home look for a server.
fn serve(home: &Home, builder: ServerBuilder) -> Server {
    builder.bind(home.socket()).unwrap()
}

/// A server whose every chat is answered with these pieces.
fn answering(pieces: &'static [&'static str]) -> ServerBuilder {
    Server::builder().server_stream("ai.chat_stream", move |_, mut chunks| async move {
        for piece in pieces {
            chunks.send(piece.as_bytes()).await?;
        }
        Ok(())
    })
}

#[test]
fn a_call_hands_over_a_stream_piece_by_piece_and_prints_what_comes_back() {
    let home = Home::new();
    let builder = Server::builder()
        .client_stream("measure", |_, mut chunks| async move {
            let mut sizes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                sizes.push(chunk.len().to_string());
            }
            Ok(sizes.join(" ").into_bytes())
        })
        .client_stream("first", |_, mut chunks| async move { Ok(chunks.next().await.unwrap_or_default()) })
        .client_stream("never", |_, _| std::future::pending())
        .client_stream("fail", |_, _| async move { Err(HandlerError::new("not today")) })
        .duplex("measure_each", |_, mut incoming, mut outgoing| async move {
            while let Some(chunk) = incoming.next().await {
                outgoing.send(chunk.len().to_string().into_bytes()).await?;
            }
            Ok(())
        });
    let _server = serve(&home, builder);
    let call = |name: &str, size: usize| home.run_with(vec![b'x'; size], ["call", name, "-"]);
    assert_eq!(call("measure", 40_000).succeeded(), "16384 16384 7232");
    assert_eq!(call("measure", 0).succeeded(), "");
    assert_eq!(call("measure_each", 40_000).succeeded(), "16384\n16384\n7232\n");
    // It answers while more is on its way, which then stays away.
    assert_eq!(call("first", 32 * 1024 * 1024).succeeded(), "x".repeat(16_384));
    assert!(call("fail", 10).failed(1).contains("not today"));
    let late = home.run(["call", "--timeout", "1", "never", "x"]).failed(1);
    assert_eq!(late, "error: no answer came within 1 s; give it longer with --timeout\n");

    let rows: Value = serde_json::from_str(&home.run(["list", "--json"]).succeeded()).unwrap();
    let style = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()["style"].clone();
    assert_eq!((style("measure"), style("measure_each")), (json!("client_stream"), json!("duplex")));
}

#[test]
fn a_typed_server_is_listed_with_its_schemas_and_called_with_json() {
    #[bellrope::service]
    trait Files {
        fn size(&self, path: &str) -> Result<u64, String>;
    }

    struct Disk;

    #[bellrope::service]
    impl Files for Disk {
        fn size(&self, path: &str) -> Result<u64, String> {
            if path.is_empty() { Err("no path".to_owned()) } else { Ok(path.len() as u64) }
        }
    }

    let home = Home::new();
    let _server = serve(&home, Server::builder().service(Disk).unary("echo", |_, _| Ok(())));
    let call = |arguments: &str| home.run(["call", "Files.size", arguments]);
    assert_eq!(call(r#"{"path":"bell"}"#).succeeded(), "4\n");
    assert_eq!(call(r#"{"path":""}"#).failed(3), "error: Files.size has answered with its own error: \"no path\"\n");
    assert!(call(r#"{"path":7}"#).failed(1).contains("Files.size: the arguments cannot be read: path: invalid type"));
    let schemas: Value = serde_json::from_str(&home.run(["list", "--schema"]).succeeded()).unwrap();
    assert_eq!(schemas.as_object().unwrap().keys().collect::<Vec<_>>(), ["Files.size"]);
    let types = schemas["Files.size"]["types"].as_array().unwrap();
    assert!(types.iter().any(|ty| ty["form"] == json!({ "struct": [["path", "text"]] })), "{schemas}");
}

/// A method that has no schema is not left out without a word.
#[test]
fn a_method_without_a_schema_is_named_with_the_reason() {
    #[derive(Serialize, Deserialize)]
    enum Either {
        One(Text),
        Two(Number),
    }

    #[bellrope::service]
    trait Alike {
        fn take(&self, one: Either);
        fn clear(&self, number: u8);
    }

    struct Host;

    #[bellrope::service]
    impl Alike for Host {
        fn take(&self, _one: Either) {}
        fn clear(&self, _number: u8) {}
    }

    let home = Home::new();
    let _server = serve(&home, Server::builder().service(Host).unary("echo", |_, _| Ok(())));
    let expected = "left out: Alike.take has no schema: there are two types Item that cannot be told apart";
    for arguments in [&["list", "--schema"][..], &["generate", "markdown"]] {
        let finished = home.run(arguments);
        assert!(finished.stderr.starts_with(expected), "{}", finished.stderr);
        assert!(!finished.stderr.contains("echo"), "{}", finished.stderr);
        let said = finished.succeeded();
        assert!(said.contains("Alike.clear") && !said.contains("Alike.take"), "{said}");
    }
    assert_eq!(home.run(["call", "Alike.take", r#"{"one":{"One":"x"}}"#]).succeeded(), "null");
}

#[test]
fn an_operator_is_told_that_a_server_has_nothing_for_one() {
    let home = Home::new();
    let _server = serve(&home, Server::builder().unary("echo", |_, _| Ok(())));
    for (command, missing) in [(&["breaker", "list"][..], "bellrope.breaker"), (&["health"], "bellrope.stats")] {
        let expected = format!(
            "error: the server has no {missing}: it was built without `ServerBuilder::operator`, or is older than this program\n"
        );
        assert_eq!(home.run(command).failed(1), expected);
    }
    for command in [&["models"][..], &["chat", "--no-spawn", "Who is there?"], &["call", "ai.models"]] {
        let error = home.run(command).failed(1);
        assert!(error.contains(": it is a program without an AI gateway, or older than this one; "), "{error}");
    }
}

#[test]
fn an_answer_that_breaks_the_rules_is_no_whole_answer() {
    const DING: &str = r#"{"seq":0,"kind":"text","text":"Ding"}"#;
    const THIRD: &str = r#"{"seq":2,"kind":"text","text":"dong"}"#;
    for (pieces, came, expected) in [
        (&[][..], "", "the answer broke off: the server ended it without saying that it is whole"),
        (&[DING][..], "Ding\n", "the answer broke off: the server ended it without saying that it is whole"),
        (&[DING, THIRD][..], "Ding\n", "chunk 2 came where 1 was due; a part of the answer is missing"),
        (&["Ding"][..], "", "the server sent a chunk that cannot be read: expected value at line 1 column 1"),
    ] {
        let home = Home::new();
        let _server = serve(&home, answering(pieces));
        let Finished { code, stdout, stderr } = home.run(["chat", "Who is there?"]);
        assert_eq!((code, &*stdout, stderr), (Some(1), came, format!("error: {expected}\n")));
    }
}

#[test]
fn a_question_that_no_server_takes_is_refused_with_the_limit() {
    let home = Home::new();
    let _server = home.serve(["--set", "server.max_message_bytes=65536"]);
    for (size, limit) in [(11 * 1024 * 1024, 10 * 1024 * 1024), (100_000, 65_536)] {
        let error = home.run_with(vec![b'x'; size], ["chat", "-"]).failed(1);
        assert!(error.starts_with("error: ") && error.contains(&limit.to_string()), "{error}");
        assert!(error.ends_with("; ask with less\n"), "{error}");
    }
}

#[test]
fn an_editor_of_a_server_that_lists_no_models_has_no_choice_and_gets_answers() {
    let home = Home::new();
    let _server = serve(&home, answering(&[r#"{"seq":0,"kind":"done","stop_reason":"end_turn"}"#]));
    let mut editor = Editor::start(&home, &[]);
    editor.initialize();
    let (answer, _) = editor.ask("session/new", &json!({"cwd": "/", "mcpServers": []}));
    let result = &answer["result"];
    assert_eq!(result["configOptions"], Value::Null, "{answer}");
    let (answer, updates) = editor.prompt(result["sessionId"].as_str().unwrap(), "hi");
    assert_eq!((stopped(&answer), updates.len()), ("end_turn", 0));
    let said = editor.leave();
    assert!(said.contains("WARN") && said.contains("the models cannot be listed"), "{said}");
}

#[test]
fn no_session_is_opened_while_all_there_may_be_wait_for_answers() {
    let home = Home::new();
    let builder = Server::builder()
        .unary("ai.models", |_, reply| {
            reply.put(br#"{"version":1,"models":[],"faults":[]}"#);
            Ok(())
        })
        .server_stream("ai.chat_stream", |_, _| std::future::pending());
    let _server = serve(&home, builder);
    let mut editor = Editor::start(&home, &[]);
    editor.initialize();
    let sessions: Vec<_> = (0..64).map(|_| editor.open()).collect();
    let asked: Vec<_> = sessions.iter().map(|session| editor.send("session/prompt", &prompt(session, "hi"))).collect();
    let (refused, _) = editor.ask("session/new", &json!({"cwd": "/", "mcpServers": []}));
    assert_eq!(message(&refused), "too many sessions wait for answers; close some");
    editor.notify("session/cancel", &json!({"sessionId": sessions[63]}));
    assert_eq!(stopped(&editor.response(asked[63]).0), "cancelled");
    editor.open();
    editor.leave();
}
