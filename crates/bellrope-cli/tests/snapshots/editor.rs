//! The Agent Client Protocol, line for line, as an editor sees it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Stdio},
    sync::mpsc::{Receiver, channel},
};

use serde_json::{Value, json};

use crate::{
    stage::{PATIENCE, Running, Stage, how},
    text::freeze,
};

/// An editor that writes down what it sends and gets.
struct Editor {
    agent: Running,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    shown: String,
    asked: u64,
}

impl Editor {
    fn start(stage: &Stage) -> Self {
        let mut agent = Running::start(stage.command(&["acp"]).stdin(Stdio::piped()));
        let (input, output) = (Some(agent.stdin()), BufReader::new(agent.stdout()));
        let (send, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { agent, input, lines, shown: String::new(), asked: 0 }
    }

    fn write(&mut self, line: &str) {
        self.shown.push_str(&format!("> {line}\n"));
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Reads up to the next line that is no update, and writes it down after them. Pieces of text of one kind are written
    /// as one: how they are cut is up to the provider.
    #[track_caller]
    fn hear(&mut self) -> Value {
        const TEXT: &str = "/params/update/content/text";
        const KIND: &str = "/params/update/sessionUpdate";
        let mut last = Value::Null;
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("one more line of the agent");
            let mut line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if line["method"] != "session/update" {
                self.note(&last);
                self.note(&line);
                return line;
            }
            let said = |line: &Value| line.pointer(TEXT).and_then(Value::as_str).map(str::to_owned);
            if let (Some(before), Some(more), true) =
                (said(&last), said(&line), last.pointer(KIND) == line.pointer(KIND))
            {
                *line.pointer_mut(TEXT).unwrap() = json!(before + &more);
            } else {
                self.note(&last);
            }
            last = line;
        }
    }

    fn note(&mut self, line: &Value) {
        if !line.is_null() {
            self.shown.push_str(&format!("< {line}\n"));
        }
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        self.write(&json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}).to_string());
        self.hear()
    }
}

#[test]
fn the_agent_says_what_it_did() {
    let stage = Stage::new();
    let _server = stage.serve(&[]);
    let mut editor = Editor::start(&stage);
    let capabilities = json!({"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false});
    editor.ask("initialize", &json!({"protocolVersion": 1, "clientCapabilities": capabilities}));
    let session = editor.ask("session/new", &json!({"cwd": "/", "mcpServers": []}));
    let session = session["result"]["sessionId"].as_str().unwrap().to_owned();
    let prompt = |session: &str, content: Value| json!({"sessionId": session, "prompt": [content]});
    let text = |text: &str| json!({"type": "text", "text": text});
    editor.ask("session/prompt", &prompt(&session, text("Who is there?")));
    let option = |id: &str, value: &str| json!({"sessionId": session, "configId": id, "value": value});
    editor.ask("session/set_config_option", &option("model", "embedded/embedded"));
    editor.ask("session/set_config_option", &option("model", "nonsense"));
    editor.ask("session/set_config_option", &option("colour", "red"));
    editor.ask("session/prompt", &prompt("nobody", text("hi")));
    editor.ask("session/prompt", &json!({"prompt": 3}));
    editor.ask("session/prompt", &prompt(&session, json!({"type": "audio", "mimeType": "audio/wav", "data": "aGk="})));
    editor.ask("session/load", &json!({"sessionId": "nobody", "cwd": "/", "mcpServers": []}));
    editor.ask("session/fly", &json!({}));
    for line in ["not even close", "[1, 2]", "17", r#"{"jsonrpc":"1.0","id":1,"method":"session/new"}"#] {
        editor.write(line);
        editor.hear();
    }
    editor.ask("session/close", &json!({"sessionId": session}));
    drop(editor.input.take());
    let ended = editor.agent.finish();
    // What the protocol's library logs is nothing of ours.
    let ours: String = ended.stderr.lines().filter(|line| !line.contains(" agent_client_protocol::")).collect();
    let shown = format!("{}{}\n--- standard error\n{ours}\n", editor.shown, how(ended.code));
    freeze("acp.txt", &stage.clean(&shown.replace(&session, "[SESSION]")));
}
