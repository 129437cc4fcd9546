//! Types that are large, name one another or refuse what is tried: their methods have schemas all the same, or are refused where
//! nothing would be compared.

use std::fmt;

use bellrope::{
    CallError, Server,
    service::{Form, Schema, Shape},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{EnumAccess, VariantAccess, Visitor},
};

use crate::schemas::schema;

fn form<'s>(schema: &'s Schema, name: &str) -> &'s Form {
    &schema.types.iter().find(|ty| ty.name == name).unwrap().form
}

/// A text that is only taken if it begins so.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Id(String);

impl TryFrom<String> for Id {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.starts_with("id-") { Ok(Self(text)) } else { Err("an id begins with id-") }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Id {}

impl std::hash::Hash for Id {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

macro_rules! with_id {
    ($($module:ident: $thing:item)*) => {$(
        echo!($module, "postcard", {
            #[derive(Serialize, Deserialize)]
            $thing
        });
    )*};
}

with_id! {
    first: pub(super) struct Thing(Id, i64, u64);
    variant: pub(super) enum Thing { Plain(u8), Pair(u8, Id, i64) }
    tuple: pub(super) struct Thing { pairs: Vec<(Id, i64)> }
    alone: pub(super) struct Thing { id: Id, inner: (u8, Option<(Id, u64)>) }
    last: pub(super) struct Thing(i64, u64, Id);
    named: pub(super) struct Thing { id: Id, one: i64, two: u64 }
    array: pub(super) struct Thing { ids: [Id; 3], after: (u8, [Id; 2]) }
    map_here: pub(super) struct Thing { pub(super) by_id: std::collections::HashMap<Id, i64> }
    map_there: pub(super) struct Thing { by_id: std::collections::HashMap<Id, u64> }
}

/// What stands behind such a value in a tuple is never seen, and another version's would be read in its place: `T(Id, i64, u64)`
/// reads 2 and -3 where `T(Id, u64, i64)` has 1 and 5.
#[test]
fn what_is_never_seen_behind_a_value_that_is_refused_is_not_served_without_names() {
    for (error, words) in [
        (refused!(first), "Thing.1 is never read when types are compared, since Thing.0 takes none"),
        (refused!(variant), "Thing.Pair.2 is never read when types are compared, since Thing.Pair.1 takes none"),
        (refused!(tuple), "Thing.pairs[].1 is never read when types are compared, since Thing.pairs[].0 takes none"),
        (refused!(alone), "Thing.inner.1.1 is never read when types are compared, since Thing.inner.1.0 takes none"),
    ] {
        assert!(error.starts_with("the method Echo.echo cannot be served: "), "{error}");
        assert!(error.contains(words), "{error}");
    }
    let integer = |signed| Shape::Integer { signed, bits: 64 };
    assert_eq!(*form(&known!(last), "Thing"), Form::Tuple(vec![integer(true), integer(false), Shape::Text]));
    assert!(matches!(form(&known!(named), "Thing"), Form::Struct(fields) if fields[2].1 == integer(false)));
    // The values of an array have one type.
    let Form::Struct(fields) = form(&known!(array), "Thing").clone() else { panic!("it has fields") };
    assert_eq!(fields[0].1, Shape::Tuple(vec![Shape::Text; 3]));
    // Behind a key that is refused, the value is looked at.
    let thing = map_here::Thing { by_id: std::collections::HashMap::new() };
    let differences = differs!(map_there, map_here, thing);
    assert!(differences.contains("arguments.thing.by_id[] is i64 here and u64 there"), "{differences}");
}

echo!(first_in_json, "json", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(pub(super) Id, pub(super) i64, pub(super) u64);
});

/// With names, the rest of the method is described, and values are what they are.
#[test]
fn a_value_that_is_refused_hides_nothing_with_names() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("echo.sock");
    let _server = Server::builder().service(first_in_json::Host).bind(&path).unwrap();
    let client = first_in_json::EchoBlockingClient::connect(&path).unwrap();
    let thing = client.echo(first_in_json::Thing(Id("id-1".to_owned()), 1, 5), vec![]).unwrap();
    assert_eq!((thing.0.0.as_str(), thing.1, thing.2), ("id-1", 1, 5));
    assert!(matches!(form(&schema(&path, "Echo.echo"), "Thing"), Form::Tuple(parts) if parts[0] == Shape::Text));
}

echo!(behind_a_variant, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Bad {
        #[serde(skip_deserializing)]
        a: String,
        #[serde(skip_serializing)]
        _b: String,
    }
    #[derive(Serialize, Deserialize)]
    pub(super) enum Either {
        Known(Id),
        Other(Bad),
    }
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        maybe: Option<Id>,
        list: Vec<Id>,
        either: Either,
    }
});

/// Where a value that is refused may be missing, or another variant may be in its place, the others are looked at.
#[test]
fn what_may_be_in_place_of_a_value_that_is_refused_is_compared() {
    let error = refused!(behind_a_variant);
    assert!(error.contains("thing.either.Other: the field Bad.a is written and never read"), "{error}");
}

macro_rules! net {
    ($module:ident, $codec:literal, $all:tt, [$($field:ident)*], $($name:ident)*) => {
        echo!($module, $codec, {
            $(net!(@one $name $all);)*
            #[derive(Default, Serialize, Deserialize)]
            pub(super) struct Thing {
                pub(super) root: A,
                $(pub(super) $field: u8),*
            }
        });
    };
    (@one $name:ident ($($other:ident)*)) => {
        #[derive(Default, Serialize, Deserialize)]
        #[expect(non_snake_case, reason = "as the types")]
        pub(super) struct $name {
            $($other: Option<Box<$other>>,)*
            own: Vec<$name>,
        }
    };
}

net!(net_there, "postcard", (A B C D E F G H I J K L M N O P Q R S T), [from to], A B C D E F G H I J K L M N O P Q R S T);
net!(net_here, "postcard", (A B C D E F G H I J K L M N O P Q R S T), [to from], A B C D E F G H I J K L M N O P Q R S T);

type Two<T> = (Lists<T>, Vec<Option<Lists<T>>>);
#[derive(Serialize, Deserialize)]
struct Lists<T> {
    one: Vec<T>,
    two: Vec<T>,
}
type Five<T> = Lists<Lists<Lists<Lists<Lists<T>>>>>;

echo!(nested_lists, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(Five<Five<Five<Five<Five<u16>>>>>, Two<Five<u8>>);
});

/// Types that name one another and lists within lists take no more than a look at each.
#[test]
fn types_that_name_one_another_have_a_schema() {
    let differences = differs!(net_there, net_here, net_here::Thing::default());
    assert!(differences.contains("arguments.thing has its fields in another order"), "{differences}");
    assert_eq!(known!(net_there).types.len(), 22);
    let known = known!(nested_lists);
    assert_eq!(known.types.iter().filter(|ty| ty.name.starts_with("Lists")).count(), 31);
}

/// An enum of so many variants.
struct Many<const COUNT: usize>(u32, u16);

impl<const COUNT: usize> Many<COUNT> {
    fn names() -> &'static [&'static str] {
        static NAMES: std::sync::LazyLock<Vec<&str>> = std::sync::LazyLock::new(|| {
            (0..2_500).map(|number| &*Box::leak(format!("V{number}").into_boxed_str())).collect()
        });
        &NAMES[..COUNT]
    }
}

impl<const COUNT: usize> Serialize for Many<COUNT> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_variant("Many", self.0, Self::names()[self.0 as usize], &self.1)
    }
}

impl<'de, const COUNT: usize> Deserialize<'de> for Many<COUNT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<const COUNT: usize>;
        impl<'de, const COUNT: usize> Visitor<'de> for Any<COUNT> {
            type Value = Many<COUNT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a variant")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Many<COUNT>, A::Error> {
                let (Number(number), variant) = access.variant()?;
                Ok(Many(number, variant.newtype_variant()?))
            }
        }
        deserializer.deserialize_enum("Many", Self::names(), Any::<COUNT>)
    }
}

struct Number(u32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a variant")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number as u32))
            }

            fn visit_u32<E>(self, number: u32) -> Result<Number, E> {
                Ok(Number(number))
            }
        }
        deserializer.deserialize_identifier(Any)
    }
}

echo!(many, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        pub(super) one: Many<2500>,
        pub(super) all: Vec<Many<2500>>,
    }
});
echo!(one_less, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        pub(super) one: Many<2499>,
        pub(super) all: Vec<Many<2499>>,
    }
});

#[test]
fn an_enum_of_thousands_of_variants_has_a_schema() {
    let differences = differs!(many, one_less, one_less::Thing { one: Many(5, 5), all: vec![] });
    assert_eq!(differences, "the variant arguments.thing.one.V2499 is only there");
}

#[derive(Serialize, Deserialize)]
enum Left {
    Further(Box<Right>),
    Also(Box<Left>, Box<Right>),
    End,
}

#[derive(Serialize, Deserialize)]
enum Right {
    Back(Box<Left>),
}

/// Its list is never empty.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
struct Some1(Vec<u32>);

impl TryFrom<Vec<u32>> for Some1 {
    type Error = &'static str;
    fn try_from(list: Vec<u32>) -> Result<Self, &'static str> {
        if list.is_empty() { Err("it is empty") } else { Ok(Self(list)) }
    }
}

impl From<Some1> for Vec<u32> {
    fn from(some: Some1) -> Self {
        some.0
    }
}

/// It takes one of several variants.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Kind", into = "Kind")]
struct Third(Kind);

#[derive(Clone, Serialize, Deserialize)]
enum Kind {
    A(u8),
    B { b: u8 },
    C(u16, u16),
}

impl TryFrom<Kind> for Third {
    type Error = &'static str;
    fn try_from(kind: Kind) -> Result<Self, &'static str> {
        if matches!(kind, Kind::C(..)) { Ok(Self(kind)) } else { Err("it is not the third") }
    }
}

impl From<Third> for Kind {
    fn from(third: Third) -> Self {
        third.0
    }
}

echo!(stuck, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Inner {
        some: Some1,
        third: Third,
        again: Option<Box<Inner>>,
    }
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        left: Left,
        right: Right,
        one: Inner,
        two: Inner,
        after: u16,
    }
});

/// An enum ends by its shortest way, and where a short value is refused a whole one is read.
#[test]
fn a_type_that_is_stuck_takes_another_way() {
    let schema = known!(stuck);
    assert!(matches!(form(&schema, "Left"), Form::Enum(variants) if variants.len() == 3));
    assert!(matches!(form(&schema, "Right"), Form::Enum(variants) if variants.len() == 1));
    let integers = Form::Tuple(vec![Shape::Integer { signed: false, bits: 16 }; 2]);
    assert!(matches!(form(&schema, "Kind"), Form::Enum(variants) if variants[2].1 == integers));
    let Form::Struct(fields) = form(&schema, "Thing") else { panic!("{schema:?}") };
    assert_eq!(fields[4], ("after".to_owned(), Shape::Integer { signed: false, bits: 16 }));
}

mod texts {
    use super::*;

    pub(super) fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&number.to_string())
    }

    pub(super) fn as_two<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        (*number, *number).serialize(serializer)
    }

    pub(super) fn as_some<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_some(number)
    }
}

echo!(text_for_number, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing {
        a: u8,
        #[serde(serialize_with = "texts::as_text")]
        b: u64,
    }
});
echo!(two_for_one, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) enum Thing {
        A(#[serde(serialize_with = "texts::as_two")] u64),
    }
});
echo!(some_for_float, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Thing(u8, #[serde(serialize_with = "texts::as_some")] f64);
});

#[test]
fn kinds_that_differ_are_refused_with_field_and_attribute() {
    for (error, words) in [
        (refused!(text_for_number), "thing.b: it is written as a text, bytes or a list and read as a number"),
        (refused!(two_for_one), "thing.A: it is written as several parts and read as a number"),
        (refused!(some_for_float), "thing[1]: it is written as an option and read as a floating-point number"),
    ] {
        assert!(error.contains(words) && error.contains("serialize_with"), "{error}");
    }
}
