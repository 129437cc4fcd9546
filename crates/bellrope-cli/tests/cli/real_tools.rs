//! The tools themselves, each with a small task that takes a call of a tool: Codex and Claude Code through the API port, with a
//! scripted provider of chat completions behind it. Skipped, and said so, where they are not installed.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    api_port::address,
    provider::{Provider, say},
    support::{Home, Running},
};

/// What the model has the tool run: it leaves a file behind.
const TASK: &str = "echo ding > made.txt && cat made.txt";

/// A program whose path a variable names.
fn program(variable: &str) -> Option<String> {
    let path = std::env::var(variable).ok();
    if path.is_none() {
        // Straight to the stream: what is printed by a test that passes is not shown.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {variable} is not set; this tool was not tried");
    }
    path
}

/// A provider that has the tool's own shell run [`TASK`], and then says what came of it.
fn having_it_run() -> Provider {
    Provider::start(Arc::new(|body, stream| {
        let shell =
            body["tools"].as_array().into_iter().flatten().find_map(|tool| call(tool["function"]["name"].as_str()?));
        let messages = body["messages"].as_array().unwrap();
        let result = messages.iter().rev().find(|message| message["role"] == "tool");
        let chunk = |delta: Value, reason: Value| {
            json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).to_string()
        };
        match (result, shell) {
            (None, Some((name, arguments))) => {
                let arguments = arguments.to_string();
                let (begun, rest) = arguments.split_at(7);
                let function = json!({"name": name, "arguments": begun});
                let call = json!({"index": 0, "id": "call:1", "type": "function", "function": function});
                say(stream, &chunk(json!({"tool_calls": [call]}), Value::Null));
                let more = json!({"index": 0, "function": {"arguments": rest}});
                say(stream, &chunk(json!({"tool_calls": [more]}), json!("tool_calls")));
            }
            (result, _) => {
                let text = if result.is_some() { "All is done." } else { "Nothing to do." };
                say(stream, &chunk(json!({"content": text}), json!("stop")));
            }
        }
        say(stream, &json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}).to_string());
        say(stream, "[DONE]");
    }))
}

/// A call of a tool by which a command is run, with the arguments that it takes.
fn call(tool: &str) -> Option<(String, Value)> {
    let arguments = match tool {
        "shell" => json!({"command": ["bash", "-c", TASK]}),
        "shell_command" => json!({ "command": TASK }),
        "exec_command" => json!({ "cmd": TASK }),
        "Bash" => json!({"command": TASK, "description": "Leaves a file behind"}),
        _ => return None,
    };
    Some((tool.to_owned(), arguments))
}

/// Runs a tool in a folder of its own, and checks what it did and said.
#[track_caller]
fn check(home: &Home, provider: &Provider, mut command: Command) {
    let work = home.path("work");
    command.current_dir(&work).env("HOME", home.path("")).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = Running::start(&mut command).finish().succeeded();
    assert!(said.contains("All is done."), "{said}");
    assert_eq!(std::fs::read_to_string(work.join("made.txt")).unwrap(), "ding\n");
    let asked = provider.asked();
    let messages = asked.last().unwrap()["messages"].as_array().unwrap().clone();
    let result = messages.iter().find(|message| message["role"] == "tool").unwrap();
    assert!(result["content"].to_string().contains("ding"), "{result}");
}

fn begin(home: &Home) -> (Provider, Running, String) {
    std::fs::create_dir(home.path("work")).unwrap();
    let provider = having_it_run();
    let server = provider.serve(home, &["--api-port", "0"]);
    let address = address(&server);
    (provider, server, address)
}

#[test]
fn codex_does_a_task_with_a_call_of_a_tool() {
    let Some(program) = program("BELLROPE_CODEX") else { return };
    let home = Home::new();
    let (provider, _server, address) = begin(&home);
    let settings = format!(
        "model = \"openai/m\"\nmodel_provider = \"bellrope\"\n[model_providers.bellrope]\nname = \"Bellrope\"\n\
         base_url = \"http://{address}/v1\"\nwire_api = \"responses\"\nsupports_websockets = false\n"
    );
    let folder = home.path("codex");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), settings).unwrap();
    let mut command = Command::new(Path::new(&program));
    command.args([
        "exec",
        "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox",
        "Leave a file behind.",
    ]);
    command.env_clear().env("CODEX_HOME", &folder);
    check(&home, &provider, command);
}

#[test]
fn claude_code_does_a_task_with_a_call_of_a_tool() {
    let Some(program) = program("BELLROPE_CLAUDE") else { return };
    let home = Home::new();
    let (provider, _server, address) = begin(&home);
    let mut command = Command::new(Path::new(&program));
    command.args(["-p", "Leave a file behind.", "--dangerously-skip-permissions"]).env_clear();
    let none = [("DISABLE_TELEMETRY", "1"), ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"), ("IS_SANDBOX", "1")];
    command.envs(none).env("ANTHROPIC_BASE_URL", format!("http://{address}")).env("ANTHROPIC_AUTH_TOKEN", "none");
    command.env("ANTHROPIC_MODEL", "default").env("ANTHROPIC_SMALL_FAST_MODEL", "default");
    check(&home, &provider, command);
}
