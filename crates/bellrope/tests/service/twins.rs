//! Types that share all their names: they are told apart by what they are made of, or the method has no schema.

use std::fmt;

use bellrope::{
    CallError, Client, Server,
    service::{Form, Shape},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Visitor},
};

use crate::schemas::schema;

/// Both are read by one visitor, which is told only when it runs which it is to read.
#[derive(Serialize)]
struct Text(String);

#[derive(Serialize)]
struct Number(u8);

struct Item {
    is_text: bool,
}

impl<'de> Visitor<'de> for Item {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        if self.is_text { String::deserialize(from) } else { u8::deserialize(from).map(|number| number.to_string()) }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_newtype_struct("Item", Item { is_text: true }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = from.deserialize_newtype_struct("Item", Item { is_text: false })?;
        Ok(Self(number.parse().map_err(D::Error::custom)?))
    }
}

macro_rules! torn {
    ($module:ident, $codec:literal) => {
        echo!($module, $codec, {
            #[derive(Serialize, Deserialize)]
            pub(super) enum Thing {
                One(Text),
                Two(Number),
            }

            impl Thing {
                pub(super) fn new() -> Self {
                    Self::One(Text("1".to_owned()))
                }
            }
        });
    };
}

macro_rules! whole {
    ($module:ident, $codec:literal) => {
        echo!($module, $codec, {
            #[derive(Serialize, Deserialize)]
            pub(super) enum Thing {
                Other(String),
            }

            impl Thing {
                pub(super) fn new() -> Self {
                    Self::Other("1".to_owned())
                }
            }
        });
    };
}

torn!(torn, "postcard");
whole!(whole, "postcard");
torn!(torn_in_json, "json");
whole!(whole_in_json, "json");

/// Types that cannot be told apart at all are not taken for one: there is no schema, and whoever asks learns why.
#[test]
fn types_that_cannot_be_told_apart_have_no_schema_and_it_is_said_why() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("echo.sock");
    let _server = Server::builder().service(torn::Host).bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    let error = client.call("bellrope.schema", br#"{"method":"Echo.echo"}"#).unwrap_err().to_string();
    assert!(
        error.contains("the method Echo.echo has no schema: there are two types Item that cannot be told apart"),
        "{error}"
    );
}

/// Without names, a schema on one side alone is no schema: nothing would be compared.
#[test]
fn a_method_with_a_schema_on_one_side_alone_is_refused_without_names() {
    let differences = differs!(torn, whole, whole::Thing::new());
    assert!(differences.starts_with("its types have no schema there (the server's log says why)"), "{differences}");
    let differences = differs!(whole, torn, torn::Thing::new());
    assert!(differences.starts_with("its types have no schema here"), "{differences}");
    assert!(differences.contains("there are two types Item that cannot be told apart"), "{differences}");

    macro_rules! works {
        ($there:ident, $here:ident) => {{
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("private").join("echo.sock");
            let _server = Server::builder().service($there::Host).bind(&path).unwrap();
            let client = $here::EchoBlockingClient::connect(&path).unwrap();
            client.echo($here::Thing::new(), vec![]).map(|_| ())
        }};
    }
    works!(torn, torn).unwrap();
    works!(whole, whole).unwrap();
    works!(torn_in_json, torn_in_json).unwrap();
    works!(whole_in_json, whole_in_json).unwrap();
    // With names it is as ever: what is needed and does not come is an error.
    for outcome in [works!(torn_in_json, whole_in_json), works!(whole_in_json, torn_in_json)] {
        assert!(matches!(outcome.unwrap_err().call_error(), Some(CallError::InvalidRequest { .. })));
    }

    // A server of bytes, as one of wire version 1.0, says nothing of codecs.
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("bytes.sock");
    let bytes = Server::builder().unary("Echo.echo", |call, reply| {
        reply.put(&call.payload()[..call.payload().len() - 1]);
        Ok(())
    });
    let _server = bytes.bind(&path).unwrap();
    let client = whole::EchoBlockingClient::from(Client::connect(&path).unwrap());
    client.echo(whole::Thing::new(), vec![]).unwrap();
}

trait Pick {
    type Item;
    fn item() -> Self::Item;
}

/// Two enums `Item` of the same variants, of which one is made of something else. `Page` of each is two types of one name, too.
macro_rules! twins {
    ($module:ident, $one:ty, $two:ty) => {
        echo!($module, "postcard", {
            pub(super) struct One;
            pub(super) struct Two;
            #[derive(Serialize, Deserialize)]
            pub(super) struct Page<T> {
                pub(super) of: Vec<T>,
            }
            const _: () = {
                #[derive(Serialize, Deserialize)]
                pub(super) enum Item {
                    Plain,
                    With { part: Box<Option<Item>>, value: $one },
                }
                impl Pick for One {
                    type Item = Item;
                    fn item() -> Item {
                        Item::With { part: Box::new(Some(Item::Plain)), value: Default::default() }
                    }
                }
            };
            const _: () = {
                #[derive(Serialize, Deserialize)]
                pub(super) enum Item {
                    Plain,
                    With { part: Box<Option<Item>>, value: $two },
                }
                impl Pick for Two {
                    type Item = Item;
                    fn item() -> Item {
                        Item::With { part: Box::new(Some(Item::Plain)), value: Default::default() }
                    }
                }
            };
            #[derive(Serialize, Deserialize)]
            pub(super) struct Thing {
                one: <One as Pick>::Item,
                two: <Two as Pick>::Item,
                pages: (Page<<One as Pick>::Item>, Page<<Two as Pick>::Item>),
            }

            impl Thing {
                pub(super) fn new() -> Self {
                    let pages = (Page { of: vec![One::item()] }, Page { of: vec![Two::item()] });
                    Self { one: One::item(), two: Two::item(), pages }
                }
            }
        });
    };
}

twins!(unlike, u8, String);
twins!(unlike_turned, String, u8);
twins!(alike, u8, u8);

/// Of two types of the same names, each variant and each part is known, also where they differ far behind.
#[test]
fn twins_are_told_apart_by_what_they_are_made_of() {
    let said = known!(unlike);
    let items: Vec<_> = said.types.iter().filter(|ty| ty.name.starts_with("Item")).collect();
    let value = |at: usize| match &items[at].form {
        Form::Enum(variants) => match &variants[1].1 {
            Form::Struct(fields) => fields[1].1.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(items.iter().map(|ty| ty.name.as_str()).collect::<Vec<_>>(), ["Item", "Item2"]);
    assert_eq!((value(0), value(1)), (Shape::Integer { signed: false, bits: 8 }, Shape::Text));
    assert_eq!(said.types.iter().filter(|ty| ty.name.starts_with("Page")).count(), 2);

    let differences = differs!(unlike, unlike_turned, unlike_turned::Thing::new());
    for words in [
        "arguments.thing.one.With.value is text here and u8 there",
        "arguments.thing.two.With.value is u8 here and text there",
    ] {
        assert!(differences.contains(words), "{differences}");
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("echo.sock");
    let _server = Server::builder().service(unlike::Host).bind(&path).unwrap();
    let client = unlike::EchoBlockingClient::connect(&path).unwrap();
    client.echo(unlike::Thing::new(), vec![]).unwrap();
}

/// Of several functions that read types of the same names and form, as compilers make them of one type, a schema says one type.
#[test]
fn twins_of_one_form_are_one_type() {
    let said = known!(alike);
    drop(alike::Thing::new());
    let mut names: Vec<_> = said.types.iter().map(|ty| ty.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Item", "Page", "Thing", "__Echo__echo"]);
}
