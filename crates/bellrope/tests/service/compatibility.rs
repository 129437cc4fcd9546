//! What happens when one side has another version of a service: docs/services.md has the table, and each row is here.

use std::{convert::Infallible, io::Read as _, io::Write as _, os::unix::net::UnixStream};

use bellrope::{
    CallError, Server,
    client::{CallOptions, Retry},
    service::ServiceError,
};
use bellrope_proto::handshake::{ANSWER_HEAD_LEN, AnswerHead, Hello};
use bellrope_testkit::support::PATIENCE;

macro_rules! row_types {
    () => {
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) enum Thing {
            Many(Vec<Thing>),
            One(Box<Inner>),
            Deep(Level),
            None,
        }
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) struct Inner {
            pub up: Option<Box<Thing>>,
            pub page: Page<u8>,
            pub other: Page<String>,
        }
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) struct Page<T> {
            pub of: T,
        }
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) enum Level {
            First(Second),
            Last,
        }
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) enum Second {
            X,
            Y(std::collections::BTreeMap<u64, Level>),
            Z { inner: std::net::IpAddr, time: std::time::Duration },
        }
    };
}
/// Runs a server with one version of a type and calls it with another: with either codec.
macro_rules! row {
    ($test:ident, there { $($there:tt)* } here { $($here:tt)* } sends $sample:expr, $check:expr) => {
        #[test]
        fn $test() {
            row!(@side json_there "json" { $($there)* row!(@host); });
            row!(@side json_here "json" { $($here)* });
            row!(@side postcard_there "postcard" { $($there)* row!(@host); });
            row!(@side postcard_here "postcard" { $($here)* });
            let home = tempfile::tempdir().unwrap();
            let json = {
                use json_here::*;
                let path = home.path().join("json").join("things.sock");
                let _server = Server::builder().service(json_there::Host).bind(&path).unwrap();
                let things = ThingsBlockingClient::connect(&path).unwrap();
                things.give($sample).map(|thing| format!("{thing:?}"))
            };
            let postcard = {
                use postcard_here::*;
                let path = home.path().join("postcard").join("things.sock");
                let _server = Server::builder().service(postcard_there::Host).bind(&path).unwrap();
                let things = ThingsBlockingClient::connect(&path).unwrap();
                let first = things.give($sample).map(|thing| format!("{thing:?}"));
                // The second call is told the same.
                let second = things.give($sample).map(|thing| format!("{thing:?}"));
                assert_eq!(first.as_ref().map_err(ToString::to_string), second.as_ref().map_err(ToString::to_string));
                first
            };
            let check: fn(Outcome, Outcome) = $check;
            check(json, postcard);
        }
    };
    (@side $module:ident $codec:literal { $($types:tt)* }) => {
        mod $module {
            use serde::{Deserialize, Serialize};

            $($types)*

            #[bellrope::service(codec = $codec)]
            pub(super) trait Things {
                fn give(&self, thing: Thing) -> Thing;
            }
        }
    };
    (@host) => {
        pub(super) struct Host;

        #[bellrope::service]
        impl Things for Host {
            fn give(&self, thing: Thing) -> Thing {
                thing
            }
        }
    };
}

/// One new variant among others: it is named with its place, or is what the reader has for variants that it does not know, and
/// the others are read.
#[test]
fn a_new_variant_inside_of_a_list_is_unknown_or_named() {
    macro_rules! marks {
        ($module:ident, $codec:literal, { $($kinds:tt)* } $($host:item)*) => {
            mod $module {
                use serde::{Deserialize, Serialize};

                #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
                pub(super) enum Kind { Plain, $($kinds)* }

                #[bellrope::service(codec = $codec)]
                pub(super) trait Marks {
                    fn all(&self) -> Vec<Kind>;
                }

                $($host)*
            }
        };
        (served $module:ident, $codec:literal, { $($kinds:tt)* }) => {
            marks!($module, $codec, { $($kinds)* }
                pub(super) struct Host;
                #[bellrope::service]
                impl Marks for Host {
                    fn all(&self) -> Vec<Kind> {
                        vec![Kind::Plain, Kind::Bold, Kind::Plain]
                    }
                }
            );
        };
    }
    marks!(served new, "json", { Bold });
    marks!(strict, "json", {});
    marks!(lenient, "json", {
        #[serde(other)]
        Unknown
    });
    marks!(served new_by_number, "postcard", { Bold });
    marks!(strict_by_number, "postcard", {});

    let home = tempfile::tempdir().unwrap();
    let [path, by_number] = ["json", "postcard"].map(|codec| home.path().join(codec).join("marks.sock"));
    let _server = Server::builder().service(new::Host).bind(&path).unwrap();
    let lenient = lenient::MarksBlockingClient::connect(&path).unwrap();
    assert_eq!(lenient.all().unwrap(), [lenient::Kind::Plain, lenient::Kind::Unknown, lenient::Kind::Plain]);
    let error = strict::MarksBlockingClient::connect(&path).unwrap().all().unwrap_err().to_string();
    assert!(error.starts_with("what Marks.all answered cannot be read: [1]: unknown variant `Bold`"), "{error}");

    let _by_number = Server::builder().service(new_by_number::Host).bind(&by_number).unwrap();
    let error = strict_by_number::MarksBlockingClient::connect(&by_number).unwrap().all().unwrap_err();
    let Some(CallError::Incompatible { differences, .. }) = error.call_error() else { panic!("{error}") };
    assert!(differences.contains("answer[].Bold is only there"), "{differences}");
}

type Outcome = Result<String, ServiceError<Infallible>>;

/// That nothing was sent, because of these differences.
#[track_caller]
fn refused(outcome: Outcome, differences: &[&str]) {
    let error = outcome.unwrap_err();
    let Some(CallError::Incompatible { method: "Things.give", differences: said }) = error.call_error() else {
        panic!("{error}");
    };
    assert!(differences.iter().all(|words| said.contains(words)), "{said}");
}

row!(
    a_field_is_added,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, #[serde(default)] pub b: u8 } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8 } }
    sends Thing { a: 1 },
    |json, postcard| {
        assert_eq!(json.unwrap(), "Thing { a: 1 }");
        refused(postcard, &["the field arguments.thing.b is only there"]);
    }
);

row!(
    a_field_is_removed,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8 } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub b: u8 } }
    sends Thing { a: 1, b: 2 },
    |json, postcard| {
        let error = json.unwrap_err().to_string();
        assert!(error.starts_with("what Things.give answered cannot be read: missing field `b`"), "{error}");
        refused(postcard, &["the field arguments.thing.b is only here"]);
    }
);

row!(
    a_field_is_renamed,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub new: u8 } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub b: u8 } }
    sends Thing { a: 1, b: 2 },
    |json, postcard| {
        let error = json.unwrap_err().to_string();
        assert!(error.contains("Things.give: the arguments cannot be read: thing: missing field `new`"), "{error}");
        refused(postcard, &["arguments.thing.b is only here", "arguments.thing.new is only there"]);
    }
);

row!(
    a_field_is_retyped,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub b: String } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub b: u32 } }
    sends Thing { a: 1, b: 2 },
    |json, postcard| {
        let error = json.unwrap_err().to_string();
        assert!(error.contains("Things.give: the arguments cannot be read: thing.b: invalid type"), "{error}");
        refused(postcard, &["arguments.thing.b is u32 here and text there"]);
    }
);

row!(
    a_field_is_made_optional,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub b: Option<u32> } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub b: u32 } }
    sends Thing { a: 1, b: 2 },
    |json, postcard| {
        assert_eq!(json.unwrap(), "Thing { a: 1, b: 2 }");
        refused(postcard, &["arguments.thing.b is u32 here and an optional u32 there"]);
    }
);

row!(
    two_fields_of_one_type_are_swapped,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub from: u8, pub to: u8 } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub to: u8, pub from: u8 } }
    sends Thing { to: 1, from: 2 },
    |json, postcard| {
        assert_eq!(json.unwrap(), "Thing { to: 1, from: 2 }");
        refused(postcard, &["arguments.thing has its fields in another order: to, from here, from, to there"]);
    }
);

row!(
    a_comment_is_edited_and_a_type_called_otherwise,
    there {
        /// What it is called in the sources.
        #[derive(Debug, Serialize, Deserialize)] pub(super) struct Other { pub a: u8, #[serde(rename = "b")] pub beta: Vec<Option<Other>> }
        pub(super) type Thing = Other;
    }
    here {
        /// Something else is said here.
        #[derive(Debug, Serialize, Deserialize)] pub(super) struct Thing { pub a: u8, pub b: Vec<Option<Thing>> }
    }
    sends Thing { a: 1, b: vec![None] },
    |json, postcard| {
        // Some(None) is none of these: a list may hold null.
        assert_eq!(json.unwrap(), "Thing { a: 1, b: [None] }");
        assert_eq!(postcard.unwrap(), "Thing { a: 1, b: [None] }");
    }
);

row!(
    a_variant_is_added,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) enum Thing { A, B { x: u8 }, C(Vec<Thing>) } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) enum Thing { A, B { x: u8 } } }
    sends Thing::B { x: 1 },
    |json, postcard| {
        assert_eq!(json.unwrap(), "B { x: 1 }");
        refused(postcard, &["the variant arguments.thing.C is only there"]);
    }
);

row!(
    a_variant_is_sent_that_is_not_there,
    there { #[derive(Debug, Serialize, Deserialize)] pub(super) enum Thing { A } }
    here { #[derive(Debug, Serialize, Deserialize)] pub(super) enum Thing { A, New(Box<Thing>) } }
    sends Thing::New(Box::new(Thing::A)),
    |json, postcard| {
        let error = json.unwrap_err().to_string();
        assert!(error.contains("thing: unknown variant `New`, expected `A`") || error.contains("thing.New"), "{error}");
        refused(postcard, &["the variant arguments.thing.New is only here"]);
    }
);

row!(
    nothing_differs_in_types_that_hold_themselves_and_each_other,
    there { row_types!(); }
    here { row_types!(); }
    sends Thing::Many(vec![Thing::One(Box::new(Inner { up: None, page: Page { of: 1_u8 }, other: Page { of: "x".to_owned() } }))]),
    |json, postcard| {
        let both = [json, postcard].map(Result::unwrap);
        assert!(both[0].starts_with("Many([One(Inner { up: None, page: Page { of: 1 }"), "{}", both[0]);
        assert_eq!(both[0], both[1]);
    }
);

#[bellrope::service(codec = "postcard", name = "Shared")]
trait First {
    fn same(&self, text: String) -> u64;
    fn gone(&self) -> u8;
}

#[bellrope::service(codec = "postcard", name = "Shared")]
trait Second {
    fn fresh(&self) -> u8;
    fn same(&self, text: String) -> u64;
}

#[bellrope::service(codec = "postcard", name = "Shared")]
trait Third {
    fn same(&self, text: u64) -> String;
}

#[bellrope::service(name = "Shared")]
trait InJson {
    fn same(&self, text: String) -> u64;
}

struct Host;

#[bellrope::service]
impl First for Host {
    fn same(&self, text: String) -> u64 {
        text.len() as u64
    }
    fn gone(&self) -> u8 {
        1
    }
}

struct Newer;

#[bellrope::service]
impl Second for Newer {
    fn fresh(&self) -> u8 {
        2
    }
    fn same(&self, text: String) -> u64 {
        2 * text.len() as u64
    }
}

struct Swapped;

#[bellrope::service]
impl Third for Swapped {
    fn same(&self, text: u64) -> String {
        text.to_string()
    }
}

/// A method more or less leaves the others alone, and a client that lives on looks anew at each server that comes.
#[test]
fn methods_come_and_go_and_each_server_is_looked_at() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("shared.sock");
    let serve = |builder: bellrope::server::ServerBuilder| builder.bind(&path).unwrap();
    let server = serve(Server::builder().service(Host));
    let old = FirstBlockingClient::connect(&path).unwrap();
    let new = SecondBlockingClient::connect(&path).unwrap();
    assert_eq!((old.same("four".to_owned()).unwrap(), old.gone().unwrap()), (4, 1));
    assert_eq!(new.same("four".to_owned()).unwrap(), 4);
    assert!(matches!(new.fresh().unwrap_err().call_error(), Some(CallError::UnknownMessageType { .. })));

    let in_json = InJsonBlockingClient::connect(&path).unwrap();
    let error = in_json.same(String::new()).unwrap_err().to_string();
    assert!(error.ends_with("its codec is json here and postcard there"), "{error}");

    // Each call may be made again: the server that is lost may have taken it.
    let again = CallOptions::new().timeout(PATIENCE).retry(Retry::Idempotent);
    let four = || "four".to_owned();
    drop(server);
    let server = serve(Server::builder().service(Newer));
    assert_eq!(
        (old.same_with(four(), &again).unwrap(), new.fresh_with(&again).unwrap()),
        (8, 2),
        "found under their names"
    );
    assert!(matches!(old.gone_with(&again).unwrap_err().call_error(), Some(CallError::UnknownMessageType { .. })));

    drop(server);
    let server = serve(Server::builder().service(Swapped));
    let error = old.same_with(four(), &again).unwrap_err();
    let Some(CallError::Incompatible { differences, .. }) = error.call_error() else { panic!("{error}") };
    assert!(differences.contains("arguments.text is text here and u64 there"), "{differences}");
    assert!(differences.contains("answer is u64 here and text there"), "{differences}");

    drop(server);
    let _server = serve(Server::builder().service(Host));
    assert_eq!(old.same_with(four(), &again).unwrap(), 4, "the first one is back");
}

/// A client of 1.0 asks for no features, and gets the table that it knows; a server without marks is called as ever.
#[test]
fn clients_and_servers_that_know_no_schemas_go_on_working() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("shared.sock");
    let _server = Server::builder().service(Host).bind(&path).unwrap();
    let mut hello = Hello { name: "old".to_owned(), ..Hello::default() }.encode();
    (hello[8], hello[10]) = (1, 0);
    let names = |features: u64| {
        hello[16..24].copy_from_slice(&features.to_le_bytes());
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.write_all(&hello).unwrap();
        let mut head = [0; ANSWER_HEAD_LEN];
        socket.read_exact(&mut head).unwrap();
        let granted = u64::from_le_bytes(head[16..24].try_into().unwrap());
        let head = AnswerHead::decode(&head).unwrap();
        let mut body = vec![0; head.body_len()];
        socket.read_exact(&mut body).unwrap();
        let types = head.with_body(&body).unwrap().types;
        let marked = types.iter().filter(|entry| entry.schema.codec == 2 && entry.schema.hash != 0).count();
        (granted, types.len(), body.len(), marked)
    };
    let mut names = names;
    let (plain, marked, unknown) = (names(0), names(1), names(!0xFF));
    assert_eq!((plain.0, plain.3), (0, 0));
    assert_eq!((marked.0, marked.1, marked.2, marked.3), (1, plain.1, plain.2 + 9 * plain.1, 2));
    assert_eq!(unknown, plain, "features that nobody knows are ignored");

    let raw = home.path().join("raw").join("shared.sock");
    let _raw = Server::builder()
        .in_place("Shared.same", |call| {
            *call.message() = vec![9];
            Ok(())
        })
        .bind(&raw)
        .unwrap();
    let client = FirstBlockingClient::connect(&raw).unwrap();
    assert_eq!(client.same(String::new()).unwrap(), 9);
}

/// A server may say what it likes of its methods. What a client shows of that is bounded, and steers no terminal.
#[test]
fn what_a_server_says_of_its_types_is_shown_bounded_and_escaped() {
    use bellrope::service::{Codec as _, Form, Json, Schema, Shape, Type};

    #[bellrope::service(codec = "postcard")]
    trait Things {
        fn give(&self, thing: u8) -> u8;
    }
    let said = |names: Vec<String>| {
        let form = Form::Struct(names.into_iter().map(|name| (name, Shape::Bool)).collect());
        let types = vec![Type { name: "\u{1b}[31m".repeat(500), form }];
        let answer = Shape::Type(0);
        let schema = Schema { codec: "postcard".to_owned(), request: Shape::Type(0), answer, sent: Shape::Unit, types };
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private").join("things.sock");
        let builder = Server::builder().unary("Things.give", |_, _| Ok(())).schema("Things.give", schema);
        let _server = builder.bind(&path).unwrap();
        let error = ThingsBlockingClient::connect(&path).unwrap().give(1).unwrap_err();
        assert!(matches!(error.call_error(), Some(CallError::Incompatible { .. })), "{error}");
        error.to_string()
    };
    for names in [
        (0..20_000).map(|number| format!("field{number}")).collect::<Vec<_>>(),
        (0..200).map(|number| format!("{number}{}", "x".repeat(4000))).collect(),
        vec!["\u{1b}[31m\n\r\u{9b}31m".to_owned()],
    ] {
        let words = said(names);
        assert!(words.len() < 3000, "{} bytes", words.len());
        assert!(!words.contains(char::is_control), "{words:?}");
    }
    assert!(said(vec!["\u{1b}[31m".to_owned()]).contains("arguments.\\u{1b}[31m is only there"));

    #[derive(Debug, serde::Deserialize)]
    enum Known {
        One,
    }
    let error = Json::decode::<Known>(br#""\u001b[31m\nred""#).unwrap_err().to_string();
    assert!(error.starts_with("unknown variant `\\u{1b}[31m\\nred`"), "{error}");
    assert!(matches!(Json::decode::<Known>(br#""One""#).unwrap(), Known::One));
}
