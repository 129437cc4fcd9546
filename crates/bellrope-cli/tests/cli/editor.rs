//! An editor: it has the agent as its child, and speaks the Agent Client Protocol with it over pipes.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Stdio},
    sync::mpsc::{Receiver, channel},
};

use serde_json::{Value, json};

use crate::support::{Finished, Home, PATIENCE, Running};

/// An editor with the agent as its child.
pub(crate) struct Editor {
    pub(crate) agent: Running,
    pub(crate) input: Option<ChildStdin>,
    lines: Receiver<Value>,
    asked: u64,
}

impl Editor {
    pub(crate) fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut command = home.command(["acp"].iter().chain(arguments));
        let mut agent = Running::start(command.stdin(Stdio::piped()));
        let output = BufReader::new(agent.stdout());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                // Nothing but the protocol stands on standard output.
                let value = serde_json::from_str(&line.unwrap()).expect("a line of JSON");
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        let input = Some(agent.stdin());
        Self { agent, input, lines, asked: 0 }
    }

    /// An editor that has introduced itself and opened a session; and that session's id.
    pub(crate) fn in_session(home: &Home, arguments: &[&str]) -> (Self, String) {
        let mut editor = Self::start(home, arguments);
        editor.initialize();
        let session = editor.open();
        (editor, session)
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn notify(&mut self, method: &str, params: &Value) {
        self.write(&format!("{}\n", json!({"jsonrpc": "2.0", "method": method, "params": params})));
    }

    pub(crate) fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.asked += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params});
        self.write(&format!("{request}\n"));
        self.asked
    }

    #[track_caller]
    pub(crate) fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("one more line of the agent")
    }

    /// Waits for the response to a request; returns it with the updates that came before it.
    #[track_caller]
    pub(crate) fn response(&self, id: u64) -> (Value, Vec<Value>) {
        let mut updates = Vec::new();
        loop {
            let line = self.next();
            assert_eq!(line["jsonrpc"], "2.0", "{line}");
            if line["method"] == "session/update" {
                updates.push(line["params"]["update"].clone());
            } else if line["id"] == id {
                return (line, updates);
            } else {
                panic!("{line} came where {id} was to be answered");
            }
        }
    }

    /// The next line that is no part of an answer.
    #[track_caller]
    pub(crate) fn past_updates(&self) -> Value {
        loop {
            let line = self.next();
            if line["method"] != "session/update" {
                return line;
            }
        }
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> (Value, Vec<Value>) {
        let id = self.send(method, params);
        self.response(id)
    }

    pub(crate) fn initialize(&mut self) -> Value {
        let params = json!({"protocolVersion": 1, "clientCapabilities": {"fs": {"readTextFile": true}}});
        self.ask("initialize", &params).0["result"].clone()
    }

    pub(crate) fn open(&mut self) -> String {
        let (answer, _) = self.ask("session/new", &json!({"cwd": "/", "mcpServers": []}));
        answer["result"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub(crate) fn prompt(&mut self, session: &str, text: &str) -> (Value, Vec<Value>) {
        self.ask("session/prompt", &prompt(session, text))
    }

    /// Sends a prompt whose answer has no end, and waits until it has begun.
    pub(crate) fn begin_endless(&mut self, session: &str) -> u64 {
        let id = self.send("session/prompt", &prompt(session, "/tokens 4000000000"));
        assert_eq!(self.next()["method"], "session/update");
        id
    }

    /// Ends the agent as editors do, and claims that it went well. Those that are dropped are killed.
    #[track_caller]
    pub(crate) fn leave(self) -> String {
        let Finished { code, stderr, .. } = self.finish();
        assert_eq!(code, Some(0), "{stderr}");
        stderr
    }

    pub(crate) fn finish(mut self) -> Finished {
        self.input = None;
        // Whoever reads ends with the process.
        let finished = self.agent.finish();
        drop(self.lines);
        finished
    }
}

pub(crate) fn prompt(session: &str, text: &str) -> Value {
    json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})
}

pub(crate) fn text_of(updates: &[Value], kind: &str) -> String {
    let of_kind = updates.iter().filter(|update| update["sessionUpdate"] == kind);
    of_kind.map(|update| update["content"]["text"].as_str().unwrap()).collect()
}

#[track_caller]
pub(crate) fn stopped(answer: &Value) -> &str {
    answer["result"]["stopReason"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

pub(crate) fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"))
}
