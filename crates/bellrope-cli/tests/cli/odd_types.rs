//! `bellrope call`, `list --schema` and `generate` on types that other tools stumble over, with a server of each codec. What is
//! printed does not depend on the codec, but where JSON cannot say the value.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use bellrope::{
    Server,
    service::{Bytes, Incoming, Stream, produce},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::Home;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Tone {
    Low,
    #[serde(rename = "so high")]
    High,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Metres(f32);

/// Calls itself, alone and through lists and maps.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Named(String),
    Inside(Box<Tree>),
    Both(u8, Nothing),
    Branch { left: Box<Tree>, more: Vec<Tree>, by_name: HashMap<String, Tree> },
    Empty {},
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Odd {
    by_number: BTreeMap<u64, i8>,
    by_signed: BTreeMap<i128, Tone>,
    by_flag: BTreeMap<bool, Option<u8>>,
    by_tone: BTreeMap<Tone, BTreeMap<u8, char>>,
    wide: (u64, i64, u128, i128),
    floats: (f32, f64),
    bytes: Bytes<'static>,
    list: Vec<u8>,
    trees: Vec<Tree>,
    nothing: ((), Nothing, Option<Metres>),
    #[serde(rename = "so called")]
    renamed: char,
    #[serde(skip)]
    _skipped: u8,
    #[serde(rename = "type")]
    kind: [u16; 3],
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Flat {
    id: u64,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rest {
    text: String,
    size: Option<u8>,
}

macro_rules! odds {
    ($module:ident, $codec:literal, $name:literal) => {
        mod $module {
            use super::*;

            #[bellrope::service(codec = $codec, name = $name)]
            trait Odds {
                fn same(&self, odd: Odd) -> Odd;
                fn borrowed(&self, text: &str, maybe: Cow<'_, str>, raw: &[u8]) -> (String, usize);
                fn kind_of(&self, float: f64) -> String;
                fn float(&self, kind: &str) -> f64;
                fn single(&self) -> f32;
                fn pairs(&self) -> BTreeMap<(u8, u8), bool>;
                fn twice(&self, value: Option<u8>) -> Option<Option<u8>>;
                fn trees(&self, trees: Incoming<Tree>) -> impl Stream<Item = Result<Tree, Metres>>;
            }

            pub(super) struct Host;

            #[bellrope::service]
            impl Odds for Host {
                fn same(&self, odd: Odd) -> Odd {
                    odd
                }

                fn borrowed(&self, text: &str, maybe: Cow<'_, str>, raw: &[u8]) -> (String, usize) {
                    (format!("{text}|{maybe}"), raw.len())
                }

                fn kind_of(&self, float: f64) -> String {
                    format!("{float} {:?}", float.classify())
                }

                fn float(&self, kind: &str) -> f64 {
                    kind.parse().unwrap_or(f64::NAN)
                }

                fn single(&self) -> f32 {
                    f32::NEG_INFINITY
                }

                fn pairs(&self) -> BTreeMap<(u8, u8), bool> {
                    [((1, 2), true)].into()
                }

                fn twice(&self, value: Option<u8>) -> Option<Option<u8>> {
                    Some(value)
                }

                fn trees(&self, mut trees: Incoming<Tree>) -> impl Stream<Item = Result<Tree, Metres>> {
                    produce(async move |back| {
                        while let Some(tree) = trees.next().await {
                            let answer = if matches!(tree, Tree::Leaf) { Err(Metres(-0.5)) } else { Ok(tree) };
                            back.send(answer).await;
                        }
                    })
                }
            }
        }
    };
}

odds!(json, "json", "Json");
odds!(postcard, "postcard", "Compact");

#[bellrope::service]
trait Flattened {
    fn same(&self, flat: Flat) -> Flat;
}

struct Host;

#[bellrope::service]
impl Flattened for Host {
    fn same(&self, flat: Flat) -> Flat {
        flat
    }
}

const SERVICES: [&str; 2] = ["Json", "Compact"];

fn served() -> (Home, Server) {
    let home = Home::new();
    let builder = Server::builder().service(json::Host).service(postcard::Host).service(Host);
    let server = builder.bind(home.socket()).unwrap();
    (home, server)
}

/// As serde_json writes it, in the order of the fields: what is printed is this very line.
const ODD: &str = concat!(
    r#"{"by_number":{"0":-1,"18446744073709551615":127},"#,
    r#""by_signed":{"-170141183460469231731687303715884105728":"so high","9007199254740993":"Low"},"#,
    r#""by_flag":{"false":null,"true":7},"by_tone":{"Low":{"1":"a"},"so high":{}},"#,
    r#""wide":[18446744073709551615,-9223372036854775808,340282366920938463463374607431768211455,"#,
    r#"-170141183460469231731687303715884105728],"floats":[0.1,1e+300],"bytes":"AP8H","list":[0,255],"#,
    r#""trees":["Leaf",{"Named":"\"ä\n🔔"},{"Inside":{"Inside":"Leaf"}},{"Both":[1,null]},"#,
    r#"{"Branch":{"left":{"Empty":{}},"more":[{"Named":""}],"by_name":{"x":"Leaf"}}},{"Empty":{}}],"#,
    r#""nothing":[null,null,-0.5],"so called":"語","type":[1,2,65535]}"#,
);

#[test]
fn odd_types_are_called_with_json_and_answered_the_same_whatever_the_codec() {
    let (home, _server) = served();
    for service in SERVICES {
        let call = |method: &str, json: &str| home.run(["call", &format!("{service}.{method}"), json]);
        let arguments = format!("{{\"odd\":{ODD}}}");
        assert_eq!(call("same", &arguments).succeeded(), format!("{ODD}\n"), "{service}");
        // A field that is skipped is none of the message's.
        let skipped = arguments.replace("\"type\":", "\"skipped\":1,\"type\":");
        let finished = call("same", &skipped);
        match service {
            "Json" => assert_eq!(finished.succeeded(), format!("{ODD}\n"), "unknown fields are left out of account"),
            _ => assert!(finished.failed(1).contains("odd.skipped: unknown field `skipped`")),
        }
        for (from, to, place) in [
            ("18446744073709551615,-9", "18446744073709551616,-9", "wide[0]"),
            ("-9223372036854775808,", "-9223372036854775809,", "wide[1]"),
            ("340282366920938463463374607431768211455", "340282366920938463463374607431768211456", "wide[2]"),
            ("\"Both\":[1,null]", "\"Both\":[1]", "trees[3].Both"),
            ("{\"Empty\":{}}],", "{\"Emty\":{}}],", "trees[5]"),
            ("\"true\":7", "\"maybe\":7", "by_flag"),
            ("\"AP8H\"", "\"AP8\"", "bytes"),
            ("\"語\"", "\"語語\"", "so called"),
            ("[1,2,65535]", "[1,2]", "type"),
        ] {
            let bad = arguments.replacen(from, to, 1);
            assert_ne!(bad, arguments, "{from}");
            let error = call("same", &bad).failed(1);
            assert!(error.contains(&format!("{service}.same: ")) && error.contains(place), "{place} is not in {error}");
        }

        let error = call("kind_of", "5").failed(1);
        assert!(error.contains("integer `5`, expected ") && !error.contains("__"), "{error}");

        let borrowed = call("borrowed", r#"{"text":"a\"b","maybe":"\u00e4","raw":"AAEC"}"#);
        assert_eq!(borrowed.succeeded(), "[\"a\\\"b|ä\",3]\n", "{service}");
        let trees = "{\"Named\":\"a\"}\n\"Leaf\"\n{\"Both\":[9,null]}\n";
        let finished = home.run_with(trees.into(), ["call", "--json", &format!("{service}.trees")]);
        let lines = "{\"ok\":{\"Named\":\"a\"}}\n{\"error\":-0.5}\n{\"ok\":{\"Both\":[9,null]}}\n";
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), lines), "{service}");
    }
    let flat = r#"{"id":9007199254740993,"text":"x","size":null}"#;
    let arguments = format!("{{\"flat\":{flat}}}");
    // A flattened type asks what comes next, so it may be anything: JSON goes as it is.
    assert_eq!(home.run(["call", "Flattened.same", &arguments]).succeeded(), format!("{flat}\n"));
    assert_eq!(home.run(["call", "--json", "Flattened.same", &arguments]).succeeded(), format!("{{\"ok\":{flat}}}\n"));
}

/// Postcard carries what JSON cannot say; on the command line it has a form of its own.
#[test]
fn what_json_cannot_say_is_a_text_of_postcard_and_an_error_of_json() {
    let (home, _server) = served();
    let compact = |method: &str, json: &str| home.run(["call", &format!("Compact.{method}"), json]).succeeded();
    for (said, kind) in [("\"NaN\"", "NaN Nan"), ("\"Infinity\"", "inf Infinite"), ("\"-Infinity\"", "-inf Infinite")] {
        assert_eq!(compact("kind_of", &format!("{{\"float\":{said}}}")), format!("{kind:?}\n"));
    }
    assert_eq!(compact("float", r#"{"kind":"nan"}"#), "\"NaN\"\n");
    assert_eq!(compact("float", r#"{"kind":"inf"}"#), "\"Infinity\"\n");
    assert_eq!(compact("float", r#"{"kind":"-0"}"#), "-0.0\n");
    assert_eq!(compact("single", "{}"), "\"-Infinity\"\n");
    assert_eq!(compact("pairs", "{}"), "[[[1,2],true]]\n");
    assert_eq!(compact("twice", r#"{"value":null}"#), "{\"Some\":null}\n");
    assert_eq!(compact("twice", r#"{"value":3}"#), "{\"Some\":3}\n");

    let error = |method: &str, json: &str| home.run(["call", &format!("Json.{method}"), json]).failed(1);
    for (method, json, words) in [
        (
            "kind_of",
            r#"{"float":"NaN"}"#,
            "invalid_request: Json.kind_of: the arguments cannot be read: float: invalid type",
        ),
        ("kind_of", r#"{"float":1e400}"#, "Json.kind_of: the arguments cannot be read: "),
        ("float", r#"{"kind":"nan"}"#, "handler_error: Json.float: the answer cannot be written: JSON has no NaN"),
        ("float", r#"{"kind":"inf"}"#, "handler_error: Json.float: the answer cannot be written: JSON has no"),
        ("single", "{}", "handler_error: Json.single: the answer cannot be written: JSON has no"),
        ("pairs", "{}", "handler_error: Json.pairs: the answer cannot be written: "),
        ("twice", r#"{"value":null}"#, "handler_error: Json.twice: the answer cannot be written: "),
    ] {
        let said = error(method, json);
        assert!(said.contains(words), "{said}\n{words}");
    }
    assert_eq!(home.run(["call", "Json.twice", r#"{"value":3}"#]).succeeded(), "3\n");
}

#[test]
fn odd_types_are_listed_and_generated_by_their_names_on_the_wire() {
    let (home, _server) = served();
    let listed: Value = serde_json::from_str(&home.run(["list", "--schema"]).succeeded()).unwrap();
    let types = |method: &str| {
        let mut schema = listed[method].clone();
        schema.as_object_mut().unwrap().remove("codec");
        schema.to_string()
    };
    assert_eq!(
        types("Json.same").replace("[\"bytes\",\"text\"]", "[\"bytes\",\"bytes\"]"),
        types("Compact.same"),
        "but for bytes, which are base64 in JSON, the codec makes no other types"
    );
    let odd = listed["Json.same"]["types"].as_array().unwrap().iter().find(|it| it["name"] == "Odd").unwrap();
    let fields: Vec<_> =
        odd["form"]["struct"].as_array().unwrap().iter().map(|field| field[0].as_str().unwrap()).collect();
    assert!(fields.contains(&"so called") && fields.contains(&"type"), "{fields:?}");
    assert!(!fields.contains(&"_skipped") && !fields.contains(&"renamed") && !fields.contains(&"kind"), "{fields:?}");

    let generated = |language: &str| home.run(["generate", language]).succeeded();
    let typescript = generated("ts");
    for words in [
        "  by_number: { [key: string]: number };",
        "  by_tone: ",
        "  wide: [Integer, Integer, Integer, Integer];",
        "  floats: [number, number];",
        "  bytes: string;",
        "  'so called': string;",
        "  type: [number, number, number];",
        "  | { Branch: { left: Tree; more: Tree[]; by_name: { [key: string]: Tree } } }",
        "class JsonClient",
    ] {
        assert!(typescript.contains(words), "{words}\n{typescript}");
    }
    assert!(!typescript.contains("CompactClient"), "clients in other languages have no postcard");
    assert!(typescript.contains("class FlattenedClient"), "{typescript}");
    assert_eq!(listed["Flattened.same"]["answer"], "any");
    let python = generated("python");
    for words in ["\"so called\": str", "class JsonClient", "by_number", "wide"] {
        assert!(python.contains(words), "{words}\n{python}");
    }
    let page = generated("markdown");
    for words in ["Compact.same", "Map<u64, i8>", "(u64, i64, u128, i128)", "`so called`"] {
        assert!(page.contains(words), "{words}\n{page}");
    }
}
