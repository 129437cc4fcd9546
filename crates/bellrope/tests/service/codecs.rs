//! Both codecs: what is written is read as the same value, or is an error where it is written.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt::Debug,
};

use bellrope::service::{Bytes, Codec, CodecError, Json, Postcard};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) fn written<C: Codec>(value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    C::encode(value, &mut bytes)?;
    Ok(bytes)
}

pub(crate) fn there_and_back<C: Codec, T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = written::<C>(value).unwrap_or_else(|error| panic!("{}: {value:?}: {error}", C::NAME));
    let back: T = C::decode(&bytes).unwrap_or_else(|error| {
        panic!("{}: {value:?} as {:?}: {error}", C::NAME, String::from_utf8_lossy(&bytes));
    });
    assert_eq!(back, *value, "{}: {:?}", C::NAME, String::from_utf8_lossy(&bytes));
}

fn both<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    there_and_back::<Json, T>(value);
    there_and_back::<Postcard, T>(value);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Form {
    Plain,
    One(u64),
    Two(String, bool),
    Named { first: u8, second: Option<Box<Form>> },
    Empty {},
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Key {
    Low,
    #[serde(rename = "so high")]
    High,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    unit: (),
    unit_struct: Unit,
    wrapped: Wrapped,
    tuple: (i8, i16, i32, i64, i128),
    unsigned: (u8, u16, u32, u64, u128),
    floats: (f32, f64),
    text: String,
    letter: char,
    flag: bool,
    some: Option<String>,
    none: Option<String>,
    list: Vec<Form>,
    array: [u16; 3],
    by_text: BTreeMap<String, u64>,
    by_number: BTreeMap<u64, Form>,
    by_signed: HashMap<i64, u8>,
    by_flag: BTreeMap<bool, String>,
    by_letter: BTreeMap<char, u8>,
    by_variant: BTreeMap<Key, Vec<Key>>,
    bytes: Bytes<'static>,
}

fn random_text() -> String {
    let letters = ['a', '"', '\\', '\n', '\u{0}', '\u{7f}', 'ß', '語', '🔔', '/', '\u{2028}'];
    (0..fastrand::usize(..12)).map(|_| letters[fastrand::usize(..letters.len())]).collect()
}

fn random_form(depth: usize) -> Form {
    match fastrand::u8(..5) {
        0 => Form::Plain,
        1 => Form::One(fastrand::u64(..)),
        2 => Form::Two(random_text(), fastrand::bool()),
        3 => Form::Named { first: fastrand::u8(..), second: (depth > 0).then(|| Box::new(random_form(depth - 1))) },
        _ => Form::Empty {},
    }
}

fn random_float() -> f64 {
    loop {
        let float = f64::from_bits(fastrand::u64(..));
        if float.is_finite() {
            return float;
        }
    }
}

fn random_single() -> f32 {
    loop {
        let float = f32::from_bits(fastrand::u32(..));
        if float.is_finite() {
            return float;
        }
    }
}

fn random() -> Everything {
    let some = |n: usize| 0..fastrand::usize(..n);
    Everything {
        unit: (),
        unit_struct: Unit,
        wrapped: Wrapped(fastrand::u64(..)),
        tuple: (fastrand::i8(..), fastrand::i16(..), fastrand::i32(..), fastrand::i64(..), fastrand::i128(..)),
        unsigned: (fastrand::u8(..), fastrand::u16(..), fastrand::u32(..), fastrand::u64(..), fastrand::u128(..)),
        floats: (random_single(), random_float()),
        text: random_text(),
        letter: fastrand::char(..),
        flag: fastrand::bool(),
        some: Some(random_text()),
        none: None,
        list: some(4).map(|_| random_form(3)).collect(),
        array: [fastrand::u16(..), 0, u16::MAX],
        by_text: some(4).map(|_| (random_text(), fastrand::u64(..))).collect(),
        by_number: some(4).map(|_| (fastrand::u64(..), random_form(1))).collect(),
        by_signed: some(4).map(|_| (fastrand::i64(..), 1)).collect(),
        by_flag: some(3).map(|at| (at == 0, random_text())).collect(),
        by_letter: some(4).map(|_| (fastrand::char(..), 9)).collect(),
        by_variant: some(3).map(|at| (if at == 0 { Key::Low } else { Key::High }, vec![Key::High])).collect(),
        bytes: some(9).map(|_| fastrand::u8(..)).collect::<Vec<u8>>().into(),
    }
}

#[test]
fn whatever_is_written_is_read_as_the_same_value() {
    for _ in 0..500 {
        both(&random());
    }
    for value in [0, 1, i64::MIN, i64::MAX, -1, -64, 64, 1 << 53, (1 << 53) + 1] {
        both(&value);
        both(&(value as u64));
    }
    both(&[i128::MIN, i128::MAX]);
    both(&[0.0, -0.0, f64::MIN_POSITIVE, f64::MAX, 5e-324, 0.1 + 0.2].map(f64::to_bits).map(f64::from_bits));
    assert!(Json::decode::<f64>(&written::<Json>(&-0.0_f64).unwrap()).unwrap().is_sign_negative());
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let back: f64 = Postcard::decode(&written::<Postcard>(&value).unwrap()).unwrap();
        assert_eq!(back.to_bits(), value.to_bits());
    }
}

/// The bytes are those of the crate of that name: what it writes is read, and the other way round.
#[test]
fn postcard_is_the_format_of_the_crate_postcard() {
    for _ in 0..500 {
        let value = random();
        let bytes = written::<Postcard>(&value).unwrap();
        assert_eq!(bytes, postcard::to_allocvec(&value).unwrap(), "{value:?}");
        assert_eq!(postcard::from_bytes::<Everything>(&bytes).unwrap(), value);
    }
}

#[test]
fn json_is_that_of_serde_json() {
    for _ in 0..200 {
        let value = random();
        let bytes = written::<Json>(&value).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), serde_json::to_string(&value).unwrap());
    }
}

#[test]
fn what_json_cannot_say_is_an_error_where_it_is_written() {
    #[derive(Serialize)]
    struct Reading {
        at: &'static str,
        values: Vec<f64>,
    }
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let reading = Reading { at: "x", values: vec![0.0, float] };
        let error = written::<Json>(&reading).unwrap_err();
        assert_eq!(error.place(), "values[1]");
        assert!(error.fault().starts_with("JSON has no "), "{error}");
        written::<Json>(&(float as f32)).unwrap_err();
        written::<Json>(&Some(float)).unwrap_err();
        written::<Json>(&BTreeMap::from([("x", float)])).unwrap_err();
    }
    assert!(written::<Json>(&Some(None::<u8>)).unwrap_err().fault().contains("cannot tell nothing"));
    written::<Json>(&Some(())).unwrap_err();
    written::<Json>(&Some(Wrapped2(None))).unwrap_err();
    written::<Json>(&Some(serde_json::Value::Null)).unwrap_err();
    assert_eq!(written::<Json>(&Some([None::<u8>])).unwrap(), b"[null]");
    assert_eq!(written::<Json>(&(None::<u8>, Some(1))).unwrap(), b"[null,1]");
    for error in [
        written::<Json>(&HashMap::from([((1, 2), 3)])),
        written::<Json>(&HashMap::from([(Some("x"), 3)])),
        written::<Json>(&HashMap::from([(vec![0_u8], 3)])),
    ] {
        assert!(error.unwrap_err().fault().starts_with("a key of a map must be"));
    }
}

#[derive(Serialize)]
struct Wrapped2(Option<u8>);

#[test]
fn borrowed_text_with_escapes_is_read_and_plain_text_is_not_copied() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        text: Cow<'a, str>,
    }
    let plain = written::<Json>(&Said { text: "plain".into() }).unwrap();
    assert!(matches!(Json::decode::<Said>(&plain).unwrap().text, Cow::Borrowed("plain")));
    let escaped = written::<Json>(&Said { text: "\"\n\u{1}".into() }).unwrap();
    assert_eq!(Json::decode::<Said>(&escaped).unwrap().text, "\"\n\u{1}");
    let any = written::<Postcard>(&Said { text: "\"\n\u{1}".into() }).unwrap();
    assert!(matches!(Postcard::decode::<Said>(&any).unwrap().text, Cow::Borrowed("\"\n\u{1}")));
    // What can only be borrowed is an error, never half a text.
    let error = Json::decode::<(&str,)>(br#"["a\n"]"#).unwrap_err();
    assert!(error.to_string().contains("[0]: invalid type: string \"a\\n\", expected a borrowed string"), "{error}");
}

#[test]
fn bytes_are_base64_in_json_and_bytes_in_postcard() {
    for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xFF\xFE\xFD", "//79")]
    {
        let value = Bytes::from(bytes);
        assert_eq!(written::<Json>(&value).unwrap(), format!("\"{text}\"").as_bytes());
        both(&Bytes::from(bytes.to_vec()));
        let as_postcard = written::<Postcard>(&value).unwrap();
        assert_eq!(as_postcard[1..], *bytes);
        assert_eq!(*Postcard::decode::<Bytes>(&as_postcard).unwrap(), *bytes);
    }
    for text in ["A", "AA", "AAA", "A===", "AB==", "AAB=", "====", "Zg==Zg==", "Z g=", "Zg=\\n", "Zm9v\u{e9}abc"] {
        let error = Json::decode::<Bytes>(format!("\"{text}\"").as_bytes()).unwrap_err();
        assert!(error.fault().contains("base64"), "{text}: {error}");
    }
}

/// A field that is left out, or whose form depends on what comes, is an error with a codec without names. It is never
/// another value.
#[test]
fn attributes_of_serde_work_or_are_refused() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Renamed {
        #[serde(rename = "b", alias = "c")]
        a: u8,
        #[serde(skip)]
        cache: u8,
        #[serde(default)]
        later: u16,
    }
    both(&Renamed { a: 1, cache: 0, later: 3 });

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Transparent {
        inner: u64,
    }
    both(&Transparent { inner: u64::MAX });

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Optional {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<u8>,
        second: u8,
    }
    there_and_back::<Json, _>(&Optional { first: None, second: 5 });
    both(&Optional { first: Some(1), second: 5 });
    let error = written::<Postcard>(&[Optional { first: None, second: 5 }]).unwrap_err();
    assert_eq!(error.place(), "[0].first");
    assert!(error.fault().contains("skip_serializing_if"), "{error}");

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Transparent3,
        own: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Transparent3 {
        x: u8,
    }
    let flat = Flat { inner: Transparent3 { x: 1 }, own: 2 };
    there_and_back::<Json, _>(&flat);
    assert!(written::<Postcard>(&flat).unwrap_err().fault().contains("flatten"));
    assert!(Postcard::decode::<Flat>(&[1, 2]).is_err());

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
        Text(String),
    }
    there_and_back::<Json, _>(&vec![Untagged::Number(1), Untagged::Text("1".to_owned())]);
    assert!(Postcard::decode::<Untagged>(&written::<Postcard>(&Untagged::Number(1)).unwrap()).is_err());

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Number { value: u8 },
    }
    there_and_back::<Json, _>(&Tagged::Number { value: 1 });
    assert!(Postcard::decode::<Tagged>(&written::<Postcard>(&Tagged::Number { value: 1 }).unwrap()).is_err());

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "value")]
    enum Adjacent {
        Number(u8),
        Text(String),
    }
    there_and_back::<Json, _>(&Adjacent::Text("x".to_owned()));
    for value in [Adjacent::Number(1), Adjacent::Text("x".to_owned())] {
        let back = Postcard::decode::<Adjacent>(&written::<Postcard>(&value).unwrap());
        assert!(back.is_err() || back.unwrap() == value);
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(try_from = "u8", into = "u8")]
    struct Even(u8);
    impl TryFrom<u8> for Even {
        type Error = &'static str;
        fn try_from(number: u8) -> Result<Self, &'static str> {
            if number % 2 == 0 { Ok(Self(number)) } else { Err("odd") }
        }
    }
    impl From<Even> for u8 {
        fn from(even: Even) -> u8 {
            even.0
        }
    }
    impl Clone for Even {
        fn clone(&self) -> Self {
            Self(self.0)
        }
    }
    both(&Even(4));
    // What a type itself refuses, serde_json gives no place.
    assert_eq!(Json::decode::<Vec<Even>>(b"[2,3]").unwrap_err().fault(), "odd at line 1 column 5");
    assert_eq!(Postcard::decode::<Vec<Even>>(&[2, 2, 3]).unwrap_err().place(), "[1]");
}

/// What serde itself cannot read back: maps with keys that are no texts, inside of what is read before its type is known.
#[test]
fn numbers_as_keys_inside_of_tagged_types_are_read_or_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Map { by_number: BTreeMap<u64, u8>, by_flag: BTreeMap<bool, u8>, by_variant: BTreeMap<Key, u8> },
    }
    let value = Tagged::Map {
        by_number: BTreeMap::from([(u64::MAX, 1)]),
        by_flag: BTreeMap::from([(true, 1)]),
        by_variant: BTreeMap::from([(Key::High, 2)]),
    };
    match Json::decode::<Tagged>(&written::<Json>(&value).unwrap()) {
        Ok(back) => assert_eq!(back, value),
        Err(error) => assert!(error.fault().starts_with("invalid type: string"), "{error}"),
    }
}

/// No length that a peer names makes the reader allocate or loop for more than the bytes that are there.
#[test]
fn lengths_are_bounded_by_the_bytes_that_are_there() {
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    for error in [
        Postcard::decode::<Vec<u64>>(&huge).unwrap_err(),
        Postcard::decode::<Vec<()>>(&huge).unwrap_err(),
        Postcard::decode::<String>(&huge).unwrap_err(),
        Postcard::decode::<Bytes>(&huge).unwrap_err(),
        Postcard::decode::<BTreeMap<u8, ()>>(&huge).unwrap_err(),
    ] {
        assert!(error.fault().starts_with("18446744073709551615 elements cannot be"), "{error}");
    }
    assert!(written::<Postcard>(&[(); 3].to_vec()).unwrap_err().fault().contains("take no bytes"));
    written::<Postcard>(&[(); 3]).unwrap();
    both(&Vec::<()>::new());
    for (bytes, fault) in [
        (&[0x80; 11][..], "more than 64 bits"),
        (&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02], "more than 64 bits"),
        (&[0x80], "end before"),
        (&[], "end before"),
    ] {
        assert!(Postcard::decode::<u64>(bytes).unwrap_err().fault().contains(fault), "{bytes:?}");
    }
    assert!(Postcard::decode::<u16>(&[0xFF, 0xFF, 0x04]).unwrap_err().fault().contains("16 bits"));
    assert_eq!(Postcard::decode::<u16>(&[0xFF, 0xFF, 0x03]).unwrap(), u16::MAX);
    assert!(Postcard::decode::<bool>(&[2]).is_err());
    assert!(Postcard::decode::<Option<u8>>(&[2, 0]).is_err());
    assert!(Postcard::decode::<char>(&[2, b'a', b'b']).is_err());
    assert!(Postcard::decode::<String>(&[1, 0xFF]).is_err());
    let unknown = Postcard::decode::<Key>(&[7]).unwrap_err();
    assert_eq!(unknown.fault(), "unknown variant number 7; known are Low, so high");
}

/// JSON is UTF-8, in what is passed over as well; where it is not, that has a place.
#[test]
fn json_that_is_no_text_is_refused_with_its_place() {
    #[derive(Debug, Deserialize)]
    struct Named {
        #[expect(dead_code, reason = "it is read")]
        name: String,
    }
    let error = Json::decode::<Vec<Named>>(b"[{\"name\":\"a\"},{\"name\":\"b\xFF\"}]").unwrap_err();
    assert_eq!((error.place().as_str(), error.fault()), ("[1].name", "byte 24 is not UTF-8, which JSON is"));
    assert!(Json::decode::<Vec<Named>>(b"[{\"name\":\"a\",\"other\":\"\xC3\"}]").is_err());
    assert!(Json::decode::<u8>(b"\xFF").unwrap_err().place().is_empty());
}

/// The names of fields are written in one piece if they are short and plain, and as serde_json writes them if not.
#[test]
fn names_of_fields_of_any_length_and_letters_are_written_as_by_serde_json() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Names {
        a: u8,
        #[serde(rename = "\"\\\n\u{1}")]
        escaped: u8,
        #[serde(rename = "é ü")]
        accents: u8,
        twenty_eight_letters_are_all_: u8,
        twenty_nine_letters_and_more_x: u8,
        #[serde(rename = "")]
        empty: u8,
        inner: Option<Box<Names>>,
    }
    let names = |inner| Names {
        a: 1,
        escaped: 2,
        accents: 3,
        twenty_eight_letters_are_all_: 4,
        twenty_nine_letters_and_more_x: 5,
        empty: 6,
        inner,
    };
    let value = names(Some(Box::new(names(None))));
    both(&value);
    assert_eq!(written::<Json>(&value).unwrap(), serde_json::to_vec(&value).unwrap());
}

/// Whatever comes, it is a value or an error: no panic, no endless loop, and what is quoted is bounded.
#[test]
fn any_bytes_are_a_value_or_an_error() {
    for _ in 0..2_000 {
        let value = random();
        for (mut bytes, json) in
            [(written::<Postcard>(&value).unwrap(), false), (written::<Json>(&value).unwrap(), true)]
        {
            for _ in 0..=fastrand::usize(..4) {
                let at = fastrand::usize(..bytes.len());
                match fastrand::u8(..3) {
                    0 => bytes[at] = fastrand::u8(..),
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, fastrand::u8(..)),
                }
            }
            let error = if json {
                Json::decode::<Everything>(&bytes).err()
            } else {
                Postcard::decode::<Everything>(&bytes).err()
            };
            assert!(error.is_none_or(|error| error.to_string().len() < 3_000));
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Id {
    Flag(bool),
    Number(u64),
    Text(String),
}

/// A key that is there twice would be read once.
#[test]
fn keys_that_are_one_text_in_json_are_an_error_where_they_are_written() {
    let id = |number| (Id::Number(number), 1);
    let text = |text: &str| (Id::Text(text.to_owned()), 2);
    let map = |entries: Vec<(Id, u8)>| -> Result<Vec<u8>, CodecError> {
        written::<Json>(&entries.into_iter().collect::<BTreeMap<_, _>>())
    };
    for twice in [
        vec![id(1), text("1")],
        vec![id(7), id(8), id(9), text("a"), text("8")],
        vec![(Id::Flag(true), 1), text("true")],
    ] {
        let error = map(twice).unwrap_err().to_string();
        assert!(error.contains("two keys of the map are one text in JSON"), "{error}");
    }
    assert_eq!(map(vec![id(1), text("01"), text("a"), text("2")]).unwrap(), br#"{"1":1,"01":2,"2":2,"a":2}"#);
}
