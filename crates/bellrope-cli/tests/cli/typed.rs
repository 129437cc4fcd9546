//! `bellrope call` and `bellrope list --schema` with typed servers of both codecs.

use bellrope::{
    HandlerError, Server,
    server::ServerBuilder,
    service::{Bytes, Incoming, Stream, produce},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    support::Home,
    twins::{Number, Text},
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    key: String,
    size: Option<u64>,
    data: Bytes<'static>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Refused {
    Missing,
    Taken { by: String },
}

macro_rules! store {
    ($module:ident, $codec:literal, $name:literal) => {
        mod $module {
            use super::*;

            #[bellrope::service(codec = $codec, name = $name)]
            trait Store {
                fn get(&self, key: &str, limit: Option<f64>) -> Result<Entry, Refused>;
                fn count(&self) -> u64;
                fn broken(&self) -> Result<u8, HandlerError>;
                fn all(&self, from: u8) -> impl Stream<Item = Result<u8, Refused>>;
                async fn put(&self, owner: String, entries: Incoming<Entry>) -> Result<usize, Refused>;
                fn echo(&self, entries: Incoming<Entry>) -> impl Stream<Item = Entry>;
            }

            pub(super) struct Shelf;

            #[bellrope::service]
            impl Store for Shelf {
                fn get(&self, key: &str, limit: Option<f64>) -> Result<Entry, Refused> {
                    match key {
                        "" => Err(Refused::Missing),
                        "taken" => Err(Refused::Taken { by: "h\u{e4}nd".to_owned() }),
                        key => Ok(Entry {
                            key: key.to_owned(),
                            size: limit.map(|limit| limit as u64),
                            data: vec![1, 255].into(),
                        }),
                    }
                }

                fn count(&self) -> u64 {
                    u64::MAX
                }

                fn broken(&self) -> Result<u8, HandlerError> {
                    Err(HandlerError::with_code(7, "no shelf"))
                }

                fn all(&self, from: u8) -> impl Stream<Item = Result<u8, Refused>> {
                    produce(async move |all| {
                        all.send(Ok(from)).await;
                        all.send(Err(Refused::Missing)).await;
                        all.send(Ok(from + 1)).await;
                    })
                }

                async fn put(&self, owner: String, mut entries: Incoming<Entry>) -> Result<usize, Refused> {
                    let mut count = 0;
                    while let Some(entry) = entries.next().await {
                        count += entry.data.len();
                    }
                    if count == 0 { Err(Refused::Taken { by: owner }) } else { Ok(count) }
                }

                fn echo(&self, mut entries: Incoming<Entry>) -> impl Stream<Item = Entry> {
                    produce(async move |echo| {
                        while let Some(entry) = entries.next().await {
                            echo.send(entry).await;
                        }
                    })
                }
            }
        }
    };
}

store!(postcard, "postcard", "Store");
store!(json, "json", "Names");

/// A server with a service of each codec, and a type of bytes.
pub(crate) fn both_codecs() -> ServerBuilder {
    let builder = Server::builder().unary("raw", |_, reply| {
        reply.put(b"\xFF");
        Ok(())
    });
    builder.service(postcard::Shelf).service(json::Shelf)
}

fn served() -> (Home, Server) {
    let home = Home::new();
    let server = both_codecs().bind(home.socket()).unwrap();
    (home, server)
}

/// What is said on both outputs does not depend on the codec.
#[test]
fn a_method_takes_json_and_answers_with_it_whatever_its_codec() {
    let (home, _server) = served();
    for service in ["Store", "Names"] {
        let call = |method: &str, json: &str| home.run(["call", &format!("{service}.{method}"), json]);
        let got = call("get", r#"{"limit": 3.5, "key": "a \"b\""}"#).succeeded();
        assert_eq!(got, "{\"key\":\"a \\\"b\\\"\",\"size\":3,\"data\":\"Af8=\"}\n");
        assert_eq!(call("get", r#"{"key":"x"}"#).succeeded(), "{\"key\":\"x\",\"size\":null,\"data\":\"Af8=\"}\n");
        assert_eq!(home.run(["call", &format!("{service}.count")]).succeeded(), "18446744073709551615\n");
        let piped = home.run_with(b"{\"key\":\n\"p\"}\n".to_vec(), ["call", &format!("{service}.get"), "-"]);
        assert!(piped.succeeded().starts_with("{\"key\":\"p\""));
    }
}

#[test]
fn an_applications_error_is_told_apart_by_exit_code_and_in_json() {
    let (home, _server) = served();
    for service in ["Store", "Names"] {
        let get = format!("{service}.get");
        let error = home.run(["call", &get, r#"{"key":""}"#]).failed(3);
        assert_eq!(error, format!("error: {get} has answered with its own error: \"Missing\"\n"));
        let finished = home.run(["call", "--json", &get, r#"{"key":"taken"}"#]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(3), ""));
        assert_eq!(finished.stdout, "{\"error\":{\"Taken\":{\"by\":\"h\u{e4}nd\"}}}\n");
        assert_eq!(
            home.run(["call", "--json", &format!("{service}.count")]).succeeded(),
            "{\"ok\":18446744073709551615}\n"
        );

        let broken = format!("{service}.broken");
        let error = home.run(["call", &broken]).failed(1);
        assert_eq!(error, "error: handler_error: no shelf\n");
        let finished = home.run(["call", "--json", &broken]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), ""));
        let said: Value = serde_json::from_str(&finished.stdout).unwrap();
        let failure = json!({ "message": "handler_error: no shelf", "blame": "handler", "retryable": false });
        assert_eq!(said, json!({ "failure": failure }));
    }
}

#[test]
fn machines_are_told_the_same_whoever_refuses_the_arguments() {
    let (home, _server) = served();
    for (service, arguments) in [("Store", r#"{"key":7}"#), ("Names", r#"{"key":7}"#), ("Store", "{"), ("Names", "{")] {
        let finished = home.run(["call", "--json", &format!("{service}.get"), arguments]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), ""), "{service} {arguments}");
        let said: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(
            (&said["failure"]["blame"], &said["failure"]["retryable"]),
            (&json!("caller"), &json!(false)),
            "{said}"
        );
    }
    let error = home.run(["call", "--json", "Store.gett"]).failed(1);
    assert!(error.contains("no message type \"Store.gett\"; nearest known: Store.get"), "{error}");
}

#[test]
fn streams_are_lines_of_json_both_ways() {
    let (home, _server) = served();
    for service in ["Store", "Names"] {
        let all = format!("{service}.all");
        let finished = home.run(["call", &all, r#"{"from":4}"#]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), "4\n5\n"), "{}", finished.stderr);
        assert!(finished.stderr.ends_with("its own error: \"Missing\"\n"), "{}", finished.stderr);
        let finished = home.run(["call", "--json", &all, r#"{"from":4}"#]);
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(3), "{\"ok\":4}\n{\"error\":\"Missing\"}\n{\"ok\":5}\n")
        );

        let entry = r#"{"key":"k","size":null,"data":"AAEC"}"#;
        let items = format!("{entry}\n\n{entry}\n");
        let put = format!("{service}.put");
        assert_eq!(home.run_with(items.clone().into(), ["call", &put, r#"{"owner":"me"}"#]).succeeded(), "6\n");
        let piped = format!("{{\"owner\":\"me\"}}\n{items}");
        assert_eq!(home.run_with(piped.into(), ["call", &put, "-"]).succeeded(), "6\n");
        let error = home.run_with(Vec::new(), ["call", &put, r#"{"owner":"me"}"#]).failed(3);
        assert!(error.ends_with("{\"Taken\":{\"by\":\"me\"}}\n"), "{error}");
        let echoed = home.run_with(items.into(), ["call", &format!("{service}.echo")]).succeeded();
        assert_eq!(echoed, format!("{entry}\n{entry}\n"));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_method_and_field_before_anything_is_sent() {
    let (home, _server) = served();
    let error = home.run(["call", "Store.get", r#"{"limit":"much","key":"k"}"#]).failed(1);
    assert!(
        error.starts_with("error: Store.get: the arguments cannot be sent: limit: invalid value: string \"much\""),
        "{error}"
    );
    assert!(error.contains("`bellrope list --schema` shows their types"), "{error}");
    let error = home.run(["call", "Names.get", r#"{"limit":"much","key":"k"}"#]).failed(1);
    assert!(error.contains("Names.get: the arguments cannot be read: limit: invalid type"), "{error}");
    let items = b"{\"key\":\"k\",\"size\":1,\"data\":\"\"}\n\n{\"key\":7}\n".to_vec();
    for (method, arguments) in [("Store.put", r#"{"owner":"me"}"#), ("Store.echo", "{}")] {
        // Of a method that answers item by item, what came before it may be answered already.
        let finished = home.run_with(items.clone(), ["call", method, arguments]);
        let expected = format!("error: {method}: line 3 of standard input cannot be sent: key: ");
        assert!(finished.code == Some(1) && finished.stderr.starts_with(&expected), "{finished:?}");
    }
    // Of what is piped as a whole the arguments are the first line.
    let piped = b"{\"owner\":\"me\"}\n{\"key\":7}\n".to_vec();
    let error = home.run_with(piped, ["call", "Store.put", "-"]).failed(1);
    assert!(error.starts_with("error: Store.put: line 2 of standard input cannot be sent: key: "), "{error}");
    // An item that no chunk holds is an error, whoever takes it, and what was answered before it stands.
    let small = "{\"key\":\"k\",\"size\":null,\"data\":\"\"}";
    let large = format!("{{\"key\":\"{}\",\"size\":null,\"data\":\"\"}}", "k".repeat(300_000));
    for service in ["Store", "Names"] {
        for (method, arguments) in [("put", r#"{"owner":"me"}"#), ("echo", "{}")] {
            let items = format!("{small}\n{large}\n{small}\n");
            let finished = home.run_with(items.into(), ["call", &format!("{service}.{method}"), arguments]);
            assert_eq!(finished.code, Some(1), "{finished:?}");
            assert!(finished.stderr.contains(" bytes exceeds the limit of 65536 bytes"), "{}", finished.stderr);
        }
    }
    let error = home.run(["call", "Store.put", "{}"]).failed(1);
    assert!(error.starts_with("error: Store.put: the arguments cannot be sent: missing field `owner`"), "{error}");
    let error = home.run(["call", "Store.get", "k"]).failed(1);
    let fix = "; it takes {\"key\": \u{2026}, \"limit\": \u{2026}}, and `bellrope list --schema` shows their types\n";
    assert!(error.ends_with(fix), "{error}");
    let error = home.run(["call", "--json", "raw"]).failed(1);
    assert_eq!(error, "error: raw has no schema, so what it answers is bytes; leave --json away\n");
    assert_eq!(home.run(["call", "Store.gett", "{}"]).failed(1).lines().count(), 1);
}

/// docs/services.md specifies what is printed, by an example that is this service.
#[test]
fn a_schema_is_printed_as_the_page_of_services_has_it() {
    const PAGE: &str = include_str!("../../../../docs/services.md");

    #[bellrope::service]
    trait Greeter {
        fn greet(&self, name: &str) -> Result<String, String>;
    }

    struct Host;

    #[bellrope::service]
    impl Greeter for Host {
        fn greet(&self, name: &str) -> Result<String, String> {
            Ok(name.to_owned())
        }
    }

    let home = Home::new();
    let _server = Server::builder().service(Host).bind(home.socket()).unwrap();
    let listed: Value = serde_json::from_str(&home.run(["list", "--schema"]).succeeded()).unwrap();
    let example = PAGE.split("### Schemas as JSON").nth(1).unwrap().split("```json\n").nth(1).unwrap();
    let example: Value = serde_json::from_str(example.split("```").next().unwrap()).unwrap();
    assert_eq!(listed["Greeter.greet"], example["Greeter.greet"], "{listed:#}");
    let schema = home.run(["call", "bellrope.schema", r#"{"method":"Greeter.greet"}"#]).succeeded();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut expected = example["Greeter.greet"].clone();
    expected.as_object_mut().unwrap().remove("style");
    assert_eq!(schema, expected);
}

#[test]
fn schemas_are_listed_with_their_style() {
    let (home, _server) = served();
    let listed: Value = serde_json::from_str(&home.run(["list", "--schema"]).succeeded()).unwrap();
    let names: Vec<_> = listed.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names.len(), 12, "{names:?}");
    assert_eq!(listed["Store.echo"]["style"], "duplex");
    assert_eq!(listed["Store.echo"]["codec"], "postcard");
    assert_eq!(listed["Names.all"]["style"], "server_stream");
}

type Twins = (Text, Number);

#[test]
fn json_is_never_sent_as_the_bytes_of_another_codec() {
    #[bellrope::service(codec = "postcard", name = "Hidden")]
    trait HiddenPostcard {
        fn first(&self, a: Twins, rest: Vec<u8>) -> usize;
        async fn sum(&self, items: Incoming<Twins>) -> u8;
    }
    #[bellrope::service(name = "Shown")]
    trait HiddenJson {
        fn first(&self, a: Twins) -> bool;
    }
    struct Host;
    #[bellrope::service]
    impl HiddenPostcard for Host {
        fn first(&self, _a: Twins, rest: Vec<u8>) -> usize {
            rest.len()
        }

        async fn sum(&self, mut items: Incoming<Twins>) -> u8 {
            items.next().await.map_or(0, |_| 1)
        }
    }
    struct Shown;
    #[bellrope::service]
    impl HiddenJson for Shown {
        fn first(&self, _a: Twins) -> bool {
            true
        }
    }

    let home = Home::new();
    let _server = Server::builder().service(Host).service(Shown).bind(home.socket()).unwrap();
    let json = r#"{"a":["z",1],"rest":[]}"#;
    for method in ["Hidden.first", "Hidden.sum"] {
        let refused = home.run(["call", method, json]).failed(1);
        let words =
            format!("{method} travels as postcard and the server has no schema of it, so that JSON cannot be sent");
        assert!(refused.contains(&words) && refused.contains("--bytes"), "{refused}");
    }
    assert_eq!(home.run(["call", "--bytes", "Hidden.first", "\u{1}z\u{1}\u{2}xy"]).succeeded(), "\u{2}");
    let shown = r#"{"a":["z",1]}"#;
    assert_eq!(home.run(["call", "Shown.first", shown]).succeeded(), "true");
    assert_eq!(home.run(["call", "--bytes", "Shown.first", shown]).succeeded(), "true");
}

#[test]
fn an_error_from_a_server_steers_no_terminal() {
    let home = Home::new();
    let builder = Server::builder().unary("raw", |_, _| Err(HandlerError::new("\u{1b}[31mred\r\u{9b}2J\nnext")));
    let _server = builder.bind(home.socket()).unwrap();
    let words = home.run(["call", "raw"]).failed(1);
    assert!(words.contains("\\u{1b}[31mred\\r\\u{9b}2J\nnext"), "{words:?}");
    assert!(!words.contains(|c: char| c.is_control() && c != '\n'), "{words:?}");
}
