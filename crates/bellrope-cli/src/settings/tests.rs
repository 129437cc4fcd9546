use std::{io::Write, os::unix::ffi::OsStringExt};

use super::*;

/// Settings from a file with this text, and from these variables.
fn resolve(text: &str, vars: &[(&str, &str)], mut args: SettingsArgs) -> Result<Settings, Faults> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    args.config = Some(file.path().to_owned());
    let vars: Vec<_> = vars.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Settings::resolve(&args, &vars)
}

fn error(text: &str) -> String {
    resolve(text, &[], SettingsArgs::default()).unwrap_err().to_string()
}

fn error_of(vars: &[(&str, &str)]) -> String {
    resolve("", vars, SettingsArgs::default()).unwrap_err().to_string()
}

const FILE: &str = r#"
    socket = "/file.sock"
    health = "127.0.0.1:1"
    openai_port = 1
    log = "warn"
    [server]
    max_connections = 7
    [gateway]
    provider = "file"
    [gateway.embedded]
    tokens_per_second = 9
"#;
const VARS: &[(&str, &str)] = &[
    ("BELLROPE_SOCKET", "/env.sock"),
    ("BELLROPE_HEALTH", "127.0.0.1:2"),
    ("BELLROPE_PROVIDER", "env"),
    ("BELLROPE_OPENAI_PORT", "2"),
    ("BELLROPE_LOG", "debug"),
    ("BELLROPE_SERVER__MAX_CONNECTIONS", "8"),
];

fn flags() -> SettingsArgs {
    SettingsArgs {
        server: SocketArg { socket: Some("/flag.sock".into()) },
        provider: Some("flag".into()),
        health: Some("127.0.0.1:3".into()),
        api_port: Some(3),
        max_connections: Some(9),
        log: Some("error".into()),
        log_format: Some(LogFormat::Pretty),
        set: vec![("server.workers".into(), "2".into()), ("gateway.fallback".into(), "a,b".into())],
        ..SettingsArgs::default()
    }
}

#[test]
fn what_is_absent_by_default_is_set_by_a_flag_and_by_a_variable_as_by_the_file() {
    let (max, tags) = ("gateway.openai.max_tokens", "gateway.providers.work.think_tags");
    let set = vec![(max.to_owned(), "5".to_owned()), (tags.to_owned(), "true".to_owned())];
    let work = "[gateway.providers.work]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\n";
    let by_flag = resolve(work, &[], SettingsArgs { set, ..SettingsArgs::default() }).unwrap();
    let vars =
        [("BELLROPE_GATEWAY__OPENAI__MAX_TOKENS", "5"), ("BELLROPE_GATEWAY__PROVIDERS__WORK__THINK_TAGS", "true")];
    let by_variable = resolve(work, &vars, SettingsArgs::default()).unwrap();
    for settings in [by_flag, by_variable] {
        assert_eq!(settings.gateway.openai.as_ref().unwrap().max_tokens, Some(5));
        assert_eq!(settings.gateway.providers["work"].think_tags, Some(true));
    }
    let wrong = resolve(work, &[("BELLROPE_GATEWAY__OPENAI__MAX_TOKENS", "many")], SettingsArgs::default());
    assert!(wrong.unwrap_err().to_string().contains("give a number"));
    // Every key that is absent takes a value of one kind in each of the ways.
    let schema = schema::Schema::new();
    let of_provider = serde_json::to_value(ProviderConfig::default()).unwrap();
    let absent = |section: &str, values: &Value| {
        let mut keys = Vec::new();
        let mut key = section.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        flatten(values, &mut key, &mut |key, value| {
            if value.is_null() {
                keys.push(key.to_vec());
            }
        });
        keys
    };
    let mut keys = absent("", &serde_json::to_value(Document::default()).unwrap());
    keys.extend(absent("gateway.providers.work", &of_provider));
    assert!(keys.len() > 15, "{keys:?}");
    for key in keys {
        let value = match schema.look_up(&key) {
            schema::Known::Leaf(schema::Kind::Number { .. }) => "1",
            schema::Known::Leaf(schema::Kind::Switch) => "true",
            schema::Known::Leaf(schema::Kind::Text) => "x",
            schema::Known::Section => continue,
            known => panic!("{key:?} is {known:?}"),
        };
        let variable = format!("BELLROPE_{}", key.join("__").to_ascii_uppercase());
        let set = vec![(key.join("."), value.to_owned())];
        for settings in [
            resolve("", &[(&variable, value)], SettingsArgs::default()),
            resolve("", &[], SettingsArgs { set, ..SettingsArgs::default() }),
        ] {
            let words = settings.err().map(|faults| faults.to_string()).unwrap_or_default();
            assert!(!words.contains("invalid type") && !words.contains("unknown key"), "{variable}: {words}");
        }
    }
}

#[test]
fn flags_come_before_the_environment_before_the_file_before_the_defaults() {
    let none = SettingsArgs::default;
    let seen = [
        (resolve("", &[], none()), default_socket_path(), None, "embedded", 2_000, "info"),
        (resolve(FILE, &[], none()), "/file.sock".into(), Some(1), "file", 7, "warn"),
        (resolve(FILE, VARS, none()), "/env.sock".into(), Some(2), "env", 8, "debug"),
        (resolve(FILE, VARS, flags()), "/flag.sock".into(), Some(3), "flag", 9, "error"),
    ];
    for (settings, socket, port, provider, connections, log) in seen {
        let settings = settings.unwrap();
        assert_eq!(settings.socket, socket);
        assert_eq!(settings.health.map(|address| address.port()), port);
        assert_eq!(settings.api_port, port);
        assert_eq!(settings.gateway.provider, provider);
        assert_eq!(settings.server.max_connections, connections);
        assert_eq!(settings.log, log);
    }
}

#[test]
fn every_value_knows_where_it_came_from() {
    let settings = resolve(FILE, &VARS[3..], flags()).unwrap();
    let entries = settings.entries();
    let entry = |key: &str| entries.iter().find(|entry| entry.key == key).unwrap_or_else(|| panic!("no {key}"));
    let origin = |key: &str| entry(key).origin.to_string();
    assert_eq!(origin("api_port"), "--api-port");
    assert_eq!((origin("log_format"), &entry("log_format").value), ("--log-format".to_owned(), &"pretty".into()));
    assert_eq!(origin("server.workers"), "--set");
    assert_eq!(origin("server.breaker.timeout_ms"), "default");
    assert!(origin("gateway.embedded.tokens_per_second").ends_with(":11:5"));
    assert_eq!(entry("gateway.fallback").value, serde_json::json!(["a", "b"]));
    assert_eq!(entry("server.max_connections").value, 9);
    let settings = resolve(FILE, VARS, SettingsArgs::default()).unwrap();
    let entries = settings.entries();
    let origin = |key: &str| entries.iter().find(|entry| entry.key == key).unwrap().origin.to_string();
    assert_eq!(origin("server.max_connections"), "BELLROPE_SERVER__MAX_CONNECTIONS");
    assert_eq!(origin("gateway.provider"), "BELLROPE_PROVIDER");
}

#[test]
fn the_api_port_has_an_earlier_name_everywhere() {
    let port = |text: &str, vars: &[(&str, &str)], set: &[(&str, &str)]| {
        let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        resolve(text, vars, SettingsArgs { set, ..SettingsArgs::default() }).unwrap().api_port
    };
    assert_eq!(port("openai_port = 1", &[], &[]), Some(1));
    assert_eq!(port("api_port = 1", &[("BELLROPE_OPENAI_PORT", "2")], &[]), Some(2));
    let both = [("BELLROPE_API_PORT", "3"), ("BELLROPE_OPENAI_PORT", "2")];
    assert_eq!(port("", &both, &[]), Some(3), "the name of today counts");
    assert_eq!(port("", &both, &[("openai_port", "4")]), Some(4));
    let fault = error("openai_port = 1\napi_port = 2");
    assert!(fault.contains(":1:1: openai_port is another name of api_port"), "{fault}");
    let fault = error("openai_port = \"x\"");
    assert!(fault.contains(":1:1: api_port"), "{fault}");
}

#[test]
fn every_key_can_be_set_by_the_environment() {
    let vars = [
        ("BELLROPE_SERVER__BREAKER__TIMEOUT_MS", "5"),
        ("BELLROPE_SERVER__SPIN", "never"),
        ("BELLROPE_GATEWAY__PROVIDERS__WORK__MODEL", "7"),
        ("BELLROPE_GATEWAY__PROVIDERS__WORK__KIND", "anthropic"),
        ("BELLROPE_GATEWAY__EMBEDDED__TOKENS", "3"),
        ("BELLROPE_GATEWAY__EMBEDDED__SCRIPT", r#"[{ kind = "text", text = "x" }]"#),
        ("BELLROPE_LOG_FORMAT", "json"),
        ("RUST_LOG", "trace"),
        ("BELLROPE_HEALTH", " "),
    ];
    let settings = resolve("[gateway.providers.work]\nmax_retries = 1", &vars, SettingsArgs::default()).unwrap();
    assert_eq!(settings.server.breaker.timeout, Duration::from_millis(5));
    assert_eq!(settings.gateway.providers["work"].model.as_deref(), Some("7"));
    assert_eq!(settings.gateway.providers["work"].max_retries, 1);
    assert_eq!(settings.gateway.embedded.tokens, Some(3));
    assert_eq!(settings.gateway.embedded.script.len(), 1);
    assert_eq!((settings.log_format, &*settings.log), (LogFormat::Json, "trace"));
}

#[test]
fn unknown_keys_are_refused_all_at_once_with_their_place_and_what_was_meant() {
    let text = error("privider = \"x\"\n[server]\nmax_conections = 3\n");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains(":1:1: unknown key `privider`; known: "), "{text}");
    assert!(lines[1].ends_with(":3:1: unknown key `server.max_conections`; did you mean `max_connections`?"));
    assert_eq!(
        error_of(&[("BELLROPE_SERVER__MAX_CONECTIONS", "1"), ("BELLROPE_HELTH", "x")]),
        "BELLROPE_SERVER__MAX_CONECTIONS: unknown key `server.max_conections`; did you mean `max_connections`?\n\
         BELLROPE_HELTH is no setting; did you mean BELLROPE_HEALTH?"
    );
    assert_eq!(
        error_of(&[("BELLROPE_SERVER_MAX_CONNECTIONS", "1")]),
        "BELLROPE_SERVER_MAX_CONNECTIONS is no setting; did you mean BELLROPE_SERVER__MAX_CONNECTIONS?"
    );
    let args = SettingsArgs { set: vec![("server.worker".into(), "1".into())], ..SettingsArgs::default() };
    let text = resolve("", &[], args).unwrap_err().to_string();
    assert_eq!(text, "--set: unknown key `server.worker`; did you mean `workers`?");
    // What Kubernetes sets for a service of this name is nobody's misspelling.
    let vars = [("BELLROPE_PORT", "tcp://10.0.0.1:9090"), ("BELLROPE_SERVICE_HOST", "10.0.0.1")];
    resolve("", &vars, SettingsArgs::default()).unwrap();
}

#[test]
fn a_key_of_a_provider_in_the_file_is_refused_and_not_shown() {
    for text in [
        error("[gateway.openai]\napi_key = \"sk-123456\"\n"),
        error_of(&[("BELLROPE_GATEWAY__OPENAI__API_KEY", "sk-123456")]),
        error("sk-123456"),
    ] {
        assert!(!text.contains("123456"), "{text}");
    }
    let text = error("[gateway.openai]\napi_key = \"sk-123456\"\n");
    assert!(text.contains(":2:1: gateway.openai.api_key: `api_key` must name an environment variable"), "{text}");
}

#[test]
fn settings_that_cannot_work_are_named_with_their_place_and_the_fix() {
    let text = error("health = \"nowhere\"");
    assert!(text.contains(":1:1: health is \"nowhere\"") && text.contains("as in 127.0.0.1:9090"), "{text}");
    let text = error_of(&[("BELLROPE_OPENAI_PORT", "http")]);
    assert_eq!(text, "BELLROPE_OPENAI_PORT is \"http\"; give a port, as in 8080");
    let text = error("[server]\nring_bytes = 4096\n");
    assert!(text.ends_with(":2:1: server.ring_bytes is 4096; the AI gateway needs at least 65536"), "{text}");
    let text = error("[server]\nmax_connections = \"many\"\n");
    assert!(text.contains(":2:1: server.max_connections: invalid type: string \"many\", expected u32"), "{text}");
    let text = error_of(&[("BELLROPE_SERVER__WORKERS", "all")]);
    assert_eq!(text, "BELLROPE_SERVER__WORKERS is \"all\"; give a number, as in 100");
    let text = error_of(&[("BELLROPE_SERVER__BREAKER__FAILURE_THRESHOLD", "0")]);
    assert_eq!(text, "BELLROPE_SERVER__BREAKER__FAILURE_THRESHOLD is 0, and must be at least 1");
    let args = SettingsArgs { set: vec![("server.ring_bytes".into(), "5000".into())], ..SettingsArgs::default() };
    let text = resolve("", &[], args).unwrap_err().to_string();
    assert_eq!(text, "--set server.ring_bytes is 5000, and must be a power of two from 4096 to 16777216");
    let text = error("[server]\nmax_in_flight = 0\n");
    assert!(text.ends_with(":2:1: server.max_in_flight is 0, and must be at least 1"), "{text}");
    let text = error_of(&[("RUST_LOG", "bellrope=loud")]);
    assert!(text.starts_with("RUST_LOG is \"bellrope=loud\"; set it to error, warn,"), "{text}");
    let args = SettingsArgs { config: Some("/nowhere/bell.toml".into()), ..SettingsArgs::default() };
    let text = Settings::resolve(&args, &[]).unwrap_err().to_string();
    assert!(text.starts_with("cannot read the configuration file /nowhere/bell.toml: No such file"), "{text}");
}

#[test]
fn a_default_that_does_not_go_with_what_was_set_is_named_by_its_key() {
    let text = error("[server.breaker]\ntimeout_ms = 4000000000\n");
    let longest = ServerConfig::default().breaker.max_timeout.as_millis();
    assert_eq!(text, format!("server.breaker.max_timeout_ms is {longest}, and must be at least timeout_ms"));
}

#[test]
fn a_section_where_a_value_stands_is_refused_whatever_source_has_it() {
    let vars = [("BELLROPE_SERVER__WORKERS", "1")];
    for vars in [&[][..], &vars] {
        let text = resolve("server = 3\n", vars, SettingsArgs::default()).unwrap_err().to_string();
        assert!(text.ends_with(":1:1: server is a section; give keys below [server]"), "{text}");
    }
    let text = error_of(&[("BELLROPE_SERVER", "3")]);
    assert_eq!(text, "BELLROPE_SERVER names a section; add __ and a key of it");
    let args = SettingsArgs { set: vec![("server.breaker".into(), "3".into())], ..SettingsArgs::default() };
    let text = resolve("", &[], args).unwrap_err().to_string();
    assert_eq!(text, "--set: server.breaker is a section; name a key of it");
    let text = error("\"a key\" = 1\n");
    assert!(text.contains(":1:1: unknown key `\"a key\"`; known: socket, "), "{text}");
}

#[test]
fn a_path_may_hold_any_bytes_and_everything_else_is_text() {
    let odd = OsString::from_vec(b"/run/\xff.sock".to_vec());
    let from = |name: &str| Settings::resolve(&SettingsArgs::default(), &[(name.into(), odd.clone())]);
    let settings = from("BELLROPE_SOCKET").unwrap();
    assert_eq!(settings.socket, PathBuf::from(&odd));
    let entries = settings.entries();
    let socket = entries.iter().find(|entry| entry.key == "socket").unwrap();
    assert_eq!((&socket.value, &*socket.origin.to_string()), (&"/run/\u{fffd}.sock".into(), "BELLROPE_SOCKET"));
    let text = from("BELLROPE_LOG").unwrap_err().to_string();
    assert_eq!(text, "BELLROPE_LOG is \"/run/\\xFF.sock\", which is no text");
}

#[test]
#[cfg(not(feature = "otlp"))]
fn a_collector_is_refused_by_a_program_that_cannot_send_spans() {
    let text = error("otlp_endpoint = \"http://127.0.0.1:4318\"\n");
    let expected = ":1:1: otlp_endpoint is \"http://127.0.0.1:4318\": this program cannot send spans; build it with \
                    `--features otlp`, or leave the setting out";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn what_providers_take_from_variables_of_their_own_is_known_and_no_key_is_shown() {
    let settings = resolve("[gateway.providers.anthropic]\nmodel = \"m\"", &[], SettingsArgs::default()).unwrap();
    let vars =
        [("OPENAI_BASE_URL", "http://127.0.0.1:1"), ("ANTHROPIC_API_KEY", "sk-123456"), ("ANTHROPIC_MODEL", "n")];
    let own = settings.providers_own(|name| {
        vars.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    });
    let rows: Vec<_> = own
        .iter()
        .map(|entry| format!("{} = {} from {}", entry.key, entry.value.as_str().unwrap(), entry.origin))
        .collect();
    assert_eq!(
        rows,
        [
            "gateway.providers.anthropic.api_key = (hidden) from ANTHROPIC_API_KEY",
            "gateway.providers.anthropic.model = n from ANTHROPIC_MODEL",
            "gateway.providers.openai.base_url = http://127.0.0.1:1 from OPENAI_BASE_URL",
        ]
    );
}

#[test]
fn a_provider_that_does_not_exist_is_named_with_what_chose_it() {
    let text = |text: &str, vars: &[(&str, &str)]| {
        resolve(text, vars, SettingsArgs::default()).unwrap().gateway().unwrap_err().to_string()
    };
    let told = text("", &[("BELLROPE_PROVIDER", "delphi")]);
    assert!(told.starts_with("BELLROPE_PROVIDER: ") && told.contains("`delphi`"), "{told}");
    let told = text("[gateway]\nprovider = \"delphi\"", &[]);
    assert!(told.contains(":2:1: gateway.provider is `delphi`, "), "{told}");
    let told = text("[gateway]\nfallback = [\"delphi\"]", &[]);
    assert!(told.contains(":2:1: gateway.fallback names `delphi`"), "{told}");
}

// Fault 48.
#[test]
fn a_file_that_never_ends_is_not_read_to_its_end() {
    let args = SettingsArgs { config: Some("/dev/zero".into()), ..SettingsArgs::default() };
    let error = Settings::resolve(&args, &[]).unwrap_err().to_string();
    assert!(error.contains("/dev/zero: it has more than 1048576 bytes"), "{error}");
}
