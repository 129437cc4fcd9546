//! Names and schemas without bound are refused when a service is served, whatever its codec, and by whoever asks for one.

use std::{fmt, marker::PhantomData, sync::LazyLock};

use bellrope::{
    CallError, Client, Server,
    server::ServerBuilder,
    service::{SCHEMA, Schema, Shape},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::SerializeStruct as _,
};

/// The fields of a struct, each a byte.
trait Fields: 'static {
    fn all() -> &'static [&'static str];
}

/// A struct with these fields.
struct With<F>(PhantomData<fn() -> F>);

impl<F: Fields> Serialize for With<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut written = serializer.serialize_struct("With", F::all().len())?;
        for name in F::all() {
            written.serialize_field(name, &0_u8)?;
        }
        written.end()
    }
}

impl<'de, F: Fields> Deserialize<'de> for With<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("With", F::all(), Every(PhantomData))
    }
}

struct Every<F>(PhantomData<F>);

impl<'de, F: Fields> Visitor<'de> for Every<F> {
    type Value = With<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a struct")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<With<F>, A::Error> {
        while map.next_key::<Key>()?.is_some() {
            map.next_value::<u8>()?;
        }
        Ok(With(PhantomData))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<With<F>, A::Error> {
        for _ in F::all() {
            seq.next_element::<u8>()?;
        }
        Ok(With(PhantomData))
    }
}

struct Key;

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field")
            }

            fn visit_str<E>(self, _: &str) -> Result<Key, E> {
                Ok(Key)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Key, E> {
                Ok(Key)
            }
        }
        deserializer.deserialize_identifier(Any)
    }
}

/// One field whose name is a byte too long.
struct LongName;

impl Fields for LongName {
    fn all() -> &'static [&'static str] {
        static NAME: LazyLock<[&str; 1]> = LazyLock::new(|| [Box::leak("n".repeat(4097).into())]);
        &*NAME
    }
}

/// More fields than a schema has room for.
struct Many;

impl Fields for Many {
    fn all() -> &'static [&'static str] {
        static NAMES: LazyLock<Vec<&str>> =
            LazyLock::new(|| (0..300).map(|number| &*Box::leak(format!("{number:04000}").into_boxed_str())).collect());
        &NAMES
    }
}

macro_rules! service {
    ($module:ident, $codec:literal, $fields:ident) => {
        mod $module {
            use super::*;

            #[bellrope::service(codec = $codec)]
            trait Large {
                fn good(&self) -> u8;
                fn take(&self, what: With<$fields>) -> u8;
            }

            struct Host;

            #[bellrope::service]
            impl Large for Host {
                fn good(&self) -> u8 {
                    1
                }

                fn take(&self, _what: With<$fields>) -> u8 {
                    2
                }
            }

            pub(super) fn add(builder: ServerBuilder) -> ServerBuilder {
                builder.service(Host)
            }
        }
    };
}

service!(long_json, "json", LongName);
service!(long_postcard, "postcard", LongName);
service!(many_json, "json", Many);
service!(many_postcard, "postcard", Many);

#[test]
fn names_too_long_and_schemas_too_large_are_refused_when_they_are_served() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("large.sock");
    let long = "the name has 4097 bytes, and at most 4096";
    for (add, fault) in [
        (long_json::add as fn(ServerBuilder) -> ServerBuilder, long),
        (long_postcard::add, long),
        (many_json::add, "and at most 1048576"),
        (many_postcard::add, "and at most 1048576"),
    ] {
        let refused = add(Server::builder()).bind(&path).unwrap_err().to_string();
        assert!(
            refused.starts_with("the method Large.take cannot be served: "),
            "{}",
            &refused[..200.min(refused.len())]
        );
        assert!(refused.contains(fault), "{}", &refused[refused.len().saturating_sub(200)..]);
    }

    /// A service whose own name leaves none for its methods: an identifier has no bound, and a name on the wire has one.
    macro_rules! called {
        ($name:ident) => {
            #[bellrope::service]
            trait $name {
                fn call(&self) -> u8;
            }

            struct Host;

            #[bellrope::service]
            impl $name for Host {
                fn call(&self) -> u8 {
                    1
                }
            }

            let refused = Server::builder().service(Host).bind(&path).unwrap_err().to_string();
            assert!(refused.contains("a name has 1 to 255 bytes"), "{refused}");
        };
    }
    called!(
        Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    );
}

/// Whoever asks for a schema by a name that there is not is told so, however long the name is.
#[test]
fn a_question_for_a_schema_is_bounded_by_what_is_there() {
    #[bellrope::service]
    trait Small {
        fn call(&self) -> u8;
    }

    struct Host;

    #[bellrope::service]
    impl Small for Host {
        fn call(&self) -> u8 {
            1
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("small.sock");
    let _server = Server::builder().service(Host).bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    let long = format!("{{\"method\":\"{}\"}}", "n".repeat(1 << 20));
    let deep = format!("{{\"method\":{}", "[".repeat(100_000));
    for question in [long.as_str(), deep.as_str(), "{}", "", "{\"method\":\"Small.calls\"}", "{\"method\":7}"] {
        let error = client.call(SCHEMA, question.as_bytes()).unwrap_err();
        let CallError::InvalidRequest { text } = error else { panic!("{error}") };
        assert!(text.len() < 1_000, "{} bytes are said", text.len());
    }
    client.call(SCHEMA, b"{\"method\":\"Small.call\"}").unwrap();
}

#[test]
fn a_type_that_was_refused_or_taken_out_leaves_no_schema_behind() {
    let schema = |request| Schema {
        codec: "json".to_owned(),
        request,
        answer: Shape::Unit,
        sent: Shape::Unit,
        types: Vec::new(),
    };
    let typed = |name: &'static str, request: Shape| {
        move |types: ServerBuilder| types.unary(name, |_, _| Ok(())).schema(name, schema(request))
    };
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("test.sock");
    let server = typed("kept", Shape::Bool)(Server::builder()).room_for_types(4).bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    let asked = |name: &str| client.call(SCHEMA, format!("{{\"method\":\"{name}\"}}").as_bytes());
    let kept = asked("kept").unwrap();
    assert!(server.add_types(typed("kept", Shape::Text)).is_err());
    assert_eq!(asked("kept").unwrap(), kept);
    server.add_types(typed("later", Shape::Text)).unwrap();
    assert_eq!(Schema::from_json(&asked("later").unwrap()).unwrap().request, Shape::Text);
    assert!(server.remove_type("later"));
    let gone = asked("later").unwrap_err();
    assert!(matches!(&gone, CallError::InvalidRequest { text } if text.contains("no schema is known")), "{gone:?}");
    // Nor does one that is left to somebody else.
    let path = home.path().join("private").join("other.sock");
    let _left = typed("left", Shape::Bool)(Server::builder()).without(|name| name == "left").bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    assert!(client.call(SCHEMA, b"{\"method\":\"left\"}").is_err());
}
