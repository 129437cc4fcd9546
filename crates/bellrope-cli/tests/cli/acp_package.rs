//! What editors find the agent by: the package for `npx`, and the entry in the protocol's registry.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Home, Running};

fn editors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../editors")
}

fn json_of(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(editors().join(path)).unwrap()).unwrap()
}

/// What is wrong with an entry by the registry's own schema: the fields it needs and knows, and their forms.
fn faults(entry: &Value) -> Vec<String> {
    let fields = entry.as_object().unwrap();
    let mut faults = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = text("id");
    let is_id = id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    check(is_id, "id is ^[a-z][a-z0-9-]*$");
    check(!text("name").is_empty() && !text("description").is_empty(), "name and description are not empty");
    let version: Vec<_> = text("version").split('.').collect();
    check(version.len() >= 3 && version[..2].iter().all(|part| part.parse::<u32>().is_ok()), "version is semantic");
    let known = ["repository", "website", "authors", "license", "license_url", "icon", "distribution"];
    let known = known.iter().chain(&["id", "name", "version", "description"]);
    check(fields.keys().all(|field| known.clone().any(|known| field == known)), "all fields are known");
    check(
        fields
            .get("authors")
            .is_none_or(|authors| authors.as_array().is_some_and(|all| all.iter().all(Value::is_string))),
        "authors are texts",
    );
    let ways = fields.get("distribution").and_then(Value::as_object);
    check(ways.is_some_and(|ways| !ways.is_empty()), "there is a way to get it");
    for (way, how) in ways.into_iter().flatten() {
        let fields = how.as_object().map(|how| how.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        check(matches!(&**way, "npx" | "uvx"), "the way is a package's");
        check(how["package"].as_str().is_some_and(|package| !package.is_empty()), "a package has a name");
        check(fields.iter().all(|field| matches!(&**field, "package" | "args" | "env")), "its fields are known");
    }
    faults
}

#[test]
fn the_registrys_entry_is_as_its_schema_wants_it_and_names_the_package_of_this_version() {
    let (entry, package) = (json_of("registry/bellrope/agent.json"), json_of("acp-npx/package.json"));
    assert_eq!(faults(&entry), Vec::<String>::new());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&entry["version"], &package["version"]), (&json!(version), &json!(version)));
    let named = format!("{}@{version}", package["name"].as_str().unwrap());
    assert_eq!(entry["distribution"]["npx"]["package"], named);
    assert_eq!(entry["license"], package["license"]);
    let icon = std::fs::read_to_string(editors().join("registry/bellrope/icon.svg")).unwrap();
    assert!(icon.contains(r#"width="16" height="16""#) && icon.contains("currentColor"), "{icon}");
    for (field, wrong) in
        [("id", json!("Bell")), ("version", json!("1")), ("colour", json!("red")), ("distribution", json!({}))]
    {
        let mut entry = entry.clone();
        entry[field] = wrong;
        assert_eq!(faults(&entry).len(), 1, "{field}");
    }
}

#[test]
fn the_package_starts_the_agent_with_the_editors_own_pipes_and_its_exit_code() {
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !node.is_ok_and(|status| status.success()) {
        return bellrope_testkit::skipped("there is no node here; the package for npx was not tried");
    }
    let home = Home::new();
    let _server = home.serve::<&str>([]);
    let started = |program: &str| {
        let bellrope = home.command::<&str>([]);
        let mut command = Command::new("node");
        command.arg(editors().join("acp-npx/bin/bellrope-acp.js")).arg("--no-store").env_clear();
        command.envs(bellrope.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("BELLROPE", program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(&mut command)
    };
    let mut agent = started(env!("CARGO_BIN_EXE_bellrope"));
    let mut input = agent.stdin();
    writeln!(input, r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":1}}}}"#).unwrap();
    drop(input);
    let finished = agent.finish();
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(answer["result"]["agentInfo"]["name"], "bellrope");

    let error = started("/nonexistent/bellrope").finish().failed(1);
    assert!(error.contains("cannot be started: there is no such program; install Bellrope"), "{error}");
}
