//! `config`, `doctor`, and settings that a server refuses.

use crate::{
    shape::{Look, shape},
    stage::Stage,
    text::{freeze, mask},
};

/// What is wrong in a way that is quoted with its place.
const FAULTY: &str = "prot = 1\nlog = \"info\"\n[server]\nworkerz = 1\nmax_connections = 10\n";

#[test]
fn config_show_prints_every_setting_as_it_did() {
    let stage = Stage::new();
    freeze("config/show.txt", &stage.run(&["config", "show"]).shown());
    freeze("config/show.json.txt", &stage.run(&["config", "show", "--json"]).shown());
}

#[test]
fn config_show_names_every_origin_and_hides_every_key_as_it_did() {
    let stage = Stage::new();
    let file = stage.file(
        "bellrope.toml",
        "health = \"127.0.0.1:9090\"\n[server]\nworkers = 2\n[server.breaker]\ntimeout_ms = 5000\n\
         [gateway]\nprovider = \"work\"\nfallback = [\"embedded\"]\n[gateway.providers.work]\nkind = \"openai\"\n\
         base_url = \"https://me:sk-1@llm.example.com/v1?key=sk-2\"\napi_key = \"${WORK_KEY}\"\nmodel = \"m\"\n",
    );
    let variables = [
        ("BELLROPE_SERVER__MAX_CONNECTIONS", "500"),
        ("BELLROPE_LOG", "debug"),
        ("BELLROPE_GATEWAY__FALLBACK", "embedded,work"),
        ("WORK_KEY", "sk-123456"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:8080"),
        ("OPENAI_API_KEY", "sk-654321"),
        ("OPENAI_MODEL", "gpt"),
    ];
    let arguments = ["config", "show", "--config", &file, "--api-port", "8484", "--set", "server.stream_window=9000"];
    let table = stage.run_with(&variables, &arguments, "").shown();
    let json = stage.run_with(&variables, &[&arguments[..], &["--json"]].concat(), "");
    let (_, printed) = table.split_once("--- standard output").unwrap();
    assert!(!printed.contains("sk-") && !json.stdout.contains("sk-"), "{table}");
    freeze("config/show_with_origins.txt", &table);
    freeze("config/show_with_origins.json.txt", &json.stdout);
}

#[test]
fn config_check_says_what_is_wrong_as_it_did() {
    let stage = Stage::new();
    let good = stage.file("good.toml", "[server]\nmax_connections = 10\n");
    let mut shown = stage.all(&[&["config", "check", &good], &["config", "check", &good, "--json"]]);
    let texts = [
        ("unknown_keys", FAULTY),
        ("no_toml", "[server\n"),
        ("wrong_type", "[server]\nmax_connections = \"many\"\n"),
        ("section", "server = 5\n"),
        ("out_of_range", "[server]\nmax_half_open = 0\n"),
        ("breaker", "[server.breaker]\ntimeout_ms = 0\n"),
        ("provider", "[gateway]\nprovider = \"delphi\"\n"),
        ("kind", "[gateway.providers.work]\nkind = \"oracle\"\n"),
        ("address", "[gateway.openai]\nbase_url = \"localhost:8080\"\n"),
        ("key", "[gateway.openai]\napi_key = \"sk-123456\"\n"),
        ("key_file", "[gateway.openai]\napi_key_file = \"/nowhere/key\"\n"),
        ("health", "health = \"9090\"\n"),
        ("log", "log = \"bellrope=loud\"\n"),
        ("ring", "[server]\nring_bytes = 32768\n"),
    ];
    for (name, text) in texts {
        let file = stage.file(&format!("{name}.toml"), text);
        shown.push_str(&stage.all(&[&["config", "check", &file]]));
    }
    let bad = stage.path("unknown_keys.toml");
    shown.push_str(&stage.all(&[
        &["config", "check", bad.to_str().unwrap(), "--json"],
        &["config", "check", "nowhere.toml"],
        &["config", "check", "nowhere.toml", "--json"],
    ]));
    freeze("config/check.txt", &shown);
}

#[test]
fn settings_that_are_wrong_end_a_server_before_it_serves_as_they_did() {
    let stage = Stage::new();
    let bad = stage.file("bad.toml", FAULTY);
    let mut shown = stage.all(&[
        &["serve", "--config", &bad],
        &["serve", "--config", "nowhere.toml"],
        &["serve", "--set", "server.max_conections=5"],
        &["serve", "--set", "server=5"],
        &["serve", "--set", "server.max_in_flight=many"],
        &["serve", "--set", "server.max_half_open=0"],
        &["serve", "--set", "server.spin=often"],
        &["serve", "--provider", "delphi"],
        &["serve", "--log", "bellrope=loud"],
        &["config", "show", "--provider", "delphi", "--set", "servr.workers=1"],
    ]);
    for (name, value) in [
        ("BELLROPE_SERVER__MAX_CONNECTIONS", "many"),
        ("BELLROPE_SERVER__MAX_CONECTIONS", "5"),
        ("BELLROPE_SERVER_MAX_CONNECTIONS", "5"),
        ("BELLROPE_SERVER", "5"),
        ("BELLROPE_OPENAI_PORT", "http"),
        ("BELLROPE_CONFIG", "nowhere.toml"),
        ("OPENAI_BASE_URL", "localhost:8080"),
    ] {
        shown.push_str(&stage.run_with(&[(name, value)], &["serve"], "").shown());
        shown.push('\n');
    }
    freeze("wrong_settings.txt", &shown);
}

/// What a machine has is not the same everywhere; everything else that `doctor` looks at is.
const MACHINE: [&str; 6] = ["sealed memory", "kernel", "clock", "descriptors", "memory", "CPUs"];

#[test]
fn doctor_looks_at_what_it_did_and_says_it_in_the_same_shape() {
    let stage = Stage::new();
    let look = Look { kept: &["[].check"], loose: &[("[].fix", "string | missing")] };
    // All but what is said about the machine, and how many things were well.
    let digit = |character: char| character.is_ascii_digit();
    let mine = |arguments: &[&str]| {
        let ran = stage.run(arguments).with(|table| {
            let mut rows = String::new();
            let mut of_machine = false;
            for line in table.lines().filter(|line| !line.contains(" to look at, ")) {
                // What is indented belongs to the row above.
                if !line.starts_with(' ') {
                    let check = line.get(6..).unwrap_or_default();
                    of_machine = MACHINE.iter().any(|name| check.starts_with(&format!("{name:13}  ")));
                }
                if !of_machine {
                    rows.push_str(&format!("{line}\n"));
                }
            }
            mask(&rows, " answers, in ", digit, "TIME")
        });
        ran.shown()
    };
    let mut shown = mine(&["doctor"]);
    shown.push_str(&mine(&["doctor", "--provider", "delphi"]));
    shown.push_str(&mine(&["doctor", "--set", "servr.workers=1"]));
    let json = stage.run(&["doctor", "--json"]);
    shown.push_str(&format!("{}--- shape\n{}\n", json.ended(), shape(&json.json(), look)));
    let server = stage.serve(&[]);
    shown.push_str("# beside a server\n");
    shown.push_str(&mine(&["doctor"]));
    let json = stage.run(&["doctor", "--json", "--providers"]);
    shown.push_str(&format!("\n{}--- shape\n{}", json.ended(), shape(&json.json(), look)));
    drop(server);
    freeze("doctor.txt", &shown);
}
