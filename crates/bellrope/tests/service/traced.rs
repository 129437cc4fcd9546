//! What a service's types announce when they are written and ask for when they are read: different types are never one, and
//! what would be read as another value is never served.

use bellrope::{
    CallError, Server,
    service::{Form, Schema, Shape},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schemas::schema;

fn form<'s>(schema: &'s Schema, name: &str) -> &'s Form {
    &schema.types.iter().find(|ty| ty.name == name).unwrap().form
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

echo!(skips, "postcard", {
    #[derive(Default, Serialize, Deserialize)]
    pub(super) struct Thing {
        name: String,
        #[serde(skip_deserializing)]
        id: String,
        #[serde(skip_serializing)]
        _password: String,
    }
});
echo!(skips_after_mail, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        mail: Mail,
        #[serde(skip_serializing)]
        _password: String,
        #[serde(skip_deserializing)]
        id: String,
    }
});
echo!(unread_variant, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) enum Thing {
        X,
        #[serde(skip)]
        _Y,
        Z,
        W,
    }
});
echo!(renamed, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        #[serde(rename(serialize = "b"))]
        a: u8,
    }
});
echo!(tagged, "postcard", {
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "type")]
    pub(super) struct Thing {
        a: u8,
    }
});
echo!(wide, "postcard", {
    fn write<S: Serializer>(number: &u8, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32((*number).into())
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        #[serde(serialize_with = "write")]
        a: u8,
    }
});

/// Fields that take each other's place are refused with type, field and attribute, whatever their values are.
#[test]
fn fields_that_are_only_written_or_only_read_are_refused_with_their_names() {
    for (error, field) in [
        (refused!(skips), "thing: the field Thing.id is written and never read"),
        (refused!(skips_after_mail), "thing: the field Thing.id is written and never read"),
        (refused!(renamed), "thing: the field Thing.b is written and never read"),
        (refused!(tagged), "thing: the field Thing.type is written and never read (#[serde(skip_deserializing)], tag"),
        (refused!(unread_variant), "the variant Thing."),
        (refused!(wide), "thing.a: it is written as u32 and read as u8"),
    ] {
        assert!(error.contains(field), "{error}");
    }
}

echo!(short, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(u8, #[serde(skip_serializing_if = "is_zero")] u8);
});
echo!(short_variant, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) enum Thing {
        A(u8),
        B(u8, #[serde(skip_serializing_if = "is_zero")] u8),
    }
});
echo!(short_option, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(#[serde(skip_serializing_if = "Option::is_none")] Option<u8>, String);
});
echo!(short_list_in_json, "json", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(
        #[serde(default, skip_serializing_if = "Vec::is_empty")] Vec<u8>,
        #[serde(default)] Vec<u8>,
    );
});
echo!(short_in_json, "json", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(u8, #[serde(default, skip_serializing_if = "is_zero")] u8, #[serde(default)] u8);
});
echo!(short_at_its_end_in_json, "json", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(u8, #[serde(default, skip_serializing_if = "is_zero")] u8);
});

/// A tuple that leaves a part out moves the others up. One that comes short at its end is right where lengths travel.
#[test]
fn tuples_that_leave_parts_out_are_refused_when_they_are_served() {
    for (error, words) in [
        (refused!(short), "thing: Thing is written with 1 of its 2 parts"),
        (refused!(short_variant), "thing.B: Thing.B is written with 1 of its 2 parts"),
        (refused!(short_option), "thing: Thing is written with 1 of its 2 parts"),
        (refused!(short_in_json), "thing: Thing is written with 2 of its 3 parts"),
        (refused!(short_list_in_json), "thing: Thing is written with 1 of its 2 parts"),
    ] {
        assert!(error.contains(words), "{error}");
        assert!(error.contains("skip_serializing_if"), "{error}");
    }
    assert!(matches!(form(&known!(short_at_its_end_in_json), "Thing"), Form::Tuple(parts) if parts.len() == 2));
}

trait Pick {
    type Item;
    fn item(one: &str, two: &str) -> Self::Item;
}

macro_rules! blocks {
    ($module:ident, $($second:ident),*) => {
        echo!($module, "postcard", {
            pub(super) struct One;
            pub(super) struct Two;
            const _: () = {
                #[derive(Serialize, Deserialize)]
                pub(super) struct Item {
                    a: String,
                    b: String,
                }
                impl Pick for One {
                    type Item = Item;
                    fn item(one: &str, two: &str) -> Item {
                        Item { a: one.to_owned(), b: two.to_owned() }
                    }
                }
            };
            const _: () = {
                #[derive(Serialize, Deserialize)]
                pub(super) struct Item {
                    $($second: String),*
                }
                impl Pick for Two {
                    type Item = Item;
                    fn item(from: &str, to: &str) -> Item {
                        Item { from: from.to_owned(), to: to.to_owned() }
                    }
                }
            };
            #[derive(Serialize, Deserialize)]
            pub(super) struct Thing {
                pub(super) one: <One as Pick>::Item,
                pub(super) two: <Two as Pick>::Item,
            }
        });
    };
}

blocks!(blocks_there, from, to);
blocks!(blocks_here, to, from);

macro_rules! remotes {
    ($module:ident, $($second:ident),*) => {
        echo!($module, "postcard", {
            #[derive(Default)]
            pub(super) struct Money {
                units: u32,
                cents: u32,
            }
            mod x {
                #[derive(serde::Serialize, serde::Deserialize)]
                #[serde(remote = "super::Money")]
                pub(super) struct Def {
                    units: u32,
                    cents: u32,
                }
            }
            mod y {
                #[derive(serde::Serialize, serde::Deserialize)]
                #[serde(remote = "super::Money")]
                pub(super) struct Def {
                    $($second: u32),*
                }
            }
            #[derive(Default, Serialize, Deserialize)]
            pub(super) struct Thing {
                #[serde(with = "x::Def")]
                one: Money,
                #[serde(with = "y::Def")]
                two: Money,
            }
        });
    };
}

remotes!(remote_there, units, cents);
remotes!(remote_here, cents, units);

/// A name does not tell types apart: what macros write has many items of one name, and `remote` makes more.
#[test]
fn types_of_one_name_in_one_module_are_two() {
    let thing = {
        use blocks_here::{One, Thing, Two};
        Thing { one: One::item("a", "b"), two: Two::item("from", "to") }
    };
    assert!(differs!(blocks_there, blocks_here, thing).contains("arguments.thing.two has its fields in another order"));
    let thing = remote_here::Thing::default();
    assert!(differs!(remote_there, remote_here, thing).contains("arguments.thing.two has its fields in another order"));
}

macro_rules! aliases {
    ($module:ident, $codec:literal, $($field:ident),*) => {
        echo!($module, $codec, {
            #[derive(Serialize, Deserialize)]
            pub(super) enum Tone {
                #[serde(alias = "loud", alias = "LOUD")]
                Loud,
                Soft { #[serde(alias = "z")] by: u8, to: bool },
                #[serde(other)]
                Mute,
            }
            #[derive(Serialize, Deserialize)]
            pub(super) struct Thing {
                pub(super) tone: Tone,
                $(pub(super) $field: u8),*
            }
        });
    };
}

aliases!(aliases_there, "postcard", from, to);
aliases!(aliases_here, "postcard", to, from);
aliases!(aliases_in_json, "json", from, to);

/// serde lists further names among the variants and fields; the schema has those by which they are written.
#[test]
fn further_names_of_variants_and_fields_are_no_reason_to_know_nothing() {
    for schema in [known!(aliases_there), known!(aliases_in_json)] {
        let Form::Enum(variants) = form(&schema, "Tone") else { panic!("{schema:?}") };
        let names: Vec<_> = variants.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Loud", "Soft", "Mute"]);
        let Form::Struct(fields) = &variants[1].1 else { panic!("{schema:?}") };
        assert_eq!(fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["by", "to"]);
    }
    let thing = aliases_here::Thing { tone: aliases_here::Tone::Loud, to: 1, from: 2 };
    assert!(differs!(aliases_there, aliases_here, thing).contains("arguments.thing has its fields in another order"));
}

/// A text that is only taken if a rule holds.
macro_rules! ruled {
    ($name:ident, $rule:expr) => {
        #[derive(Clone, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        struct $name(String);

        impl TryFrom<String> for $name {
            type Error = &'static str;
            fn try_from(text: String) -> Result<Self, &'static str> {
                let rule: fn(&str) -> bool = $rule;
                if rule(&text) { Ok(Self(text)) } else { Err("it is none") }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

ruled!(Mail, |text| text.contains('@'));
ruled!(Address, |text| text.parse::<std::net::IpAddr>().is_ok());
ruled!(Day, |text| text.as_bytes().get(4) == Some(&b'-'));
ruled!(Secret, |text| text.len() == 77);

#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Ends", into = "Ends")]
struct Span(Ends);

#[derive(Clone, Serialize, Deserialize)]
struct Ends {
    start: u32,
    end: u32,
}

impl TryFrom<Ends> for Span {
    type Error = &'static str;
    fn try_from(ends: Ends) -> Result<Self, &'static str> {
        if ends.start < ends.end { Ok(Self(ends)) } else { Err("it is empty") }
    }
}

impl From<Span> for Ends {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// Its `Deserialize` panics.
struct Touchy(String);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        assert!(text.starts_with("id-"), "an id begins with id-, and this is {text}");
        Ok(Self(text))
    }
}

/// Its `Serialize` panics.
#[derive(Deserialize)]
struct Mute(u8);

impl Serialize for Mute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 > 200, "{} is not written", self.0);
        serializer.serialize_u8(self.0)
    }
}

#[derive(Serialize, Deserialize)]
enum Never {}

macro_rules! choosy {
    ($module:ident, $codec:literal, $kind:ty, $($field:ident),*) => {
        echo!($module, $codec, {
            #[derive(Serialize, Deserialize)]
            pub(super) struct Thing {
                pub(super) before: Vec<Option<Inner>>,
                pub(super) inner: Inner,
                $(pub(super) $field: u8),*
            }
            #[derive(Serialize, Deserialize)]
            pub(super) enum Inner {
                A { choosy: $kind, n: u16 },
                B(bool, $kind),
                C(Vec<$kind>),
                D { n: i8 },
            }
        });
    };
}

/// Whether with a type whose values are few or cannot be guessed two swapped fields behind it are refused, and all else is
/// known.
macro_rules! knows {
    ($there:ident, $here:ident, $kind:ty, $shape:pat) => {{
        choosy!($there, "postcard", $kind, from, to);
        choosy!($here, "postcard", $kind, to, from);
        let schema = known!($there);
        let Form::Enum(variants) = form(&schema, "Inner") else { panic!("{schema:?}") };
        assert!(matches!(&variants[0].1, Form::Struct(fields) if matches!(fields[0].1, $shape)), "{schema:?}");
        assert!(
            matches!(&variants[0].1, Form::Struct(fields) if fields[1].1 == Shape::Integer { signed: false, bits: 16 }),
            "{schema:?}"
        );
        assert!(matches!(&variants[1].1, Form::Tuple(parts) if matches!(parts[1], $shape)), "{schema:?}");
        assert!(matches!(&variants[3].1, Form::Struct(fields) if fields[0].0 == "n"), "{schema:?}");
        let thing = $here::Thing { before: vec![], inner: $here::Inner::D { n: 1 }, to: 1, from: 2 };
        let differences = differs!($there, $here, thing);
        assert!(differences.contains("arguments.thing has its fields in another order"), "{differences}");
    }};
}

/// What a type takes is its own affair; what it is made of is known before it refuses.
#[test]
fn types_that_take_no_value_that_was_tried_are_known_all_the_same() {
    knows!(mail_there, mail_here, Mail, Shape::Text);
    knows!(span_there, span_here, Span, Shape::Type(_));
    knows!(both_there, both_here, (Address, Day), Shape::Tuple(_));
    knows!(secret_there, secret_here, Secret, Shape::Text);
    knows!(os_there, os_here, std::ffi::OsString, Shape::Type(_));
    knows!(touchy_there, touchy_here, Touchy, Shape::Text);
    knows!(mute_there, mute_here, Mute, Shape::Type(_));
    knows!(never_there, never_here, Result<u8, Never>, Shape::Type(_));
}

echo!(told_apart, "json", {
    #[derive(Serialize, Deserialize)]
    #[serde(tag = "type")]
    pub(super) enum Event {
        Opened { at: u64 },
        Closed,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    pub(super) enum Id {
        Number(u64),
        Text(String),
    }
    #[derive(Serialize, Deserialize)]
    pub(super) struct Flat {
        a: u8,
        #[serde(flatten)]
        more: std::collections::BTreeMap<String, u8>,
    }
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        name: String,
        event: Event,
        ids: Vec<Id>,
        flat: Flat,
        last: bool,
    }
});

/// What says of itself what it is may be anything; the rest of the method is known.
#[test]
fn types_that_ask_what_comes_are_anything_in_a_schema_with_names() {
    let schema = known!(told_apart);
    let Form::Struct(fields) = form(&schema, "Thing") else { panic!("{schema:?}") };
    let fields: Vec<_> = fields.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
    let list = Shape::List(Some(Box::new(Shape::Any)));
    assert_eq!(
        fields,
        [("name", &Shape::Text), ("event", &Shape::Any), ("ids", &list), ("flat", &Shape::Any), ("last", &Shape::Bool)]
    );
}
