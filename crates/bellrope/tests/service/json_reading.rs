//! What JSON reads otherwise than one would think: each row of that table in docs/services.md.

use std::collections::BTreeMap;

use bellrope::service::{Codec as _, CodecError, Json, Postcard};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

fn read<T: DeserializeOwned>(json: &str) -> Result<T, CodecError> {
    Json::decode(json.as_bytes())
}

fn fault<T: DeserializeOwned>(json: &str) -> String {
    read::<T>(json).map(|_| ()).unwrap_err().to_string()
}

#[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
struct Plain {
    a: Option<u8>,
    b: u8,
}

#[test]
fn fields_that_are_missing_unknown_twice_or_in_a_list() {
    assert_eq!(read::<Plain>("{\"b\":1}").unwrap(), Plain { a: None, b: 1 });
    assert_eq!(read::<Plain>("{\"a\":null,\"b\":1}").unwrap(), Plain { a: None, b: 1 });
    assert!(fault::<Plain>("{\"a\":1}").contains("missing field `b`"));
    assert_eq!(read::<Plain>("{\"b\":1,\"c\":{\"d\":[]}}").unwrap().b, 1);
    assert!(fault::<Plain>("{\"b\":1,\"b\":2}").contains("duplicate field `b`"));
    assert_eq!(read::<Plain>("{\"b\":1,\"c\":1,\"c\":2}").unwrap().b, 1);
    assert_eq!(read::<Plain>("[7,1]").unwrap(), Plain { a: Some(7), b: 1 });
    assert_eq!(read::<BTreeMap<String, u8>>("{\"x\":1,\"x\":2}").unwrap()["x"], 2);

    #[derive(Debug, Deserialize)]
    struct Nested {
        #[expect(dead_code, reason = "it is read")]
        #[serde(deserialize_with = "some")]
        a: Option<u8>,
    }
    fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
        Option::deserialize(deserializer)
    }
    assert!(fault::<Nested>("{}").contains("missing field `a`"));
    assert_eq!(read::<Option<Option<u8>>>("null").unwrap(), None);
}

#[test]
fn numbers_are_read_as_themselves_or_not_at_all_but_for_floats() {
    for json in ["1.0", "1e2", "-1", "256", "\"1\"", "-0"] {
        assert!(fault::<u8>(json).contains("invalid"), "{json}");
    }
    assert_eq!(read::<f64>("1").unwrap().to_bits(), 1_f64.to_bits());
    assert_eq!(read::<f64>("9007199254740993").unwrap().to_bits(), 9_007_199_254_740_992_f64.to_bits());
    assert!(fault::<f64>("1e400").contains("number out of range"));
    assert!(fault::<f32>("1e39").contains("number out of range"));
    assert_eq!(read::<f32>("0.1").unwrap().to_bits(), 0.1_f32.to_bits());
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Word {
    A,
    B(u8),
}

#[test]
fn keys_variants_and_texts() {
    assert_eq!(read::<BTreeMap<u64, u8>>("{\"1\":2}").unwrap()[&1], 2);
    for json in ["{\"01\":1}", "{\"+1\":1}", "{\" 1\":1}", "{\"1.0\":1}"] {
        assert!(read::<BTreeMap<u64, u8>>(json).is_err(), "{json}");
    }
    assert_eq!(read::<BTreeMap<bool, u8>>("{\"true\":2}").unwrap()[&true], 2);
    assert_eq!(read::<Word>("{\"A\":null}").unwrap(), Word::A);
    assert_eq!(read::<Word>("{\"B\":5}").unwrap(), Word::B(5));
    assert!(read::<Word>("{\"A\":null,\"B\":1}").is_err());
    assert!(read::<Word>("\"B\"").is_err());
    assert!(fault::<char>("\"ab\"").contains("invalid value"));
    assert!(read::<String>("\"\\ud800\"").is_err());
    assert!(read::<u8>("1 2").is_err());
    assert_eq!(read::<u8>(" 1\n").unwrap(), 1);
}

/// What is small as it travels and large in memory ends where it takes too much of it, in both codecs.
#[test]
fn elements_that_take_much_more_memory_than_bytes_are_bounded() {
    type Wide = Vec<Option<[u64; 32]>>;
    const FEW: usize = 10_000;
    const MANY: usize = 400_000;
    let postcard = |count: usize| {
        let mut bytes = Vec::new();
        Postcard::encode(&count, &mut bytes).unwrap();
        bytes.resize(bytes.len() + count, 0);
        bytes
    };
    assert_eq!(Postcard::decode::<Wide>(&postcard(FEW)).unwrap(), vec![None; FEW]);
    let error = Postcard::decode::<Wide>(&postcard(MANY)).unwrap_err();
    assert!(error.to_string().contains("bytes of memory, which is the most for 400003 bytes"), "{error}");
    assert!(error.place().starts_with('['), "{error}");

    let json = |count: usize, element: &str| format!("[{}]", vec![element; count].join(","));
    assert_eq!(read::<Wide>(&json(FEW, "null")).unwrap(), vec![None; FEW]);
    assert!(fault::<Wide>(&json(2 * MANY, "null")).contains("bytes of memory, which is the most for"));

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Sparse {
        texts: [Option<String>; 32],
    }
    let by_key = |count: usize| {
        let entries: Vec<_> = (0..count).map(|key| format!("\"{key:x}\":{{}}")).collect();
        format!("{{{}}}", entries.join(","))
    };
    assert_eq!(read::<BTreeMap<String, Sparse>>(&by_key(5_000)).unwrap().len(), 5_000);
    assert!(fault::<BTreeMap<String, Sparse>>(&by_key(200_000)).contains("bytes of memory"));

    // What takes as much as it must is no such thing.
    let honest: Vec<Vec<Option<String>>> = vec![vec![None; 64]; 4_000];
    let mut bytes = Vec::new();
    Postcard::encode(&honest, &mut bytes).unwrap();
    assert_eq!(Postcard::decode::<Vec<Vec<Option<String>>>>(&bytes).unwrap(), honest);
    bytes.clear();
    Json::encode(&honest, &mut bytes).unwrap();
    assert_eq!(Json::decode::<Vec<Vec<Option<String>>>>(&bytes).unwrap(), honest);
}

/// What serde copies before it knows what it is may become anything: there each list, object and `null` counts.
#[test]
fn what_is_copied_before_its_type_is_known_is_bounded() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Sparse {
        texts: [Option<String>; 32],
    }
    #[derive(Deserialize)]
    #[serde(tag = "t")]
    enum Tagged<T> {
        Many { list: Vec<T> },
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Untagged<T> {
        Many { list: Vec<T> },
    }
    #[derive(Deserialize)]
    struct Flat<T> {
        #[serde(flatten)]
        rest: BTreeMap<String, Vec<T>>,
    }
    const FEW: usize = 5_000;
    const MANY: usize = 600_000;
    let tagged =
        |count: usize, element: &str| format!("{{\"t\":\"Many\",\"list\":[{}]}}", vec![element; count].join(","));
    let plain = |count: usize, element: &str| format!("{{\"list\":[{}]}}", vec![element; count].join(","));
    let Tagged::Many { list } = read::<Tagged<Sparse>>(&tagged(FEW, "{}")).unwrap();
    assert_eq!(list.len(), FEW);
    let Untagged::Many { list } = read::<Untagged<Sparse>>(&plain(FEW, "[]")).unwrap();
    assert_eq!(list.len(), FEW);
    assert_eq!(read::<Flat<Option<Sparse>>>(&plain(FEW, "null")).unwrap().rest["list"].len(), FEW);
    for fault in [
        fault::<Tagged<Sparse>>(&tagged(MANY, "{}")),
        fault::<Untagged<Sparse>>(&plain(MANY, "[]")),
        fault::<Flat<Option<Sparse>>>(&plain(2 * MANY, "null")),
    ] {
        assert!(fault.contains("bytes of memory, which is the most for"), "{fault}");
    }
    // As many of what has the bytes for it are read.
    let Tagged::Many { list } = read::<Tagged<(u8, u8)>>(&tagged(MANY, "[1,2]")).unwrap();
    assert_eq!(list.len(), MANY);
    let Untagged::Many { list } = read::<Untagged<u8>>(&plain(2 * MANY, "1")).unwrap();
    assert_eq!(list.len(), 2 * MANY);
}

/// An error names variant and field, and says how a variant is written.
#[test]
fn what_is_no_variant_is_told_how_one_is_written() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "they are read")]
    enum Tree {
        Leaf,
        Named(String),
        Both(u8, u8),
        Wide { a: u8 },
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is read")]
    struct Holder {
        tree: Tree,
    }
    for (json, expected) in [
        (
            r#"{"Named":"a","Both":[1,2]}"#,
            "tree.Named: one variant of an enum is expected, as {\"name\": ...} with nothing beside it",
        ),
        ("{}", "tree: one variant of an enum is expected"),
        ("[1]", "tree: one variant of an enum is expected"),
        ("null", "tree: one variant of an enum is expected"),
        (r#""Named""#, "has contents: {\""),
        (r#""Both""#, "has contents: {\""),
        (r#""Wide""#, "{...}} is expected"),
        (r#"{"Leaf":1}"#, "invalid type: integer `1`, expected unit"),
        (r#"{"Wide":{"b":1}}"#, "missing field `a`"),
        (r#"{"Wide":{"a":300}}"#, "invalid value: integer `300`"),
        (r#"{"Both":[1]}"#, "invalid length 1"),
        (r#""Leaves""#, "unknown variant `Leaves`"),
        (r#"{"Named":"\ud800"}"#, "a \\u escape is half of a surrogate pair without its other half"),
    ] {
        let error = read::<Holder>(&format!("{{\"tree\":{json}}}")).unwrap_err().to_string();
        assert!(error.contains(expected), "{json}: {error}");
        assert!(error.contains(" at line 1 column ") || error.contains(", at line 1 column "), "{error}");
    }
    // Where the text itself is broken, no enum is to blame.
    let error = read::<Holder>(r#"{"tree":}"#).unwrap_err().to_string();
    assert!(error.contains("expected value at line 1 column 9"), "{error}");
}
