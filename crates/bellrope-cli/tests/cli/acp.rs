//! `acp`: the Agent Client Protocol over pipes, as editors speak it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    process::Stdio,
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    editor::{Editor, message, prompt, stopped, text_of},
    provider::{self, Provider},
    support::{Home, PATIENCE, Running, eventually, http},
};

#[test]
fn an_editor_is_told_who_answers_and_gets_the_answer_in_chunks() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let mut editor = Editor::start(&home, &[]);
    let introduction = editor.initialize();
    assert_eq!(introduction["protocolVersion"], 1);
    assert_eq!(introduction["agentInfo"]["name"], "bellrope");
    assert_eq!(introduction["agentCapabilities"]["promptCapabilities"]["embeddedContext"], true);
    assert_eq!(introduction["agentCapabilities"]["loadSession"], true);
    let session = editor.open();
    let (answer, updates) = editor.prompt(&session, "Who is there?");
    assert_eq!(stopped(&answer), "end_turn");
    assert!(updates.len() > 10, "the answer came in {} chunks", updates.len());
    assert!(text_of(&updates, "agent_message_chunk").ends_with("You asked: Who is there?"));
    let finished = editor.finish();
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
}

#[test]
fn reasoning_comes_as_thought_and_stop_reasons_are_kept() {
    for (reason, expected) in [("max_tokens", "max_tokens"), ("content_filter", "refusal"), ("tool_use", "end_turn")] {
        let home = Home::new();
        let config = home.config(&format!(
            r#"
            [gateway.embedded]
            script = [
                {{ kind = "reasoning", text = "They knock" }},
                {{ kind = "text", text = "Ding" }},
                {{ kind = "usage", input_tokens = 1, output_tokens = 2 }},
                {{ kind = "done", stop_reason = "{reason}" }},
            ]
            "#
        ));
        let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
        let (mut editor, session) = Editor::in_session(&home, &[]);
        let (answer, updates) = editor.prompt(&session, "hi");
        assert_eq!(stopped(&answer), expected);
        let kinds: Vec<_> = updates.iter().map(|update| update["sessionUpdate"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["agent_thought_chunk", "agent_message_chunk"]);
        assert_eq!(text_of(&updates, "agent_thought_chunk"), "They knock");
        assert_eq!(editor.leave(), "");
    }
}

#[test]
fn a_session_remembers_what_was_said_in_it_and_nothing_of_others() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let _server = provider.serve(&home, &[]);
    let (mut editor, session) = Editor::in_session(&home, &["--system", "Be brief.", "--max-tokens", "9"]);
    let other = editor.open();
    for (session, question) in [(&session, "One?"), (&other, "Other?"), (&session, "Two?")] {
        assert_eq!(stopped(&editor.prompt(session, question).0), "end_turn");
    }
    let asked = provider.asked();
    let said = |asked: &Value| -> Vec<String> {
        let messages = asked["messages"].as_array().unwrap();
        messages.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(said(&asked[0]), ["Be brief.", "One?"]);
    assert_eq!(said(&asked[1]), ["Be brief.", "Other?"]);
    assert_eq!(said(&asked[2]), ["Be brief.", "One?", "Ding.", "Two?"]);
    assert_eq!((&asked[2]["model"], &asked[2]["max_tokens"]), (&json!("usual"), &json!(9)));
    assert_eq!(editor.leave(), "");
}

#[test]
fn the_model_of_a_session_can_be_chosen() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let _server = provider.serve(&home, &[]);
    let mut editor = Editor::start(&home, &[]);
    editor.initialize();
    let (answer, _) = editor.ask("session/new", &json!({"cwd": "/", "mcpServers": []}));
    let option = &answer["result"]["configOptions"][0];
    assert_eq!(
        (&option["id"], &option["category"], &option["currentValue"]),
        (&json!("model"), &json!("model"), &json!("default"))
    );
    let values: Vec<_> = option["options"].as_array().unwrap().iter().map(|choice| &choice["value"]).collect();
    assert!(values.contains(&&json!("openai/other")) && values.contains(&&json!("embedded/embedded")), "{values:?}");

    let session = answer["result"]["sessionId"].as_str().unwrap().to_owned();
    let choose = |editor: &mut Editor, id: &str, value: &str| {
        editor.ask("session/set_config_option", &json!({"sessionId": session, "configId": id, "value": value})).0
    };
    let answer = choose(&mut editor, "model", "openai/other");
    assert_eq!(answer["result"]["configOptions"][0]["currentValue"], "openai/other", "{answer}");
    editor.prompt(&session, "hi");
    assert_eq!(provider.asked()[0]["model"], "other");
    assert!(message(&choose(&mut editor, "colour", "red")).contains("known: model"));
    assert!(message(&choose(&mut editor, "model", "nonsense")).contains("PROVIDER/MODEL"));
    let stranger = json!({"sessionId": "nobody", "configId": "model", "value": "openai/other"});
    assert_eq!(editor.ask("session/set_config_option", &stranger).0["error"]["code"], -32002);
    let (answer, updates) = {
        choose(&mut editor, "model", "embedded/embedded");
        editor.prompt(&session, "hi")
    };
    assert_eq!(stopped(&answer), "end_turn");
    assert!(text_of(&updates, "agent_message_chunk").contains("embedded provider"));
    // Not in the middle of an answer.
    let id = editor.begin_endless(&session);
    let params = json!({"sessionId": session, "configId": "model", "value": "openai/other"});
    let change = editor.send("session/set_config_option", &params);
    let refused = editor.past_updates();
    assert_eq!(refused["id"], change);
    assert_eq!(message(&refused), "this session waits for an answer; cancel it first");
    editor.notify("session/cancel", &json!({"sessionId": session}));
    assert_eq!(stopped(&editor.response(id).0), "cancelled");
    editor.leave();
}

#[test]
fn a_cancelled_prompt_says_so_and_its_stream_is_cancelled_at_the_server() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    let cancelled = |count: u32| {
        let line = format!(r#"ipc_requests_total{{type="ai.chat_stream",outcome="cancelled"}} {count}"#);
        http(&server, "/metrics").contains(&line)
    };
    let (mut editor, session) = Editor::in_session(&home, &[]);
    // Without a prompt there is nothing to cancel.
    editor.notify("session/cancel", &json!({"sessionId": session}));
    let id = editor.begin_endless(&session);
    editor.notify("session/cancel", &json!({"sessionId": session}));
    assert_eq!(stopped(&editor.response(id).0), "cancelled");
    eventually("the end of the first stream", || cancelled(1));

    let id = editor.begin_endless(&session);
    editor.notify("$/cancel_request", &json!({"requestId": id}));
    assert_eq!(stopped(&editor.response(id).0), "cancelled");
    eventually("the end of the second stream", || cancelled(2));

    let id = editor.begin_endless(&session);
    let close = editor.send("session/close", &json!({"sessionId": session}));
    let mut ends = Vec::new();
    while ends.len() < 2 {
        let line = editor.next();
        if !line["id"].is_null() {
            ends.push((line["id"].clone(), line["result"]["stopReason"].clone()));
        }
    }
    assert!(ends.contains(&(json!(id), json!("cancelled"))) && ends.contains(&(json!(close), Value::Null)), "{ends:?}");
    eventually("the end of the third stream", || cancelled(3));

    let session = editor.open();
    let (answer, updates) = editor.prompt(&session, "Who is there?");
    assert_eq!(stopped(&answer), "end_turn");
    assert!(text_of(&updates, "agent_message_chunk").ends_with("You asked: Who is there?"));
    assert_eq!(editor.leave(), "");
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason_and_the_rest_goes_on() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let mut editor = Editor::start(&home, &[]);
    editor.initialize();
    for (line, code) in [
        ("{\"jsonrpc\": \"2.0\", \"id\": 7,", -32700),
        ("not even close", -32700),
        ("[1, 2]", -32600),
        ("17", -32600),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"session/new\"}", -32600),
    ] {
        editor.write(&format!("{line}\n"));
        let answer = editor.next();
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
    }
    editor.input.as_mut().unwrap().write_all(b"\xff\xfe\n\n\r\n").unwrap();
    assert_eq!(editor.next()["error"]["code"], -32700);
    editor.write(&format!("\"{}\"\n", "x".repeat(17 * 1024 * 1024)));
    let answer = editor.next();
    assert_eq!(answer["error"]["code"], -32700);
    assert!(answer.to_string().contains("a line of more than 16777216 bytes was ignored"), "{answer}");

    // A request keeps its own id, so that it ends for the editor.
    let long = json!({"jsonrpc": "2.0", "id": 77, "method": "session/prompt", "params": "x".repeat(17 * 1024 * 1024)});
    editor.write(&format!("{long}\n"));
    let answer = editor.next();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(77), &json!(-32600)), "{answer}");

    let codes = [
        ("session/fly", json!({}), -32601),
        ("session/prompt", json!({"prompt": 3}), -32602),
        ("session/prompt", prompt("nobody", "hi"), -32002),
        ("session/close", json!({"sessionId": "nobody"}), -32002),
        ("session/load", json!({"sessionId": "nobody", "cwd": "/", "mcpServers": []}), -32002),
        ("session/fork", json!({"sessionId": "nobody", "cwd": "/", "mcpServers": []}), -32601),
    ];
    for (method, params, code) in codes {
        let (answer, _) = editor.ask(method, &params);
        assert_eq!(answer["error"]["code"], code, "{method}: {answer}");
    }
    // What nobody asked for is passed over.
    editor.notify("session/whatever", &json!({}));
    editor.notify("session/cancel", &json!({"sessionId": "nobody"}));
    editor.write("{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n");

    let session = editor.open();
    let sound = json!({"sessionId": session, "prompt": [{"type": "audio", "mimeType": "audio/wav", "data": "aGk="}]});
    assert_eq!(message(&editor.ask("session/prompt", &sound).0), "models are not sent sound");
    let id = editor.begin_endless(&session);
    let second = editor.send("session/prompt", &prompt(&session, "hi"));
    let refused = editor.past_updates();
    assert_eq!(refused["id"], second);
    assert_eq!(message(&refused), "this session waits for an answer; cancel it first");
    editor.notify("session/cancel", &json!({"sessionId": session}));
    assert_eq!(stopped(&editor.response(id).0), "cancelled");
    assert_eq!(editor.finish().code, Some(0));
}

#[test]
fn an_answer_that_fails_is_an_error_in_words_and_its_question_was_never_asked() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let (mut editor, session) = Editor::in_session(&home, &["--provider", "delphi"]);
    let (answer, _) = editor.prompt(&session, "hi");
    assert_eq!(message(&answer), "unknown_provider: there is no provider `delphi`; known: embedded, openai");
    editor.leave();

    let home = Home::new();
    // A filter takes offence at the first question alone.
    let provider = Provider::start(Arc::new(|asked, stream| {
        let refused = asked["messages"].as_array().unwrap().last().unwrap()["content"] == "Bad?";
        let end = if refused { "content_filter" } else { "stop" };
        let delta = json!({"choices": [{"index": 0, "delta": {"content": "Hm."}, "finish_reason": end}]});
        provider::say(stream, &delta.to_string());
        provider::say(stream, "[DONE]");
    }));
    let _server = provider.serve(&home, &[]);
    let (mut editor, session) = Editor::in_session(&home, &[]);
    assert_eq!(stopped(&editor.prompt(&session, "Bad?").0), "refusal");
    assert_eq!(stopped(&editor.prompt(&session, "Good?").0), "end_turn");
    assert_eq!(provider.asked()[1]["messages"], json!([{"role": "user", "content": "Good?"}]));
    assert_eq!(editor.leave(), "");
}

#[test]
fn a_session_longer_than_a_message_forgets_its_oldest_turns_and_says_so_in_the_log() {
    let home = Home::new();
    let config = home.config("[server]\nmax_message_bytes = 65536\n");
    let _server = home.serve(["--config".as_ref(), config.as_os_str()]);
    let (mut editor, session) = Editor::in_session(&home, &["--max-tokens", "1"]);
    for _ in 0..3 {
        let (answer, _) = editor.prompt(&session, &"x".repeat(30_000));
        assert_eq!(stopped(&answer), "max_tokens");
    }
    let said = editor.leave();
    assert!(said.contains("the conversation is too long; its oldest 2 messages are forgotten"), "{said}");
}

#[test]
fn an_editor_that_cannot_be_written_to_ends_the_agent_with_the_reason() {
    let home = Home::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut agent = Running::start(home.command(["acp"]).stdin(Stdio::piped()).stdout(full));
    let mut input = agent.stdin();
    input
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}\n")
        .unwrap();
    let error = agent.finish().failed(1);
    let told = error.lines().last().unwrap();
    assert!(told.starts_with("error: the connection to the editor is lost: "), "{error}");
    assert!(told.contains("No space left on device"), "{error}");
}

#[test]
fn a_server_that_dies_in_mid_answer_costs_that_answer_and_is_found_again() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let (mut editor, session) = Editor::in_session(&home, &[]);
    let id = editor.begin_endless(&session);
    drop(server);
    let answer = editor.response(id).0;
    assert!(message(&answer).starts_with("the server went away"), "{answer}");
    let (answer, _) = editor.prompt(&session, "anybody?");
    assert!(message(&answer).starts_with("no server listens at "), "{answer}");
    assert!(message(&answer).ends_with("; start one with `bellrope serve`"), "{answer}");
    let (other, _) = editor.ask("session/new", &json!({"cwd": "/", "mcpServers": []}));
    assert_eq!(message(&other), message(&answer), "no session without a server");
    let _server = home.serve::<&str>([]);
    let (answer, updates) = editor.prompt(&session, "Who is there?");
    assert_eq!(stopped(&answer), "end_turn");
    assert!(text_of(&updates, "agent_message_chunk").ends_with("You asked: Who is there?"));
    editor.leave();
}

#[test]
fn without_a_server_the_editor_is_told_how_to_start_one() {
    let home = Home::new();
    let mut editor = Editor::start(&home, &[]);
    editor.agent.said("warning: no server listens at ");
    editor.initialize();
    let (answer, _) = editor.ask("session/new", &json!({"cwd": "/", "mcpServers": []}));
    assert!(message(&answer).ends_with("; start one with `bellrope serve`"), "{answer}");
    let _server = home.serve::<&str>([]);
    let session = editor.open();
    assert_eq!(stopped(&editor.prompt(&session, "hi").0), "end_turn");
    let said = editor.leave();
    assert_eq!(said.matches("no server listens at ").count(), 1, "{said}");
}

#[test]
fn the_end_of_standard_input_ends_the_agent_even_in_mid_answer_with_nobody_reading() {
    let home = Home::new();
    let server = home.serve(["--health", "127.0.0.1:0"]);
    let idle = || http(&server, "/metrics").contains("\nipc_active_connections 0\n");
    let (mut editor, session) = Editor::in_session(&home, &[]);
    editor.begin_endless(&session);
    assert_eq!(editor.finish().code, Some(0));
    eventually("the end of its connection", idle);

    let mut agent = Running::start(home.command(["acp"]).stdin(Stdio::piped()));
    let mut input = agent.stdin();
    let mut output = BufReader::new(agent.stdout());
    let mut ask = |id: u64, method: &str, params: Value| {
        writeln!(input, "{}", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    ask(0, "initialize", json!({"protocolVersion": 1}));
    let session = ask(1, "session/new", json!({"cwd": "/", "mcpServers": []}));
    let session = session["result"]["sessionId"].as_str().unwrap();
    let first = ask(2, "session/prompt", prompt(session, "/tokens 4000000000"));
    assert_eq!(first["method"], "session/update");
    // From here on nobody reads.
    drop(input);
    assert_eq!(agent.finish().code, Some(0));
    eventually("the end of its connection", idle);
    drop(output);
}

#[test]
fn what_was_asked_just_before_the_end_is_still_answered() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let lines = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}\n\
                 {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"session/new\",\"params\":{\"cwd\":\"/\",\"mcpServers\":[]}}\n";
    let answers = home.run_with(lines.into(), ["acp"]).succeeded();
    let ids: Vec<Value> =
        answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, [0, 1], "{answers}");
    assert!(answers.contains("sessionId"), "{answers}");
}

#[test]
fn the_protocols_own_client_gets_its_answer() {
    use agent_client_protocol::{
        Client, Lines, schema::ProtocolVersion, v1::SessionSetup, v1::schema::InitializeRequest,
    };
    use futures_util::{sink, stream};
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::unix::pipe,
    };

    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let mut agent = Running::start(home.command(["acp"]).stdin(Stdio::piped()));
        let output = pipe::Receiver::from_owned_fd(agent.stdout().into()).unwrap();
        let output = BufReader::new(output).lines();
        let input = pipe::Sender::from_owned_fd(agent.stdin().into()).unwrap();
        let incoming =
            stream::try_unfold(output, async |mut output| Ok(output.next_line().await?.map(|line| (line, output))));
        let outgoing = sink::unfold(input, async |mut input, line: String| {
            input.write_all(format!("{line}\n").as_bytes()).await?;
            Ok::<_, std::io::Error>(input)
        });
        let conversation = Client.v1().connect_with(Lines::new(outgoing, incoming), async |agent| {
            agent.send_request(InitializeRequest::new(ProtocolVersion::V1)).block_task().await?;
            let session = agent.build_session("/").block_task();
            session
                .run_until(async |SessionSetup { mut session, .. }| {
                    session.send_prompt("Who is there?")?;
                    session.read_to_string().await
                })
                .await
        });
        tokio::time::timeout(PATIENCE, conversation).await.expect("an answer in time").unwrap()
    });
    assert!(answer.ends_with("You asked: Who is there?"), "{answer}");
}
