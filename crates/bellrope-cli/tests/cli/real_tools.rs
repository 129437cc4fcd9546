//! The tools themselves, through `bellrope serve`: Codex and Claude Code with a task that takes a call of a tool, the clients of
//! OpenAI and Anthropic, Vercel's AI SDK, `llm`, and the library of the Agent Client Protocol as an editor. `scripts/real-tools`
//! installs them. Skipped, and said so, where they are not.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    api_port::address,
    provider::Provider,
    scripted::{Asked, Said, Wire},
    support::{Home, Running},
};

/// What the model has the tool run: it leaves a file behind.
const TASK: &str = "echo ding > made.txt && cat made.txt";
/// The lines, addresses and settings that users are told to use.
const README: &str = include_str!("../../../../README.md");
const EDITORS: &str = include_str!("../../../../docs/editors.md");
/// Where the port is in both.
const SHOWN: &str = "127.0.0.1:8484";

/// What a variable names.
fn installed(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        bellrope_testkit::skipped(&format!("{variable} is not set; what it names was not tried"));
    }
    path
}

/// The lines of the first code of a language below a heading of the page for editors, for a server at `address`.
fn shown(heading: &str, language: &str, address: &str) -> String {
    let section = EDITORS.split_once(&format!("\n### {heading}\n")).unwrap().1;
    let code = section.split_once(&format!("```{language}\n")).unwrap().1.split_once("```").unwrap().0;
    assert!(code.contains(SHOWN), "{code}");
    code.replace(SHOWN, address)
}

/// The line of README.md that begins so, for a server at `address`, with more arguments for the `program` that it ends in or
/// begins with.
fn line_of_readme(start: &str, program: &Path, arguments: &str, address: &str) -> Command {
    let line = README.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line.contains(SHOWN), "{line}");
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("PATH=\"$TOOLS:$PATH\"\n{} {arguments}", line.replace(SHOWN, address)));
    command.env_clear().env("TOOLS", program.parent().unwrap());
    command
}

/// The tool's own shell runs [`TASK`], and then the model says what came of it.
fn having_it_run(asked: &Asked<'_>) -> Said {
    let Some(result) = &asked.result else {
        let call = asked.tools.iter().find_map(|tool| Some(((*tool).to_owned(), arguments(tool)?)));
        return call.map_or(Said::Text("Nothing to do."), |(tool, arguments)| Said::Call(tool, arguments));
    };
    Said::Text(if result.contains("ding") { "All is done." } else { "It did not work." })
}

/// The arguments of a tool by which a command is run.
fn arguments(tool: &str) -> Option<serde_json::Value> {
    Some(match tool {
        "shell" => json!({"command": ["bash", "-c", TASK]}),
        "shell_command" => json!({ "command": TASK }),
        "exec_command" => json!({ "cmd": TASK }),
        "Bash" => json!({"command": TASK, "description": "Leaves a file behind"}),
        _ => return None,
    })
}

/// A client's tool `look` is called once; without tools the answer is JSON.
fn having_it_look(asked: &Asked<'_>) -> Said {
    match (&asked.result, &asked.tools[..]) {
        (Some(_), _) => Said::Text("All is done."),
        (None, []) => Said::Text(r#"{"name":"Ding","rings":2}"#),
        (None, _) => Said::Call("look".to_owned(), json!({"at": 1})),
    }
}

/// A server whose provider speaks a format, and where its port is. `more`: settings of the provider.
fn serve(home: &Home, wire: Wire, provider: &Provider, more: &str) -> (Running, String) {
    let (kind, url) = (wire.kind(), provider.url());
    let config = home.config(&format!(
        "[gateway]\nprovider = \"openai\"\n[gateway.providers.openai]\nkind = \"{kind}\"\nbase_url = \"{url}\"\n\
         model = \"usual\"\n{more}\n"
    ));
    let server = home.serve(["--api-port".as_ref(), "0".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let address = address(&server);
    (server, address)
}

/// Runs a program in a folder of its own, with nothing of the environment but where programs are; what it printed.
#[track_caller]
fn run(home: &Home, mut command: Command) -> String {
    let work = home.path("work");
    std::fs::create_dir_all(&work).unwrap();
    command.current_dir(&work).env("HOME", home.path("")).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(&mut command).finish().succeeded()
}

/// Has a tool do its task with a provider of this format, and checks what it did and said.
#[track_caller]
fn does_a_task(wire: Wire, more: &str, tool: impl FnOnce(&Home, &str) -> Command) {
    let home = Home::new();
    let provider = wire.provider(having_it_run);
    let (_server, address) = serve(&home, wire, &provider, more);
    let command = tool(&home, &address);
    let said = run(&home, command);
    let asked = provider.asked();
    assert!(said.contains("All is done."), "{said}\n{:?}", asked.last());
    assert_eq!(std::fs::read_to_string(home.path("work").join("made.txt")).unwrap(), "ding\n");
    assert!(asked.iter().any(|body| wire.asked(body).result.is_some_and(|result| result.contains("ding"))));
}

/// Codex without anybody to ask.
const CODEX: &str = "exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox 'Leave a file behind.'";
/// Claude Code without anybody to ask.
const CLAUDE: &str = "-p 'Leave a file behind.' --dangerously-skip-permissions";
/// Root may skip permissions in a sandbox alone, and nobody is to be asked but this server.
const SANDBOX: [(&str, &str); 2] = [("IS_SANDBOX", "1"), ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")];

/// Codex, with the settings that users are told to use.
fn codex(program: &Path, home: &Home, address: &str) -> Command {
    let folder = home.path(".codex");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), shown("Codex", "toml", address)).unwrap();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("exec \"$CODEX\" {CODEX}")).env_clear().env("CODEX", program);
    command
}

/// Claude Code, by the lines that users are told to use.
fn claude(program: &Path, _: &Home, address: &str) -> Command {
    let lines = shown("Claude Code", "sh", address);
    let before = lines.strip_suffix("claude\n").unwrap();
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{before}exec \"$CLAUDE\" {CLAUDE}")).env_clear().env("CLAUDE", program);
    command.envs(SANDBOX);
    command
}

#[test]
fn codex_does_a_task_with_a_call_of_a_tool() {
    let Some(program) = installed("BELLROPE_CODEX") else { return };
    does_a_task(Wire::ChatCompletions, "", |home, address| codex(&program, home, address));
}

#[test]
fn codex_does_a_task_with_a_provider_to_which_its_requests_pass_through() {
    let Some(program) = installed("BELLROPE_CODEX") else { return };
    let more = "pass_through = \"exact\"";
    does_a_task(Wire::Responses, more, |_, address| line_of_readme("codex ", &program, CODEX, address));
}

#[test]
fn claude_code_does_a_task_with_a_call_of_a_tool() {
    let Some(program) = installed("BELLROPE_CLAUDE") else { return };
    does_a_task(Wire::ChatCompletions, "", |home, address| claude(&program, home, address));
}

#[test]
fn claude_code_does_a_task_with_a_provider_to_which_its_requests_pass_through() {
    let Some(program) = installed("BELLROPE_CLAUDE") else { return };
    let more = "pass_through = \"exact\"";
    does_a_task(Wire::Messages, more, |_, address| {
        let mut command = line_of_readme("ANTHROPIC_BASE_URL=", &program, CLAUDE, address);
        command.envs(SANDBOX);
        command
    });
}

/// The path of a program that tries a client.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name)
}

/// Has a client talk to servers whose providers speak each format. `arguments`: those between the program and the address.
#[track_caller]
fn talks(wires: &[Wire], mut client: impl FnMut(&str) -> Command) {
    for wire in wires {
        let home = Home::new();
        let provider = wire.provider(having_it_look);
        let (_server, address) = serve(&home, *wire, &provider, "");
        assert_eq!(run(&home, client(&address)), "all well\n", "{wire:?}");
    }
}

const EACH: [Wire; 3] = [Wire::ChatCompletions, Wire::Responses, Wire::Messages];

#[test]
fn openais_own_client_gets_answers_streams_tools_and_errors() {
    let Some(python) = installed("BELLROPE_TOOLS_PYTHON") else { return };
    let home = Home::new();
    let config = home.config(
        r#"
        [gateway.embedded]
        script = [
            { kind = "reasoning", text = "They knock" },
            { kind = "text", text = "Ding" },
            { kind = "text", text = " dong" },
            { kind = "tool_call", index = 7, id = "c1", name = "look", arguments = "{\"at\"" },
            { kind = "tool_call", index = 7, arguments = ":1}" },
            { kind = "usage", input_tokens = 3, output_tokens = 4, cache_read_tokens = 2 },
            { kind = "done", stop_reason = "tool_use" },
        ]
        "#,
    );
    let server = home.serve(["--api-port".as_ref(), "0".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let mut command = Command::new(python);
    command.arg(program("openai_client.py")).arg(format!("http://{}/v1", address(&server))).env_clear();
    assert_eq!(run(&home, command), "all well\n");
}

#[test]
fn openais_own_client_for_node_has_tools_streams_and_parsed_answers_whatever_the_provider_speaks() {
    let Some(modules) = installed("BELLROPE_NODE_MODULES") else { return };
    talks(&EACH, |address| {
        let mut command = Command::new("node");
        command.env_clear().arg(program("openai_client.mjs")).arg(&modules);
        command.args([&format!("http://{address}/v1"), "default"]);
        command
    });
}

#[test]
fn anthropics_own_client_has_tools_streams_and_parsed_answers_whatever_the_provider_speaks() {
    let Some(python) = installed("BELLROPE_TOOLS_PYTHON") else { return };
    talks(&EACH, |address| {
        let mut command = Command::new(&python);
        command.env_clear().arg(program("anthropic_client.py")).args([&format!("http://{address}"), "default"]);
        command
    });
}

#[test]
fn vercels_ai_sdk_has_tools_streams_and_objects_whatever_the_provider_speaks() {
    let Some(modules) = installed("BELLROPE_NODE_MODULES") else { return };
    talks(&EACH, |address| {
        let mut command = Command::new("node");
        command.env_clear().arg(program("ai_sdk.mjs")).arg(&modules);
        command.args([&format!("http://{address}/v1"), "default"]);
        command
    });
}

#[test]
fn llm_asks_by_the_settings_of_its_file_of_models() {
    let Some(python) = installed("BELLROPE_TOOLS_PYTHON") else { return };
    let home = Home::new();
    let provider = Wire::ChatCompletions.provider(|_| Said::Text("All is done."));
    let (_server, address) = serve(&home, Wire::ChatCompletions, &provider, "");
    let folder = home.path("llm");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("extra-openai-models.yaml"), shown("llm", "yaml", &address)).unwrap();
    let mut command = Command::new(python);
    command.env_clear().env("LLM_USER_PATH", &folder);
    command.args(["-m", "llm", "--model", "bellrope", "Who is there?"]);
    assert_eq!(run(&home, command), "All is done.\n");
}

#[test]
fn the_agent_client_protocols_own_library_is_an_editor_to_the_agent() {
    let Some(modules) = installed("BELLROPE_NODE_MODULES") else { return };
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let bellrope = home.command::<&str>([]);
    let mut command = Command::new("node");
    command.env_clear().envs(bellrope.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.arg(program("acp_editor.mjs")).arg(&modules).args([env!("CARGO_BIN_EXE_bellrope"), "acp"]);
    assert_eq!(run(&home, command), "all well\n");
}
