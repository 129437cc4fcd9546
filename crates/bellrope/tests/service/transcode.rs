//! JSON to what travels and back by a schema alone: what `bellrope call` does with a typed server.

use std::collections::BTreeMap;

use bellrope::service::{Bytes, Codec as _, Form, Json, Postcard, Schema, Shape, Type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::schemas::schema;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Tone {
    Low,
    #[serde(rename = "so high")]
    High,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Named(String),
    Both(u8, i64),
    Branch { left: Box<Tree>, right: Option<Box<Tree>> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Meters(f64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    signed: (i8, i16, i32, i64, i128),
    unsigned: (u8, u16, u32, u64, u128),
    floats: (f32, f64, f64, f64),
    letter: char,
    text: String,
    bytes: Bytes<'static>,
    list: Vec<u8>,
    maybe: Option<Option<u8>>,
    nothing: (),
    far: Meters,
    tones: BTreeMap<Tone, u8>,
    numbers: BTreeMap<i32, Tree>,
    pairs: BTreeMap<(u8, u8), bool>,
    tree: Tree,
}

#[bellrope::service(codec = "postcard")]
trait Mirror {
    fn show(&self, what: Everything) -> Result<Everything, Tone>;
}

struct Glass;

#[bellrope::service]
impl Mirror for Glass {
    fn show(&self, what: Everything) -> Result<Everything, Tone> {
        if what.flag { Ok(what) } else { Err(Tone::High) }
    }
}

fn everything() -> Everything {
    Everything {
        flag: true,
        signed: (-1, 300, -70_000, i64::MIN, i128::MIN),
        unsigned: (255, 65_535, 7, u64::MAX, u128::MAX),
        floats: (0.1, 1e300, f64::NEG_INFINITY, 3.0),
        letter: '\u{1F514}',
        text: "ding \"dong\"\n\u{7}".to_owned(),
        bytes: Bytes::from(vec![0, 255, 7]),
        list: vec![1, 2, 200],
        maybe: Some(None),
        nothing: (),
        far: Meters(-0.5),
        tones: [(Tone::Low, 1), (Tone::High, 2)].into(),
        numbers: [(-7, Tree::Leaf), (8, Tree::Both(1, -2))].into(),
        pairs: [((1, 2), true)].into(),
        tree: Tree::Branch { left: Box::new(Tree::Named("a".to_owned())), right: None },
    }
}

fn mirror() -> (tempfile::TempDir, bellrope::Server, Schema) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("mirror.sock");
    let server = bellrope::Server::builder().service(Glass).bind(&path).unwrap();
    let schema = schema(&path, "Mirror.show");
    (home, server, schema)
}

#[test]
fn every_form_goes_from_postcard_to_json_and_back_the_same() {
    let (_home, _server, schema) = mirror();
    let mut bytes = Vec::new();
    Postcard::encode(&(everything(),), &mut bytes).unwrap();
    let text = schema.read(&schema.request, &bytes).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let what = &value["what"];
    assert_eq!(what["bytes"], "AP8H");
    assert_eq!(what["maybe"], json!({ "Some": null }));
    assert_eq!(what["floats"], json!([0.1, 1e300, "-Infinity", 3.0]));
    assert_eq!(what["tones"], json!({ "Low": 1, "so high": 2 }));
    assert_eq!(what["numbers"], json!({ "-7": "Leaf", "8": { "Both": [1, -2] } }));
    assert_eq!(what["pairs"], json!([[[1, 2], true]]));
    assert!(text.contains(&u128::MAX.to_string()) && text.contains(&i128::MIN.to_string()), "{text}");
    assert_eq!(schema.write(&schema.request, text.as_bytes()).unwrap(), bytes);
    let mut answer = vec![0];
    answer.extend(&bytes);
    let inside = text.strip_prefix("{\"what\":").unwrap().strip_suffix('}').unwrap();
    assert_eq!(schema.read_answer(&answer).unwrap().unwrap(), inside);
    assert_eq!(schema.read_answer(b"\x01\x01").unwrap().unwrap_err(), "\"so high\"");
    assert!(
        schema.read_answer(b"\x02").unwrap_err().to_string().contains("unknown variant number 2; known are Ok, Err")
    );
    let json = Schema { codec: "json".to_owned(), ..schema.clone() };
    assert_eq!(json.read_answer(b" { \"Ok\" :\n {\"a\": \"}:\"} } ").unwrap().unwrap(), "{\"a\": \"}:\"}");
    assert_eq!(json.read_answer(b"{\"\\u0045rr\":7}").unwrap().unwrap_err(), "7");
    json.read_answer(b"{\"Ok\":1,\"Err\":2}").unwrap_err();
    json.read_answer(b"7").unwrap_err();

    // With fields in another order, optional ones left out, and space between.
    let tree = r#"{ "tree": { "Branch": { "left": "Leaf" } } }"#;
    let again = text.replace(r#""tree":{"Branch":{"left":{"Named":"a"},"right":null}}"#, &tree[1..tree.len() - 1]);
    assert_ne!(again, text);
    let read: (Everything,) = Postcard::decode(&schema.write(&schema.request, again.as_bytes()).unwrap()).unwrap();
    assert_eq!(read.0.tree, Tree::Branch { left: Box::new(Tree::Leaf), right: None });
}

#[test]
fn what_the_schema_does_not_say_is_an_error_with_its_place() {
    let (_home, _server, schema) = mirror();
    let mut json = Vec::new();
    let mut value = everything();
    value.floats.2 = 0.0;
    value.maybe = None;
    value.pairs.clear();
    Json::encode(&BTreeMap::from([("what", &value)]), &mut json).unwrap();
    let good = String::from_utf8(json).unwrap().replace("\"pairs\":{}", "\"pairs\":[]");
    schema.write(&schema.request, good.as_bytes()).unwrap();
    for (from, to, error) in [
        ("\"flag\":true", "\"flag\":1", "what.flag: invalid type: integer `1`, expected a boolean"),
        ("\"flag\":true", "\"flagg\":true", "what.flagg: unknown field `flagg`; known are flag, signed"),
        ("\"flag\":true,", "", "what: missing field `flag`"),
        ("\"flag\":true", "\"flag\":true,\"flag\":true", "the field `flag` comes twice"),
        ("255,65535", "256,65535", "what.unsigned[0]: invalid value: integer `256`, expected u8"),
        ("[1,2,200]", "[1,2,-200]", "what.list[2]: invalid value: integer `-200`, expected u8"),
        ("\"AP8H\"", "\"AP8\"", "what.bytes: bytes are written as base64"),
        ("\"-7\"", "\"minus seven\"", "the key \"minus seven\": "),
        ("\"so high\"", "\"higher\"", "unknown variant `higher`; known are Low, so high"),
        ("{\"Named\":\"a\"}", "{\"Name\":\"a\"}", "unknown variant `Name`; known are Leaf, Named, Both, Branch"),
        ("{\"Both\":[1,-2]}", "{\"Both\":[1,-2,3]}", "what.numbers.8.Both"),
        ("\"maybe\":null", "\"maybe\":3", "expected null or {\"Some\": ...}"),
        ("0.1,", "1e300,", "what.floats[1]: 1e300 does not fit into 32 bits"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let said = schema.write(&schema.request, bad.as_bytes()).unwrap_err().to_string();
        assert!(said.contains(error), "{said}\n{error}");
    }
}

#[test]
fn hostile_bytes_and_schemas_end_in_errors_and_cost_little() {
    let (_home, _server, known) = mirror();
    let mut bytes = Vec::new();
    Postcard::encode(&(everything(),), &mut bytes).unwrap();
    for end in 0..bytes.len() {
        known.read(&known.request, &bytes[..end]).unwrap_err();
    }
    bytes.push(0);
    let error = known.read(&known.request, &bytes).unwrap_err().to_string();
    assert!(error.contains("1 bytes follow"), "{error}");

    let named = |types: Vec<Form>| Schema {
        codec: "postcard".to_owned(),
        request: Shape::Type(0),
        answer: Shape::Unit,
        sent: Shape::Unit,
        types: types.into_iter().map(|form| Type { name: "T".to_owned(), form }).collect(),
    };
    // A type that is itself, and nothing else.
    let circle = named(vec![Form::Newtype(Shape::Type(0))]);
    assert!(circle.read(&circle.request, b"").unwrap_err().to_string().contains("deeper than 128"));
    assert!(circle.write(&circle.request, b"1").unwrap_err().to_string().contains("deeper than 128"));
    // A thousand to the power of forty of nothing.
    let many = |at: u32| Form::Tuple(vec![if at < 40 { Shape::Type(at + 1) } else { Shape::Unit }; 1000]);
    let swarm = named((0..=40).map(many).collect());
    let error = swarm.read(&swarm.request, b"").unwrap_err().to_string();
    assert!(error.contains("more follows than so few bytes can hold"), "{error}");
    // Fields with long names around a byte each.
    let wide = named(vec![Form::Struct(vec![("n".repeat(4096), Shape::Bool)])]);
    let list = Schema { request: Shape::List(Some(Box::new(Shape::Type(0)))), ..wide };
    let mut bytes = Vec::new();
    Postcard::encode(&vec![false; 100_000], &mut bytes).unwrap();
    assert!(list.read(&list.request, &bytes).unwrap_err().to_string().contains("more than 67108864 bytes"));
    // More elements than bytes.
    assert!(list.read(&list.request, b"\xFF\xFF\xFF\xFF\x0F\x00").unwrap_err().to_string().contains("elements cannot"));

    for (json, error) in [
        (r#"{"codec":"json"}"#.to_owned(), "missing field"),
        (r#"{"codec":"json","request":{"type":3},"answer":"unit","sent":"unit","types":[]}"#.to_owned(), "type 3 is named"),
        (
            r#"{"codec":"json","request":{"integer":{"signed":true,"bits":7}},"answer":"unit","sent":"unit","types":[]}"#
                .to_owned(),
            "request: there are no integers of 7 bits",
        ),
        (
            format!(
                r#"{{"codec":"json","request":"unit","answer":"unit","sent":"unit","types":[{{"name":"{}","form":"unit"}}]}}"#,
                "n".repeat(5000)
            ),
            "the name has 5000 bytes, and at most 4096",
        ),
        (
            r#"{"codec":"json","request":"unit","answer":"unit","sent":"unit","types":[{"name":"T","form":{"struct":[["a","bool"],["a","text"]]}}]}"#
                .to_owned(),
            "T.a: the name comes twice",
        ),
        (format!("{}{}", "[".repeat(1000), "]".repeat(1000)), "expected"),
        (" ".repeat(2 << 20), "has 2097152 bytes, and at most 1048576"),
    ] {
        let said = Schema::from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(said.contains(error), "{said}\n{error}");
    }
    let own = Schema { codec: "lines".to_owned(), ..circle };
    assert!(own.read(&own.request, b"").unwrap_err().to_string().contains("codec lines is not known here"));
}
