//! `config`, and what is logged.

use std::ffi::OsStr;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, Running};

#[test]
fn config_show_prints_every_value_with_its_origin_and_no_key() {
    let home = Home::new();
    let config = home.config(
        "[server]\nworkers = 2\n[gateway.providers.work]\nkind = \"openai\"\n\
         base_url = \"https://llm.example.com/v1\"\napi_key = \"${WORK_KEY}\"\n",
    );
    let arguments = ["config".as_ref(), "show".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut command = home.command(arguments);
    command.envs([("BELLROPE_SERVER__MAX_CONNECTIONS", "500"), ("WORK_KEY", "sk-123456")]);
    command.args(["--log", "debug", "--set", "server.stream_window=9000"]);
    let table = Running::start(&mut command).finish().succeeded();
    let from = |key: &str| {
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(from("server.max_connections"), "500 BELLROPE_SERVER__MAX_CONNECTIONS");
    assert_eq!(from("server.workers"), format!("2 {}:2:1", config.display()));
    assert_eq!(from("server.breaker.timeout_ms"), "60000 default");
    assert_eq!(from("log"), "debug --log");
    assert_eq!(from("server.stream_window"), "9000 --set");
    assert_eq!(from("gateway.providers.work.api_key"), "(hidden) WORK_KEY");
    assert!(!table.contains("123456"), "{table}");
    let json = Running::start(command.arg("--json")).finish().succeeded();
    let entries: Value = serde_json::from_str(&json).unwrap();
    let workers = entries.as_array().unwrap().iter().find(|entry| entry["key"] == "server.workers").unwrap();
    assert_eq!((&workers["value"], &workers["origin"]["line"]), (&2.into(), &2.into()));
    assert!(!json.contains("123456"), "{json}");
}

#[test]
fn config_show_says_what_becomes_of_requests_in_each_providers_own_format() {
    let home = Home::new();
    let own = "[gateway.openai]\nbase_url = \"http://127.0.0.1:1\"\n[gateway.providers.anthropic]\n\
               [gateway.providers.off]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\npass_through = \"off\"\n";
    let own = home.config(own);
    let shown = home.run(["config".as_ref(), "show".as_ref(), "--config".as_ref(), own.as_os_str()]).succeeded();
    let ways: Vec<_> = shown.lines().filter(|line| line.contains(".pass_through ")).collect();
    let words = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let expected = [
        "gateway.providers.anthropic.pass_through exact default".to_owned(),
        "gateway.openai.pass_through repaired default".to_owned(),
        format!("gateway.providers.off.pass_through off {}:7:1", own.display()),
    ];
    assert_eq!(ways.len(), 3, "{shown}");
    assert!(expected.iter().all(|row| ways.iter().any(|line| words(line) == *row)), "{ways:?}");
}

#[test]
fn config_check_says_everything_that_is_wrong_and_ends_with_2() {
    let home = Home::new();
    let good = home.config("[server]\nmax_connections = 10\n");
    let said = home.run(["config".as_ref(), "check".as_ref(), good.as_os_str()]).succeeded();
    assert!(said.ends_with("bellrope.toml: nothing is wrong with it\n"), "{said}");
    let bad = home.config("prot = 1\n[server]\nworkerz = 1\n");
    let said = home.run(["config".as_ref(), "check".as_ref(), bad.as_os_str()]).failed(2);
    assert!(said.contains(":1:1: unknown key `prot`") && said.contains(":3:1: unknown key `server.workerz`"), "{said}");
    let checked = home.run(["config".as_ref(), "check".as_ref(), bad.as_os_str(), "--json".as_ref()]);
    assert_eq!(checked.code, Some(2));
    let json: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((&json["ok"], json["faults"].as_array().unwrap().len()), (&false.into(), 2));
    let unknown = home.config("[gateway]\nprovider = \"delphi\"\n");
    let said = home.run(["config".as_ref(), "check".as_ref(), unknown.as_os_str()]).failed(2);
    assert!(said.contains(":2:1: gateway.provider is `") && said.contains("known: embedded, openai"), "{said}");
}

#[test]
fn config_check_says_all_that_is_wrong_at_once_whatever_kind_it_is() {
    let home = Home::new();
    let bad = home.config(
        "prot = 1\nhealth = \"9090\"\nlog = 7\n[server]\nmax_connections = \"many\"\nmax_half_open = 0\nmax_in_flight = 0\n\
         [server.breaker]\ntimeout_ms = 0\n[books]\nkeep_days = 0\nwarn_percent = 200\n\
         [gateway]\nprovider = \"work\"\nfallback = [\"delphi\"]\n\
         [gateway.providers.work]\nkind = \"oracle\"\n\
         [gateway.providers.home]\nkind = \"openai\"\nbase_url = \"ftp://x\"\n\
         [[prices]]\nprovider = \"*\"\nmodel = \"*\"\ninput = \"free\"\noutput = 1.0\n\
         [[prices]]\nprovider = \"*\"\n\
         [[budgets]]\nname = \"a\"\nwindow = \"day\"\n\
         [[budgets]]\nname = \"b\"\nwindow = \"day\"\ntokens = 5\ntoken = \"nobody\"\n",
    );
    let said = home.run(["config".as_ref(), "check".as_ref(), bad.as_os_str()]).failed(2);
    let expected = [
        "1:1: unknown key `prot`",
        "2:1: health is",
        "3:1: log: invalid type",
        "5:1: server.max_connections: invalid type",
        "6:1: server.max_half_open is 0",
        "7:1: server.max_in_flight is 0",
        "9:1: server.breaker.timeout_ms is 0",
        "11:1: books.keep_days is 0",
        "12:1: books.warn_percent is 200",
        "15:1: gateway.fallback",
        "17:1: gateway.providers.work.kind: unknown variant",
        "20:1: ",
        "24:1: prices.0.input: invalid type",
        "26:1: prices.1: missing field",
        "28:1: budgets `a`: give at least one of",
        "35:1: budgets `b`: there is no token",
    ];
    let lines: Vec<_> = said.lines().collect();
    for (line, expected) in lines.iter().zip(expected) {
        let rest = line.split_once("bellrope.toml:").unwrap_or_else(|| panic!("{said}")).1;
        assert!(rest.starts_with(expected), "{expected}: {said}");
    }
    assert_eq!(lines.len(), expected.len(), "{said}");
}

#[test]
fn a_budget_of_money_without_a_price_is_warned_of() {
    let home = Home::new();
    let budget = "[[budgets]]\nname = \"all\"\nwindow = \"day\"\ncost = 5.0\n";
    let price = |provider: &str, currency: &str| {
        format!(
            "[[prices]]\nprovider = \"{provider}\"\nmodel = \"*\"\ninput = 1.0\noutput = 2.0\ncurrency = \"{currency}\"\n"
        )
    };
    for (text, warning) in [
        (budget.to_owned(), "budgets `all` limits nothing, as no price in USD is known; add [[prices]]"),
        (format!("{budget}{}", price("*", "EUR")), "budgets `all` limits nothing, as no price in USD is known"),
        (
            format!("{budget}{}", price("openai", "USD")),
            "`all` does not limit embedded/embedded, as no price of it in USD",
        ),
        (
            format!(
                "[gateway.providers.mine]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\nmodel = \"m\"\n{budget}{}",
                price("embedded", "USD")
            ),
            "`all` does not limit mine/m, as no price of it in USD",
        ),
        (format!("{budget}{}", price("*", "USD")), ""),
        (format!("{budget}tokens = 1000\n"), ""),
    ] {
        let file = home.config(&text);
        let checked = home.run(["config".as_ref(), "check".as_ref(), file.as_os_str()]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
        let is_told = checked.stderr.starts_with("warning: ") && checked.stderr.contains(warning);
        assert!(if warning.is_empty() { checked.stderr.is_empty() } else { is_told }, "{text} {checked:?}");
        let checked = home.run(["config".as_ref(), "check".as_ref(), file.as_os_str(), "--json".as_ref()]).succeeded();
        let json: Value = serde_json::from_str(&checked).unwrap();
        let warnings = json["warnings"].as_array().unwrap().len();
        assert_eq!((&json["ok"], warnings), (&true.into(), usize::from(!warning.is_empty())));
    }
    let added = home.run(["token", "add", "codex", "--budget", "5USD/day"]);
    assert!(
        added.stderr.contains("warning: the budget `codex: 5USD/day` limits nothing, as no price in USD is known"),
        "{added:?}"
    );
    assert_eq!(added.code, Some(0));
    assert!(added.stderr.contains("(no configuration file was read: if the server has one, name it with --config"));
    let priced = home.config(&format!("{budget}{}", price("*", "USD")));
    let read = home.run(["token", "add", "priced", "--budget", "5USD/day", "--config", priced.to_str().unwrap()]);
    assert!(read.code == Some(0) && !read.stderr.contains("warning"), "{read:?}");
    let added = home.run(["token", "add", "claude", "--budget", "5tokens/day", "--json"]).succeeded();
    let json: Value = serde_json::from_str(&added).unwrap();
    assert_eq!(json["warnings"], Value::Array(Vec::new()));
    let server = home.serve(["--config", home.config(budget).to_str().unwrap()]);
    server.said("budgets `all` limits nothing");
}

#[test]
fn config_check_lists_faults_by_line_and_takes_the_file_as_serve_does() {
    let home = Home::new();
    let bad = home.config("[server]\nzzz = 1\nworkerz = 1\n[gateway]\nprivider = \"x\"\n");
    let said = home.run(["config".as_ref(), "check".as_ref(), "--config".as_ref(), bad.as_os_str()]).failed(2);
    let lines: Vec<_> = said.lines().filter_map(|line| line.split(".toml:").nth(1)?.split(':').next()).collect();
    assert_eq!(lines, ["2", "3", "5"], "{said}");
    let bad = home.config("log = \"bellrope=loud\"\nhealth = \"9090\"\n");
    let said = home.run(["config".as_ref(), "check".as_ref(), bad.as_os_str()]).failed(2);
    assert!(said.find(":1:1: log is ").unwrap() < said.find(":2:1: health is ").unwrap(), "{said}");
}

#[test]
fn a_key_that_is_not_there_is_a_fault_with_its_line_and_what_to_set() {
    let home = Home::new();
    for (text, fault) in [
        (
            "[gateway.providers.work]\nkind = \"openai\"\napi_key = \"${WORK_KEY}\"\n",
            ":3:1: gateway.providers.work.api_key names the variable WORK_KEY, which is not set; set it, or name a file",
        ),
        (
            "[gateway.openai]\napi_key_file = \"/nowhere/key\"\n",
            ":2:1: gateway.providers.openai.api_key_file: cannot read /nowhere/key: No such file",
        ),
        (
            "[gateway]\nprovider = \"anthropic\"\n",
            ":2:1: gateway.provider: Anthropic needs a key; set ANTHROPIC_API_KEY",
        ),
        ("[gateway]\nfallback = [\"groq\"]\n", ":2:1: gateway.fallback: Groq needs a key; set GROQ_API_KEY"),
    ] {
        let config = home.config(text);
        for command in [&["config", "check"][..], &["serve"]] {
            let arguments = command.iter().copied().map(OsStr::new).chain(["--config".as_ref(), config.as_os_str()]);
            let said = home.run(arguments).failed(2);
            assert!(said.contains(fault), "{command:?}: {said}");
        }
    }
    // One that nobody is asked without being named may wait for its key on another machine.
    let config = home.config("[gateway.providers.anthropic]\nmodel = \"m\"\n");
    home.run(["config".as_ref(), "check".as_ref(), config.as_os_str()]).succeeded();
}

#[test]
fn a_provider_that_is_named_and_has_no_key_ends_the_server_before_it_serves() {
    let home = Home::new();
    let said = home.run(["serve", "--provider", "anthropic"]).failed(2);
    assert_eq!(said, "error: --provider: Anthropic needs a key; set ANTHROPIC_API_KEY\n");
    let mut command = home.command(["serve"]);
    let said = Running::start(command.env("BELLROPE_PROVIDER", "openai")).finish().failed(2);
    assert_eq!(said, "error: BELLROPE_PROVIDER: OpenAI needs a key; set OPENAI_API_KEY\n");
}

#[test]
fn what_a_provider_cannot_use_of_a_variable_of_its_own_ends_the_server_before_it_serves() {
    let home = Home::new();
    let error = Running::start(home.command(["serve"]).env("OPENAI_BASE_URL", "localhost:8080")).finish().failed(2);
    let expected = "error: OPENAI_BASE_URL (gateway.providers.openai.base_url) must start with ";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn events_are_lines_of_json_where_that_is_asked_for() {
    let home = Home::new();
    let server = home.serve(["--log-format", "json", "--log", "debug"]);
    home.run(["call", "echo", "x"]).succeeded();
    let line = server.said("\"level\":\"DEBUG\"");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert!(event["message"].is_string() && event["timestamp"].is_string(), "{line}");
}

#[test]
fn at_debug_every_call_leaves_a_span_with_type_connection_outcome_and_duration_and_at_info_none() {
    let home = Home::new();
    let server = home.serve(["--log-format", "json", "--log", "debug"]);
    home.run(["call", "echo", "x"]).succeeded();
    home.run(["call", "ai.models"]).succeeded();
    for name in ["echo", "ai.models"] {
        let line = server.said(&format!("\"message_type\":\"{name}\",\"outcome\":\"ok\""));
        let span = serde_json::from_str::<Value>(&line).unwrap()["span"].clone();
        assert!(span["connection"].is_u64() && span["duration_us"].is_u64() && span["name"] == "call", "{line}");
    }
    let quiet = home.serve(["--log-format", "json", "--socket", home.path("quiet").join("b.sock").to_str().unwrap()]);
    home.run(["call", "--socket", home.path("quiet").join("b.sock").to_str().unwrap(), "echo", "x"]).succeeded();
    quiet.signal(Signal::TERM);
    let said = quiet.finish().stderr;
    assert!(!said.contains("\"call\""), "{said}");
}

#[test]
fn settings_that_documents_show_are_valid_as_they_stand() {
    let home = Home::new();
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut shown = 0;
    let paths = std::fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(path).unwrap();
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        // Others are settings of editors.
        for block in blocks.filter(|block| block.contains("[gateway") || block.contains("[server")) {
            let file = home.config(block);
            let mut check = home.command(["config", "check", file.to_str().unwrap()]);
            let checked = Running::start(check.envs([("WORK_KEY", "a-key"), ("ANTHROPIC_API_KEY", "a-key")])).finish();
            assert_eq!(checked.code, Some(0), "{block}\n{checked:?}");
            shown += 1;
        }
    }
    assert!(shown > 0);
}
