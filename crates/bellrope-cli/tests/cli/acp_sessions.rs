//! `acp`: sessions that outlive the agent, files that are linked to, and keys that are set in a terminal.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    editor::{Editor, message, stopped, text_of},
    provider::Provider,
    support::Home,
};

fn sessions(home: &Home) -> PathBuf {
    home.path("state").join("bellrope").join("acp_sessions")
}

fn begun(home: &Home, arguments: &[&str]) -> Editor {
    let mut editor = Editor::start(home, arguments);
    editor.initialize();
    editor
}

fn of(session: &str) -> Value {
    json!({"sessionId": session, "cwd": "/elsewhere", "mcpServers": []})
}

fn listed(editor: &mut Editor) -> Vec<Value> {
    editor.ask("session/list", &json!({})).0["result"]["sessions"].as_array().unwrap().clone()
}

#[test]
fn a_session_is_listed_and_loaded_by_the_next_agent_with_what_was_said_before_the_answer() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let _server = provider.serve(&home, &[]);
    let mut editor = Editor::start(&home, &[]);
    let capabilities = editor.initialize()["agentCapabilities"].clone();
    assert_eq!(capabilities["loadSession"], true);
    for capability in ["list", "resume", "delete", "close"] {
        assert!(capabilities["sessionCapabilities"][capability].is_object(), "{capabilities}");
    }
    let (first, second) = (editor.open(), editor.open());
    assert!(listed(&mut editor).is_empty(), "nothing was said in them");
    let choice = json!({"sessionId": first, "configId": "model", "value": "openai/other"});
    editor.ask("session/set_config_option", &choice);
    for (session, question) in [(&first, "One?"), (&second, "Other?"), (&first, "Two?")] {
        assert_eq!(stopped(&editor.prompt(session, question).0), "end_turn");
    }
    assert_eq!(editor.leave(), "");

    let folder = sessions(&home);
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = folder.join(format!("{first}.json"));
    assert_eq!((mode(&folder), mode(&file), fs::read_dir(&folder).unwrap().count()), (0o700, 0o600, 2));
    let mut editor = begun(&home, &[]);
    let list = listed(&mut editor);
    assert_eq!(list.len(), 2);
    let ours = list.iter().find(|session| session["sessionId"] == *first).unwrap();
    assert_eq!((&ours["title"], &ours["cwd"]), (&json!("One?"), &json!("/")));
    assert!(ours["updatedAt"].as_str().unwrap().ends_with('Z'), "{ours}");
    let elsewhere = editor.ask("session/list", &json!({"cwd": "/nowhere"})).0;
    assert_eq!(elsewhere["result"]["sessions"], json!([]));
    assert!(message(&editor.ask("session/list", &json!({"cursor": "x"})).0).contains("there is no page"));

    let (answer, updates) = editor.ask("session/load", &of(&first));
    let said: Vec<_> = updates
        .iter()
        .map(|update| (update["sessionUpdate"].as_str().unwrap(), update["content"]["text"].as_str().unwrap()))
        .collect();
    let (user, agent) = ("user_message_chunk", "agent_message_chunk");
    assert_eq!(said, [(user, "One?"), (agent, "Ding."), (user, "Two?"), (agent, "Ding.")]);
    let option = &answer["result"]["configOptions"][0];
    assert_eq!((&option["id"], &option["currentValue"]), (&json!("model"), &json!("openai/other")));
    // Resuming says nothing of it, and both go on with all that was said.
    let (answer, updates) = editor.ask("session/resume", &of(&second));
    assert!(answer["result"]["configOptions"].is_array() && updates.is_empty(), "{answer}");
    assert_eq!(stopped(&editor.prompt(&first, "Three?").0), "end_turn");
    let asked = provider.asked().pop().unwrap();
    let said: Vec<_> = asked["messages"].as_array().unwrap().iter().map(|message| &message["content"]).collect();
    assert_eq!(said, ["One?", "Ding.", "Two?", "Ding.", "Three?"]);
    assert_eq!(asked["model"], "other");

    // Closing forgets nothing that is on disk, deleting does.
    editor.ask("session/close", &json!({"sessionId": first}));
    assert_eq!(editor.prompt(&first, "Hm?").0["error"]["code"], -32002);
    assert_eq!(editor.ask("session/load", &of(&first)).1.len(), 6);
    for _ in 0..2 {
        assert_eq!(editor.ask("session/delete", &json!({"sessionId": first})).0["result"], json!({}));
    }
    assert_eq!(editor.ask("session/load", &of(&first)).0["error"]["code"], -32002);
    assert_eq!(listed(&mut editor).len(), 1);
    assert_eq!(editor.leave(), "");
}

#[test]
fn a_broken_file_is_named_and_passed_over_and_no_id_reaches_beyond_the_folder() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let mut editor = begun(&home, &[]);
    let (good, bad) = (editor.open(), editor.open());
    for session in [&good, &bad] {
        editor.prompt(session, "hi");
    }
    let path = sessions(&home).join(format!("{bad}.json"));
    fs::write(&path, "{").unwrap();
    assert_eq!(listed(&mut editor).len(), 1);
    editor.agent.said(&format!("the session in {} is ignored: ", path.display()));
    let words = format!("the session in {} cannot be read: ", path.display());
    assert!(message(&editor.ask("session/load", &of(&bad)).0).starts_with(&words));
    for stranger in ["../bellrope", "/etc/passwd", "nobody", ""] {
        assert_eq!(editor.ask("session/load", &of(stranger)).0["error"]["code"], -32002, "{stranger}");
    }
    // One that waits for an answer is not loaded over it.
    let id = editor.begin_endless(&good);
    let load = editor.send("session/load", &of(&good));
    let refused = editor.past_updates();
    assert_eq!(
        (&refused["id"], message(&refused)),
        (&json!(load), "this session waits for an answer; cancel it first")
    );
    editor.notify("session/cancel", &json!({"sessionId": good}));
    assert_eq!(stopped(&editor.response(id).0), "cancelled");
    editor.leave();
}

#[test]
fn with_no_store_nothing_is_kept_and_nothing_offered() {
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let mut editor = Editor::start(&home, &["--no-store"]);
    let capabilities = editor.initialize()["agentCapabilities"].clone();
    assert_eq!(capabilities["loadSession"], false);
    let session = editor.open();
    editor.prompt(&session, "hi");
    assert_eq!(editor.ask("session/list", &json!({})).0["error"]["code"], -32601);
    assert_eq!(editor.ask("session/load", &of(&session)).0["error"]["code"], -32601);
    editor.leave();
    assert!(!sessions(&home).exists());
}

#[test]
fn a_file_that_a_prompt_links_to_is_read_through_the_editor() {
    let home = Home::new();
    let provider = Provider::of_text("Ding.");
    let _server = provider.serve(&home, &[]);
    let mut editor = begun(&home, &[]);
    let session = editor.open();
    let link = |uri: &str| json!({"type": "resource_link", "name": "a b.rs", "uri": uri});
    let ask = |editor: &mut Editor, uri: &str| {
        editor.send("session/prompt", &json!({"sessionId": session, "prompt": [link(uri)]}))
    };
    let id = ask(&mut editor, "file:///src/a%20b.rs");
    let question = editor.next();
    assert_eq!(question["method"], "fs/read_text_file");
    assert_eq!(question["params"], json!({"sessionId": session, "path": "/src/a b.rs"}));
    editor.write(&format!("{}\n", json!({"jsonrpc": "2.0", "id": question["id"], "result": {"content": "mod a;\n"}})));
    assert_eq!(stopped(&editor.response(id).0), "end_turn");
    let content = || provider.asked().pop().unwrap()["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    let expected = "[@a b.rs](file:///src/a%20b.rs)\n\n<resource uri=\"file:///src/a%20b.rs\">\nmod a;\n</resource>";
    assert_eq!(content(), expected);
    // One that cannot be read stays a link, and one that is no file is not asked for.
    let id = ask(&mut editor, "file:///gone");
    let error = json!({"code": -32603, "message": "no such file"});
    let question = editor.next();
    editor.write(&format!("{}\n", json!({"jsonrpc": "2.0", "id": question["id"], "error": error})));
    assert_eq!(stopped(&editor.response(id).0), "end_turn");
    assert_eq!(content(), "[@a b.rs](file:///gone)");
    editor.agent.said("a linked file is not read: no such file");
    let id = ask(&mut editor, "https://host/a");
    assert_eq!(stopped(&editor.response(id).0), "end_turn");
    // A turn that is cancelled waits for no file.
    let id = ask(&mut editor, "file:///slow");
    assert_eq!(editor.next()["method"], "fs/read_text_file");
    editor.notify("session/cancel", &json!({"sessionId": session}));
    assert_eq!(stopped(&editor.response(id).0), "cancelled");
    editor.leave();

    // An editor that reads none is asked for none.
    let mut editor = Editor::start(&home, &[]);
    editor.ask("initialize", &json!({"protocolVersion": 1}));
    let session = editor.open();
    let request = json!({"sessionId": session, "prompt": [link("file:///src/a.rs")]});
    assert_eq!(stopped(&editor.ask("session/prompt", &request).0), "end_turn");
    editor.leave();
}

#[test]
fn a_picture_larger_than_the_server_takes_is_refused_with_the_limit_and_a_smaller_one_travels() {
    let home = Home::new();
    let provider = Provider::of_text("A bell.");
    let _server = provider.serve(&home, &["--set", "server.max_message_bytes=300000"]);
    let mut editor = begun(&home, &[]);
    let session = editor.open();
    let picture = |bytes: usize| {
        json!({"sessionId": session, "prompt": [
            {"type": "text", "text": "What is it?"},
            {"type": "image", "mimeType": "image/png", "data": "A".repeat(bytes)},
        ]})
    };
    let refused = editor.ask("session/prompt", &picture(400_000)).0;
    assert!(message(&refused).contains("300000") && message(&refused).contains("ask with less"), "{refused}");
    assert_eq!(stopped(&editor.ask("session/prompt", &picture(200_000)).0), "end_turn");
    let content = &provider.asked().pop().unwrap()["messages"][0]["content"];
    assert_eq!(content[1]["image_url"]["url"].as_str().unwrap().len(), 200_000 + "data:image/png;base64,".len());
    // It comes back as it was.
    editor.leave();
    let mut editor = begun(&home, &[]);
    let updates = editor.ask("session/load", &of(&session)).1;
    assert_eq!(
        (&updates[1]["content"]["type"], &updates[1]["content"]["mimeType"]),
        (&json!("image"), &json!("image/png"))
    );
    assert!(text_of(&updates[..1], "user_message_chunk").contains("What is it?"));
    editor.leave();
}

#[test]
fn a_key_is_set_in_a_terminal_where_the_editor_offers_one_and_servers_find_it() {
    let home = Home::new();
    let server = home.serve::<&str>([]);
    let mut editor = Editor::start(&home, &[]);
    let capabilities = json!({"auth": {"terminal": true}});
    let params = json!({"protocolVersion": 1, "clientCapabilities": capabilities});
    let methods = editor.ask("initialize", &params).0["result"]["authMethods"].clone();
    assert_eq!((&methods[0]["type"], &methods[0]["args"]), (&json!("terminal"), &json!(["--setup"])));
    editor.leave();
    let mut editor = Editor::start(&home, &[]);
    assert_eq!(editor.initialize()["authMethods"], json!([]));
    editor.leave();
    drop(server);

    let refused = home.run_with(b"delphi\nsk-1\n".to_vec(), ["acp", "--setup"]).failed(1);
    assert!(refused.contains("there is no provider \"delphi\" that takes a key"), "{refused}");
    let refused = home.run_with(b"groq\n\n".to_vec(), ["acp", "--setup"]).failed(1);
    assert!(refused.contains("that is no key; nothing was changed"), "{refused}");
    let said = home.run_with(b"groq\nsk-not-a-real-key\n".to_vec(), ["acp", "--setup"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("openai: OpenAI needs a key") && !said.stderr.contains("sk-not"), "{}", said.stderr);
    let key = home.path("state").join("bellrope").join("keys").join("groq");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let _server = home.serve(["--provider", "groq", "--set", "gateway.providers.groq.base_url=http://127.0.0.1:1"]);
    let health = home.run(["call", "ai.health"]).succeeded();
    assert!(
        health.contains("\"provider\":\"groq\"") && !health.contains("not_configured\",\"message\":\"Groq"),
        "{health}"
    );
}
