//! What a server says of its types, and which it refuses to serve.

use std::path::Path;

use bellrope::{
    CallError, Client, Server,
    service::{Codec as _, Json, Schema},
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
    assert!(matches!(error, CallError::Handler { .. }), "{error}");
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
    assert!(error.contains("untagged"), "{error}");
    let error = refused!(
        #[derive(Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Thing {
            A { x: u8 },
            B,
        }
    );
    assert!(error.contains("use json"), "{error}");
    refused!(
        #[derive(Serialize, Deserialize)]
        struct Thing {
            #[serde(flatten)]
            inner: Inner,
        }
        #[derive(Serialize, Deserialize)]
        struct Inner {
            x: u8,
        }
    );
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
