//! What AI requests cost: the ledger, budgets and tokens, as their users see them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    sync::Arc,
};

use bellrope_testkit::http;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    api_port::address,
    provider::{Provider, say},
    support::{self, Home, PATIENCE, Running, eventually},
};

const PORT: [&str; 2] = ["--api-port", "0"];

struct Response {
    status: u16,
    head: String,
    body: String,
    json: Value,
}

/// Posts a request with these headers, and reads the whole answer.
#[track_caller]
fn post(address: &str, path: &str, headers: &str, body: &Value) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = body.to_string();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n");
    let _ = write!(stream, "{head}{headers}Content-Length: {length}\r\n\r\n{body}");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (status, head, body) = http::response(&text);
    Response { status, head, json: serde_json::from_str(&body).unwrap_or(Value::Null), body }
}

fn ask(model: &str) -> Value {
    json!({"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]})
}

/// A provider that answers with 5 and 7 tokens.
fn provider() -> Provider {
    Provider::of_events(&[
        json!({"choices": [{"index": 0, "delta": {"content": "Hello."}, "finish_reason": "stop"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}),
    ])
}

fn serve(home: &Home, provider: &Provider, config: &str) -> Running {
    let config = home.config(config);
    provider.serve(home, &[&PORT[..], &["--config", config.to_str().unwrap(), "--health", "127.0.0.1:0"]].concat())
}

#[track_caller]
fn stop(server: Running) {
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}

#[track_caller]
fn usage(home: &Home, arguments: &[&str]) -> Value {
    let arguments = [&["usage", "--json"], arguments].concat();
    serde_json::from_str(&home.run(arguments).succeeded()).unwrap()
}

#[track_caller]
fn add_token(home: &Home, name: &str, budgets: &[&str]) -> String {
    let budgets = budgets.iter().flat_map(|budget| ["--budget", budget]);
    let made = home.run(["token", "add", name].into_iter().chain(budgets));
    assert!(made.stderr.contains("shown only this once"), "{made:?}");
    made.succeeded().trim().to_owned()
}

#[test]
fn a_token_that_cannot_be_made_is_wrong_usage() {
    let home = Home::new();
    let error = home.run(["token", "add", "a b"]).failed(2);
    assert!(error.contains("\"a b\" is no name for a token"), "{error}");
    home.run(["token", "add", "a", "--budget", "much"]).failed(2);
}

#[test]
fn what_requests_took_and_cost_is_in_the_ledger_on_the_page_and_in_the_metrics() {
    let (home, provider) = (Home::new(), provider());
    let prices = "[[prices]]\nprovider = \"openai\"\nmodel = \"known*\"\ninput = 1\noutput = 2.5\n";
    let server = serve(&home, &provider, prices);
    let address = address(&server);
    let token = add_token(&home, "codex", &[]);
    let key = format!("Authorization: Bearer {token}\r\n");
    for (path, headers, model) in [
        ("/v1/chat/completions", &*key, "openai/known-1"),
        ("/v1/messages", "User-Agent: claude-cli/2.0 (external)\r\n", "openai/known-1"),
        ("/v1/chat/completions", "Authorization: Bearer sk-of-another\r\n", "openai/strange"),
    ] {
        assert_eq!(post(&address, path, headers, &ask(model)).status, 200);
    }
    home.run(["chat", "--provider", "openai", "Hello"]).succeeded();

    let metrics = support::http(&server, "/metrics");
    for line in [
        r#"ai_requests_total{provider="openai",model="known-1",client="codex",outcome="done"} 1"#,
        r#"ai_tokens_total{provider="openai",model="known-1",client="codex",kind="output"} 7"#,
        r#"ai_cost_total{provider="openai",model="known-1",client="claude-cli",currency="USD"} 0.000023"#,
        r#"ai_without_price_total{provider="openai",model="strange",client="unknown"} 1"#,
        "ai_running_requests 0",
        "ai_ledger_failing 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let status = home.run(["call", "bellrope.stats"]).succeeded();
    let status: Value = serde_json::from_str(&status).unwrap();
    let panel = &status["panels"][0];
    assert_eq!((&panel["title"], &panel["alarm"]), (&json!("AI requests"), &json!("")));
    let today = panel["tables"].as_array().unwrap().iter().find(|table| table["caption"] == "Today (UTC)").unwrap();
    assert!(today["rows"].as_array().unwrap().contains(&json!(["codex", "1", "12", "0.000023 USD"])), "{today}");
    let all = today["rows"].as_array().unwrap().last().unwrap();
    assert_eq!(all[0], "all");
    assert!(all[3].as_str().unwrap().starts_with("0.000046 USD + "), "{all}");

    stop(server);
    // The next server shows the same of today.
    let server = serve(&home, &provider, prices);
    let shown = || home.run(["call", "bellrope.stats"]).succeeded().contains("0.000046 USD + 2 without a price");
    eventually("what another server has written", shown);
    stop(server);
    let clients = usage(&home, &["--by", "client"]);
    let row = |name: &str| clients["rows"].as_array().unwrap().iter().find(|row| row["of"] == name).cloned().unwrap();
    assert_eq!((&row("codex")["kind"], &row("codex")["input_tokens"]), (&json!("token"), &json!(5)));
    assert_eq!(row("codex")["costs"], json!([{"micros": 23, "currency": "USD"}]));
    assert_eq!(row("claude-cli")["kind"], "program");
    // The name of the process, as the kernel cuts it.
    assert_eq!(row("bellrope")["kind"], "process");
    assert_eq!((&clients["total"]["requests"], &clients["total"]["without_price"]), (&json!(4), &json!(2)));
    let models = usage(&home, &["--by", "model", "--since", "1d"]);
    assert!(models["rows"].as_array().unwrap().iter().any(|row| row["of"] == "strange" && row["costs"] == json!([])));
    assert_eq!(usage(&home, &["--since", "2999-01-01"])["total"]["requests"], 0);

    let state = home.path("state").join("bellrope");
    let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("books.db"), mode("tokens.json"), mode("")), (0o600, 0o600, 0o700));
    let bytes = fs::read(state.join("books.db")).unwrap();
    assert!(!bytes.windows(5).any(|window| window == b"Hello"), "the ledger holds words of a request or an answer");
}

// Rows 53, 54, 57: cached tokens are part of the input, usage that comes again replaces the earlier one, and may ride on a piece.
#[test]
fn tokens_are_counted_once_however_often_and_wherever_a_provider_says_them() {
    let home = Home::new();
    let usage_of = |input: u64, output: u64| json!({"prompt_tokens": input, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": 80}});
    let provider = Provider::of_events(&[
        json!({"choices": [{"index": 0, "delta": {"content": "He"}}], "usage": usage_of(100, 1)}),
        json!({"choices": [{"index": 0, "delta": {"content": "llo."}}], "usage": usage_of(100, 2)}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage_of(100, 3)}),
    ]);
    let prices = "[[prices]]\nprovider = \"*\"\nmodel = \"*\"\ninput = 10\noutput = 100\ncached = 1\n";
    let server = serve(&home, &provider, prices);
    let mut body = ask("openai/m");
    for (path, stream) in [("/v1/chat/completions", false), ("/v1/chat/completions", true), ("/v1/messages", true)] {
        body["stream"] = stream.into();
        assert_eq!(post(&address(&server), path, "", &body).status, 200);
    }
    assert!(
        provider.asked().iter().all(|asked| asked["stream_options"]["include_usage"] == true),
        "it was not asked for"
    );
    stop(server);
    let total = usage(&home, &[])["total"].clone();
    let count = |name: &str| total[name].as_u64().unwrap();
    assert_eq!(
        (count("input_tokens"), count("cached_tokens"), count("output_tokens"), count("estimated")),
        (300, 240, 9, 0)
    );
    assert_eq!(total["costs"][0]["micros"], 3 * (20 * 10 + 80 + 3 * 100));
}

#[test]
fn a_request_that_goes_to_a_fallback_has_a_row_for_each_provider() {
    let (home, provider) = (Home::new(), provider());
    let config = "[gateway]\nprovider = \"away\"\nfallback = [\"openai\"]\n[gateway.providers.away]\nkind = \"openai\"\n\
                  base_url = \"http://127.0.0.1:1\"\nmodel = \"m\"\nmax_retries = 0\n";
    let config = home.config(config);
    let variables = [("OPENAI_BASE_URL", &*provider.url()), ("OPENAI_MODEL", "usual")];
    let server = home.serve_with(["--api-port", "0", "--config", config.to_str().unwrap()], &variables);
    assert_eq!(post(&address(&server), "/v1/chat/completions", "", &ask("default")).status, 200);
    stop(server);
    let report = usage(&home, &["--by", "provider"]);
    let row = |name: &str| report["rows"].as_array().unwrap().iter().find(|row| row["of"] == name).cloned().unwrap();
    assert_eq!((&row("away")["failed"], &row("away")["output_tokens"]), (&json!(1), &json!(0)));
    assert_eq!((&row("openai")["done"], &row("openai")["output_tokens"]), (&json!(1), &json!(7)));
}

#[test]
fn usage_is_a_table_and_can_be_forgotten() {
    let (home, provider) = (Home::new(), provider());
    let missing = home.run(["usage"]);
    assert!(missing.code == Some(1) && missing.stderr.contains("there is no ledger at "), "{missing:?}");
    let server = serve(&home, &provider, "");
    for agent in ["one", "two", "two"] {
        let agent = format!("User-Agent: {agent}/1\r\n");
        assert_eq!(post(&address(&server), "/v1/chat/completions", &agent, &ask("openai/m")).status, 200);
    }
    stop(server);
    let table = home.run(["usage", "--by", "client"]).succeeded();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(
        lines,
        [
            "CLIENT         REQUESTS  INPUT  OUTPUT  CACHED  COST",
            "two (program)         2     10      14       0  2 without a price",
            "one (program)         1      5       7       0  1 without a price",
            "all                   3     15      21       0  3 without a price",
        ]
    );
    let nothing = home.run(["usage", "forget"]);
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
    for stranger in ["three", "one (token)"] {
        let none = home.run(["usage", "forget", "--client", stranger]);
        assert!(none.stderr.contains(&format!("no such request of a client `{stranger}`")), "{none:?}");
        assert_eq!(none.succeeded(), "erased 0 requests\n");
    }
    assert_eq!(home.run(["usage", "forget", "--client", "two (program)"]).succeeded(), "erased 2 requests\n");
    assert_eq!(home.run(["usage", "forget", "--before", "1d", "--json"]).succeeded().trim(), "{\n  \"erased\": 0\n}");
    assert_eq!(usage(&home, &[])["total"]["requests"], 1);
    assert_eq!(home.run(["usage", "forget", "--all"]).succeeded(), "erased 1 request\n");
}

#[test]
fn usage_right_after_a_request_has_it_and_forget_erases_it() {
    let (home, provider) = (Home::new(), provider());
    let server = serve(&home, &provider, "");
    let address = address(&server);
    for number in 1..=5 {
        assert_eq!(post(&address, "/v1/chat/completions", "", &ask("openai/m")).status, 200);
        assert_eq!(usage(&home, &[])["total"]["requests"], number);
    }
    assert_eq!(post(&address, "/v1/chat/completions", "", &ask("openai/m")).status, 200);
    assert_eq!(home.run(["usage", "forget", "--all"]).succeeded(), "erased 6 requests\n");
    assert_eq!(home.run(["call", "bellrope.flush"]).succeeded().trim(), r#"{"written":true}"#);
    stop(server);
}

#[test]
fn a_budget_refuses_in_each_formats_form_with_when_it_ends() {
    let (home, provider) = (Home::new(), provider());
    let server = serve(&home, &provider, "[[budgets]]\nname = \"few\"\nwindow = \"month\"\nrequests = 1\n");
    let address = address(&server);
    assert_eq!(post(&address, "/v1/chat/completions", "", &ask("openai/m")).status, 200);
    for stream in [false, true] {
        let mut body = ask("openai/m");
        body["stream"] = stream.into();
        let refused = post(&address, "/v1/chat/completions", "", &body);
        let head = refused.head.to_ascii_lowercase();
        assert_eq!((refused.status, &refused.json["error"]["code"]), (429, &json!("budget_exceeded")));
        assert!(head.contains("\r\nretry-after: ") && head.contains("x-should-retry: false"), "{head}");
        let message = refused.json["error"]["message"].as_str().unwrap();
        let expected = "the budget `few` allows no more: 1 of 1 requests are made, and this month ends at ";
        assert!(message.starts_with(expected), "{message}");
        let refused = post(&address, "/v1/messages", "", &body);
        assert_eq!((refused.status, &refused.json["error"]["type"]), (429, &json!("rate_limit_error")));
        let refused =
            post(&address, "/v1/responses", "", &json!({"model": "openai/m", "input": "Hi", "stream": stream}));
        if stream {
            // Codex would wait for as long as `retry-after` says.
            let failed = refused.body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
            let failed: Value = serde_json::from_str(failed).unwrap();
            let error = &failed["response"]["error"];
            assert_eq!((refused.status, &failed["type"]), (200, &json!("response.failed")));
            assert_eq!(error["code"], "insufficient_quota");
            assert!(error["message"].as_str().unwrap().starts_with(expected), "{error}");
        } else {
            assert_eq!((refused.status, &refused.json["error"]["type"]), (429, &json!("rate_limit_error")));
        }
    }
    assert_eq!(provider.asked().len(), 1);
    let chat = home.run(["chat", "--provider", "openai", "Hello"]);
    assert!(chat.code == Some(1) && chat.stderr.contains("the budget `few` allows no more"), "{chat:?}");

    // Raised while the server runs.
    home.config("[[budgets]]\nname = \"few\"\nwindow = \"month\"\nrequests = 2\n");
    server.signal(Signal::HUP);
    server.said("reloaded, and applied: budgets");
    assert_eq!(post(&address, "/v1/chat/completions", "", &ask("openai/m")).status, 200);
    stop(server);
    // And it holds for the next server.
    let server = serve(&home, &provider, "[[budgets]]\nname = \"few\"\nwindow = \"month\"\nrequests = 2\n");
    assert_eq!(post(&self::address(&server), "/v1/chat/completions", "", &ask("openai/m")).status, 429);
    stop(server);
    let total = &usage(&home, &[])["total"];
    assert_eq!((&total["done"], &total["refused"]), (&json!(2), &json!(8)));
    // That what was refused cost nothing is no price of the others.
    let table = home.run(["usage"]).succeeded();
    assert!(table.contains("  2 without a price\n") && !table.contains("0.00"), "{table}");
}

#[test]
fn a_wrong_token_is_refused_and_with_the_setting_a_missing_one_too() {
    let (home, provider) = (Home::new(), provider());
    let server = serve(&home, &provider, "[tokens]\nrequired = true\n");
    let address = address(&server);
    let token = add_token(&home, "codex", &["1requests/day"]);
    let with = |path: &str, key: &str| post(&address, path, &format!("x-api-key: {key}\r\n"), &ask("openai/m"));
    let none = post(&address, "/v1/chat/completions", "", &ask("openai/m"));
    assert_eq!((none.status, &none.json["error"]["code"]), (401, &json!("invalid_api_key")));
    assert!(none.json["error"]["message"].as_str().unwrap().contains("bellrope token add NAME"), "{}", none.json);
    let foreign = with("/v1/messages", "sk-ant-1");
    assert_eq!((foreign.status, &foreign.json["error"]["type"]), (401, &json!("authentication_error")));
    assert_eq!(with("/v1/messages", &token).status, 200, "it is known at once");
    let spent = with("/v1/messages", &token);
    assert_eq!(spent.status, 429);
    let message = spent.json["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("the budget `codex: 1requests/day` allows no more"), "{message}");

    let list = home.run(["token", "list"]).succeeded();
    assert_eq!(list, "NAME   BUDGETS\ncodex  1requests/day\n");
    home.run(["token", "remove", "codex"]).succeeded();
    eventually("its removal", || with("/v1/messages", &token).status == 401);
    let twice = home.run(["token", "remove", "codex"]);
    assert!(twice.code == Some(1) && twice.stderr.contains("there is no token of the name"), "{twice:?}");
    stop(server);
}

#[test]
fn a_ledger_that_cannot_be_written_costs_no_answer_and_is_said() {
    let (home, provider) = (Home::new(), provider());
    let ledger = home.path("books.db");
    fs::write(&ledger, "no database".repeat(500)).unwrap();
    let server = serve(&home, &provider, &format!("[books]\npath = {ledger:?}\n"));
    let address = address(&server);
    for _ in 0..3 {
        assert_eq!(post(&address, "/v1/chat/completions", "", &ask("openai/m")).status, 200);
    }
    server.said("the ledger is not written, and answers go on");
    eventually("the metric", || support::http(&server, "/metrics").contains("ai_ledger_failing 1"));
    let status: Value = serde_json::from_str(&home.run(["call", "bellrope.stats"]).succeeded()).unwrap();
    assert!(status["panels"][0]["alarm"].as_str().unwrap().contains("move it away"), "{status}");
    stop(server);
    let read = home.run(["usage", "--ledger", ledger.to_str().unwrap()]);
    assert!(read.code == Some(1) && read.stderr.contains("is damaged or no ledger"), "{read:?}");
}

#[test]
fn answers_that_are_under_way_when_the_server_ends_are_in_the_books() {
    // It says half of its answer, and keeps the connection until the server is gone.
    let provider = Provider::start(Arc::new(|_, stream| {
        say(stream, &json!({"choices": [{"index": 0, "delta": {"content": "x".repeat(400)}}]}).to_string());
        let _ = stream.read(&mut [0; 1]);
    }));
    for pass_through in ["exact", "repaired"] {
        let home = Home::new();
        let config = format!(
            "[gateway.providers.work]\nkind = \"openai\"\nbase_url = \"{}\"\npass_through = \"{pass_through}\"\n",
            provider.url()
        );
        let server = serve(&home, &provider, &config);
        let address = address(&server);
        let mut tool = TcpStream::connect(&address).unwrap();
        tool.set_read_timeout(Some(PATIENCE)).unwrap();
        let body =
            json!({"model": "work/m", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}).to_string();
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nUser-Agent: tool\r\n");
        write!(tool, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\n\n\r\n") {
            let mut piece = [0; 4096];
            let count = tool.read(&mut piece).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&piece[..count]);
        }
        stop(server);
        let total = &usage(&home, &[])["total"];
        assert_eq!((&total["cut"], &total["output_tokens"], &total["estimated"]), (&json!(1), &json!(100), &json!(1)));
    }
}

#[test]
fn without_a_ledger_nothing_is_kept() {
    let (home, provider) = (Home::new(), provider());
    let server = serve(&home, &provider, "[books]\npath = \"off\"\n");
    assert_eq!(post(&address(&server), "/v1/chat/completions", "", &ask("openai/m")).status, 200);
    assert!(support::http(&server, "/metrics").contains(r#"client="unknown",outcome="done"} 1"#));
    stop(server);
    assert!(!home.path("state").exists(), "something was kept");
    let off = home.run(["usage", "--config", home.path("bellrope.toml").to_str().unwrap()]);
    assert!(off.stderr.contains("there is no ledger: books.path is \"off\""), "{off:?}");
}

#[test]
fn settings_of_the_books_that_cannot_be_used_are_named_with_their_place() {
    let home = Home::new();
    for (config, expected) in [
        ("[books]\nkeep_days = 0\n", "bellrope.toml:2:1: books.keep_days is 0; set it to 1 to 36500"),
        (
            "[[prices]]\nprovider = \"p\"\nmodel = \"m\"\ninput = -1\noutput = 1\n",
            "bellrope.toml:1:1: prices row 1 (p/m): input is -1; ",
        ),
        (
            "[[budgets]]\nname = \"a\"\nwindow = \"day\"\ntokens = 5\n\n[[budgets]]\nname = \"b\"\nwindow = \"day\"\n",
            "bellrope.toml:6:1: budgets `b`: give at least one of cost, tokens and requests",
        ),
        (
            "[[budgets]]\nname = \"b\"\nwindow = \"day\"\nrequests = 0\n",
            "bellrope.toml:1:1: budgets `b`: requests is 0, which would refuse every request",
        ),
        (
            "[[budgets]]\nname = \"b\"\nwindow = \"year\"\n",
            "bellrope.toml:3:1: budgets.0.window: unknown variant `year`, expected one of",
        ),
        ("[books]\npath = \"\"\n", "bellrope.toml:2:1: books.path is empty; name a file"),
        (
            "[[budgets]]\nname = \"b\"\nwindow = \"day\"\ntokens = 5\ntoken = \"codex\"\n",
            "bellrope.toml:5:1: budgets `b`: there is no token \"codex\"; make it with `bellrope token add codex`",
        ),
        (
            "[[budgets]]\nname = \"b\"\nwindow = \"day\"\ntokens = 5\nmodel = \"olama/m\"\n",
            "bellrope.toml:5:1: budgets `b`: model is of the provider \"olama\", which is not set up (by a key or an address); known: ",
        ),
        ("[[prices]]\nprovider = \"p\"\n", "missing field `model`"),
    ] {
        let path = home.config(config);
        let checked = home.run(["config", "check", path.to_str().unwrap()]);
        assert!(checked.code == Some(2) && checked.stderr.contains(expected), "{checked:?}");
    }
    let text = "[[budgets]]\nname = \"b\"\nwindow = \"day\"\ntokens = 5\ntoken = \"codex\"\nmodel = \"ollama/m\"\n\
                [gateway.providers.ollama]\n";
    let path = home.config(text);
    let server = home.serve(["--config", path.to_str().unwrap()]);
    server.said("there is no token \"codex\"");
    add_token(&home, "codex", &[]);
    home.run(["config", "check", path.to_str().unwrap()]).succeeded();
    let wrong = home.run(["token", "add", "other", "--budget", "1000/day"]).failed(2);
    assert!(
        wrong.contains("1000tokens/day, 1000requests/day, or money with its currency, as in 1000USD/day"),
        "{wrong}"
    );
}
