//! What a server says of its types, and which it refuses to serve.

use std::path::Path;

use bellrope::{
    CallError, Client, Server,
    service::{Codec as _, Form, Json, Schema, Shape},
};

pub(crate) fn schema(path: &Path, method: &str) -> Schema {
    let client = Client::connect(path).unwrap();
    let answer = client.call("bellrope.schema", format!("{{\"method\":{method:?}}}").as_bytes()).unwrap();
    Json::decode(&answer).unwrap()
}

/// What a request and its reply share is no reason to take one for the other, and two types of one name are two.
#[test]
fn a_schema_tells_request_reply_and_stream_apart_and_types_of_one_name() {
    use bellrope::service::{Incoming, Stream, produce};
    use serde::{Deserialize, Serialize};

    mod one {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(super) struct Item {
            pub(super) a: u8,
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Item {
        b: String,
    }

    #[bellrope::service]
    trait Shapes {
        fn there(&self, item: one::Item) -> (Item,);
        fn back(&self, item: Item) -> (one::Item,);
        fn sent(&self, items: Incoming<Item>) -> impl Stream<Item = Item>;
        fn given(&self, item: Item) -> impl Stream<Item = Item>;
    }

    struct Any;

    #[bellrope::service]
    impl Shapes for Any {
        fn there(&self, item: one::Item) -> (Item,) {
            (Item { b: item.a.to_string() },)
        }
        fn back(&self, item: Item) -> (one::Item,) {
            (one::Item { a: item.b.len() as u8 },)
        }
        fn sent(&self, _items: Incoming<Item>) -> impl Stream<Item = Item> {
            produce(async |_| {})
        }
        fn given(&self, _item: Item) -> impl Stream<Item = Item> {
            produce(async |_| {})
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("shapes.sock");
    let _server = Server::builder().service(Any).bind(&path).unwrap();
    let schemas = ["there", "back", "sent", "given"].map(|name| schema(&path, &format!("Shapes.{name}")));
    let hashes: std::collections::BTreeSet<_> = schemas.iter().map(Schema::hash).collect();
    assert_eq!(hashes.len(), 4, "{schemas:?}");
    let names: Vec<_> = schemas[0].types.iter().map(|ty| ty.name.as_str()).collect();
    assert!(names.contains(&"Item") && names.contains(&"Item2"), "{names:?}");
    let client = Client::connect(&path).unwrap();
    let error = client.call("bellrope.schema", br#"{"method":"Shapes.none"}"#).unwrap_err();
    assert!(matches!(error, CallError::InvalidRequest { .. }), "{error}");
}

/// Bytes, addresses and numbers that are never nought are no reason to know nothing, not even beside each other.
#[test]
fn types_that_take_few_values_are_known_with_both_codecs() {
    use std::net::{IpAddr, SocketAddr};

    use bellrope::service::{Bytes, Form};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Few {
        bytes: Bytes<'static>,
        address: IpAddr,
        port: std::num::NonZeroU16,
        both: SocketAddr,
        name: String,
    }

    macro_rules! known {
        ($codec:literal) => {{
            #[bellrope::service(codec = $codec)]
            trait Net {
                fn few(&self, few: Few, raw: &[u8]) -> Bytes<'static>;
            }

            struct Any;

            #[bellrope::service]
            impl Net for Any {
                fn few(&self, few: Few, _raw: &[u8]) -> Bytes<'static> {
                    few.bytes
                }
            }

            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("private").join("net.sock");
            let _server = Server::builder().service(Any).bind(&path).unwrap();
            schema(&path, "Net.few")
        }};
    }

    for known in [known!("json"), known!("postcard")] {
        let few = known.types.iter().find(|ty| ty.name == "Few").unwrap();
        assert!(matches!(&few.form, Form::Struct(fields) if fields.len() == 5), "{few:?}");
    }
}

/// What a codec without names cannot carry is found out before anything is served.
#[test]
fn types_that_postcard_cannot_carry_are_refused_when_they_are_served() {
    use serde::{Deserialize, Serialize};

    macro_rules! refused {
        ($($types:tt)*) => {{
            $($types)*

            #[bellrope::service(codec = "postcard")]
            trait Bad {
                fn give(&self, thing: Thing);
            }

            struct Any;

            #[bellrope::service]
            impl Bad for Any {
                fn give(&self, _thing: Thing) {}
            }

            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("private").join("bad.sock");
            let error = Server::builder().service(Any).bind(&path).unwrap_err().to_string();
            assert!(error.starts_with("the method Bad.give cannot be served: the arguments"), "{error}");
            error
        }};
    }

    let error = refused!(
        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Thing {
            A(u8),
            B(String),
        }
    );
    assert!(error.contains("arguments.thing: the type asks what comes next (#[serde(untagged)])"), "{error}");
    let error = refused!(
        #[derive(Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Thing {
            A { x: u8 },
            B,
        }
    );
    assert!(error.contains("arguments.thing: Thing asks what comes next (#[serde(tag)])"), "{error}");
    assert!(error.ends_with("which only a codec with names says; use json"), "{error}");
    let error = refused!(
        #[derive(Serialize, Deserialize)]
        struct Thing {
            name: String,
            pairs: (u8, Vec<Option<Flat>>),
        }
        #[derive(Serialize, Deserialize)]
        struct Flat {
            #[serde(flatten)]
            inner: Inner,
        }
        #[derive(Serialize, Deserialize)]
        struct Inner {
            x: u8,
        }
    );
    assert!(error.contains("arguments.thing.pairs[1]: Flat asks what comes next (#[serde(flatten)])"), "{error}");
    let error = refused!(
        #[derive(Serialize, Deserialize)]
        enum Thing {
            Plain(u8),
            Any { value: serde_json::Value },
        }
    );
    assert!(error.contains("arguments.thing.Any.value: Value asks what comes next, which only"), "{error}");
    refused!(
        #[derive(Serialize, Deserialize)]
        struct Thing {
            #[serde(default, skip_serializing)]
            _a: u8,
            b: u8,
        }
    );
    refused!(
        #[derive(Serialize, Deserialize)]
        struct Thing {
            list: Vec<()>,
        }
    );
}

/// The method that stands in the way is named, before anything is served.
#[test]
fn two_services_of_one_name_are_refused_with_the_name() {
    mod one {
        #[bellrope::service(name = "Same")]
        pub(super) trait First {
            fn call(&self) -> u8;
        }
        pub(super) struct Any;
        #[bellrope::service]
        impl First for Any {
            fn call(&self) -> u8 {
                1
            }
        }
    }

    mod two {
        #[bellrope::service(name = "Same")]
        pub(super) trait Second {
            fn call(&self) -> u8;
        }
        pub(super) struct Any;
        #[bellrope::service]
        impl Second for Any {
            fn call(&self) -> u8 {
                2
            }
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("twice.sock");
    let error = Server::builder().service(one::Any).service(two::Any).bind(&path).unwrap_err().to_string();
    assert!(error.contains("Same.call") && error.contains("the name is taken"), "{error}");
}

/// Whether a value has the shape that a schema says: no field more, none less that must be there, and each of its type.
fn fits(schema: &Schema, shape: &Shape, value: &serde_json::Value, place: &str) {
    use serde_json::Value;

    let is = match (shape, value) {
        (Shape::Any, _) | (Shape::Optional(_), Value::Null) | (Shape::List(None), Value::Array(_)) => true,
        (Shape::Bool, value) => value.is_boolean(),
        (Shape::Integer { .. }, value) => value.is_u64() || value.is_i64(),
        (Shape::Float { .. }, value) => value.is_number(),
        (Shape::Text, value) => value.is_string(),
        (Shape::Optional(inner), value) => return fits(schema, inner, value, place),
        (Shape::List(Some(inner)), Value::Array(list)) => {
            return list
                .iter()
                .enumerate()
                .for_each(|(at, value)| fits(schema, inner, value, &format!("{place}[{at}]")));
        }
        (Shape::Map(entry), Value::Object(map)) => {
            let Some(entry) = entry else { return };
            return map.iter().for_each(|(key, value)| fits(schema, &entry.1, value, &format!("{place}.{key}")));
        }
        (Shape::Tuple(shapes), Value::Array(list)) if shapes.len() == list.len() => {
            return shapes.iter().zip(list).for_each(|(shape, value)| fits(schema, shape, value, place));
        }
        (Shape::Type(at), value) => match (&schema.types[*at as usize].form, value) {
            (Form::Newtype(inner), value) => return fits(schema, inner, value, place),
            (Form::Struct(fields), Value::Object(object)) => {
                let unknown: Vec<_> =
                    object.keys().filter(|key| !fields.iter().any(|(name, _)| name == *key)).collect();
                assert!(unknown.is_empty(), "{place} has {unknown:?}, of which the schema says nothing");
                for (name, shape) in fields {
                    match object.get(name) {
                        Some(value) => fits(schema, shape, value, &format!("{place}.{name}")),
                        // Serde does not tell that a list may be left out where it is empty.
                        None => {
                            assert!(matches!(shape, Shape::Optional(_) | Shape::List(_)), "{place}.{name} is missing");
                        }
                    }
                }
                return;
            }
            (Form::Enum(variants), Value::String(word)) => {
                variants.iter().any(|(name, form)| name == word && *form == Form::Unit)
            }
            _ => false,
        },
        _ => false,
    };
    assert!(is, "{place} is {value}, and {shape:?} in the schema");
}

/// The operator's types are called as ever, and a schema says what they answer.
#[test]
fn the_operators_message_types_are_described_as_they_are() {
    use bellrope::status::{BREAKER, OPERATOR_TYPES, STATS};

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("operated.sock");
    let _server = Server::builder().unary("echo", |_, _| Ok(())).operator().bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    client.call("echo", b"").unwrap();
    for name in OPERATOR_TYPES {
        let schema = schema(&path, name);
        for request in [&b""[..], b"{}"] {
            let answer = client.call(name, request).unwrap();
            fits(&schema, &schema.answer, &serde_json::from_slice(&answer).unwrap(), name);
        }
    }
    let Some(Form::Struct(fields)) = schema(&path, BREAKER).types.into_iter().map(|ty| ty.form).next() else {
        panic!("a request has fields")
    };
    assert_eq!(fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["action", "name"]);
    assert_ne!(schema(&path, STATS).hash(), schema(&path, BREAKER).hash());
}

/// What is said by hand is handed out as it was said, if it can be read.
#[test]
fn schemas_said_by_hand_are_handed_out_or_refused_when_they_are_served() {
    use bellrope::service::Type;

    let with = |form: Form| Schema {
        codec: "json".to_owned(),
        request: Shape::Type(0),
        answer: Shape::Unit,
        sent: Shape::Unit,
        types: vec![Type { name: "Said".to_owned(), form }],
    };
    let named = |name: &str| (name.to_owned(), vec![("text".to_owned(), Shape::Text)]);
    let tagged = |variants| Form::Tagged { tag: "kind".to_owned(), variants };
    let good = [
        with(tagged(vec![named("a"), named("b")])),
        with(Form::Either(vec![Shape::Text, Shape::List(Some(Box::new(Shape::Type(0))))])),
    ];
    let home = tempfile::tempdir().unwrap();
    for (number, said) in good.iter().enumerate() {
        let path = home.path().join(number.to_string()).join("said.sock");
        let _server = Server::builder().unary("say", |_, _| Ok(())).schema("say", said.clone()).bind(&path).unwrap();
        assert_eq!(schema(&path, "say"), *said);
        let postcard = Schema { codec: "postcard".to_owned(), ..said.clone() };
        assert!(postcard.write(&postcard.request, br#"{"kind":"a"}"#).is_err(), "only names tell them apart");
        assert!(postcard.read(&postcard.request, &[0, 0]).is_err());
    }
    assert_ne!(good[0].hash(), good[1].hash());

    let twice = vec![("kind".to_owned(), Shape::Text)];
    for (said, fault) in [
        (with(tagged(vec![named("a"), named("a")])), "Said.a: the name comes twice"),
        (with(tagged(vec![("a".to_owned(), twice)])), "Said.a.kind: the name comes twice"),
        (with(Form::Either(vec![Shape::Type(1)])), "Said: type 1 is named, and there are 1"),
        (with(Form::Enum(vec![("a".to_owned(), tagged(vec![]))])), "Said.a: a variant is no enum"),
        (Schema { codec: "xml".to_owned(), ..with(Form::Unit) }, "the codec \"xml\" is neither json nor postcard"),
    ] {
        let path = home.path().join("refused").join("said.sock");
        let refused = Server::builder().unary("say", |_, _| Ok(())).schema("say", said).bind(&path).unwrap_err();
        assert!(refused.to_string().contains(fault) && refused.to_string().contains("say"), "{refused}");
    }
    let path = home.path().join("refused").join("said.sock");
    let mistyped =
        Server::builder().unary("say", |_, _| Ok(())).schema("sya", with(Form::Unit)).bind(&path).unwrap_err();
    assert!(mistyped.to_string().contains("sya") && mistyped.to_string().contains("it has no handler"), "{mistyped}");
}

/// Shapes and forms may be added: what a later version says of one method is no reason to know nothing of it, or of others.
#[test]
fn shapes_and_forms_that_a_later_version_has_are_anything() {
    let read = |json: &str| Schema::from_json(json.as_bytes());
    let schema = read(
        r#"{"codec":"json","later":1,"request":{"type":0},"answer":"instant","sent":{"ratio":{"of":[1,{"x":null}]}},"types":[
            {"name":"A","form":{"struct":[["a",{"list":{"set":"text"}}],["b","bool"],["c",{"unit":null}]]}},
            {"name":"B","form":{"bits":["x","y"]}},
            {"name":"C","form":{"enum":[["X","never"],["Y",{"struct":[["z",{"integer":{"signed":false,"bits":8,"of":1}}]]}]]}}
        ]}"#,
    )
    .unwrap();
    assert_eq!((&schema.answer, &schema.sent), (&Shape::Any, &Shape::Any));
    let field = |name: &str, shape: Shape| (name.to_owned(), shape);
    let list = Shape::List(Some(Box::new(Shape::Any)));
    let fields = vec![field("a", list), field("b", Shape::Bool), field("c", Shape::Unit)];
    assert_eq!(schema.types[0].form, Form::Struct(fields));
    assert_eq!(schema.types[1].form, Form::Newtype(Shape::Any));
    let inside = Form::Struct(vec![field("z", Shape::Integer { signed: false, bits: 8 })]);
    let variants = vec![("X".to_owned(), Form::Newtype(Shape::Any)), ("Y".to_owned(), inside)];
    assert_eq!(schema.types[2].form, Form::Enum(variants));

    for (answer, fault) in [
        ("5", "answer: invalid type: integer `5`, expected a shape"),
        ("{}", "answer: expected a shape, such as"),
        (r#"{"list":"text","map":null}"#, "expected a shape, such as"),
        (r#"{"integer":{"signed":true}}"#, "answer.integer: missing field `bits`"),
        (r#"{"optional":{"list":7}}"#, "answer.optional.list: invalid type: integer `7`"),
    ] {
        let json = format!(r#"{{"codec":"json","request":"unit","answer":{answer},"sent":"unit","types":[]}}"#);
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(fault), "{answer}: {error}");
    }
}
