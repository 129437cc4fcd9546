//! Reading fields of a request that programs write in more than one way: a number as text or with a fraction, a list as
//! its only element, null for what is absent.
//!
//! Both ways into the gateway read with these: `ai.*` and the formats of tools.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::{MAX_DEPTH, MAX_TREE, depth, repaired};

/// A value; its default for null.
///
/// # Errors
/// It is something else.
pub fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A name. Null and a text of nothing stand for none.
///
/// # Errors
/// It is no text.
pub fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|name| !name.trim().is_empty()))
}

/// The arguments of a call of a tool: any value. A list or an object of more than 256 bytes is kept as a string that holds
/// its text, as arguments may be: a tree of it could take a hundred times as much memory.
///
/// # Errors
/// Its lists and objects lie deeper in one another than any reader takes.
pub fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let json = Box::<RawValue>::deserialize(deserializer)?;
    if json.get().len() <= MAX_TREE || !json.get().starts_with(['{', '[']) {
        return serde_json::from_str(json.get()).map_err(D::Error::custom);
    }
    if depth(json.get().as_bytes()) > MAX_DEPTH {
        return Err(D::Error::custom("the arguments of a call of a tool lie too deep in one another"));
    }
    Ok(match repaired(json.get()) {
        std::borrow::Cow::Owned(repaired) => repaired.into(),
        std::borrow::Cow::Borrowed(_) => String::from(Box::<str>::from(json)).into(),
    })
}

/// A number, written as one or as text. Nothing for null.
///
/// # Errors
/// It is no finite number.
pub fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    deserializer.deserialize_any(NumberVisitor)
}

/// A whole number, which may be written with a fraction or as text. A fraction is cut off.
///
/// # Errors
/// It is no finite number.
#[expect(clippy::cast_possible_truncation, reason = "a cast to whole numbers saturates")]
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_any(WholeVisitor).map(|number| {
        number.map(|number| match number {
            Whole::Exact(number) => number,
            Whole::Rounded(number) => number as i64,
        })
    })
}

/// A count of one or more, written in any of these ways. Nothing for null, 0 and less: many programs write -1 for "no
/// bound". One that is too large is the largest.
///
/// # Errors
/// It is no finite number.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(whole(deserializer)?.filter(|count| *count > 0).map(|count| count.try_into().unwrap_or(u32::MAX)))
}

/// Texts: a list, a text that stands for a list of one, null for none. Empty ones and nulls count as absent.
///
/// # Errors
/// It is something else.
pub fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;

    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            let list = Vec::<Option<String>>::deserialize(SeqAccessDeserializer::new(list))?;
            Ok(list.into_iter().flatten().filter(|text| !text.is_empty()).collect())
        }
    }

    deserializer.deserialize_any(Texts)
}

struct NumberVisitor;
struct WholeVisitor;

enum Whole {
    Exact(i64),
    Rounded(f64),
}

/// The methods of a visitor that takes numbers in any spelling. `$exact`: what makes a result of a whole number.
macro_rules! number_visitor {
    ($expecting:literal, $value:ty, $exact:expr, $rounded:expr) => {
        type Value = Option<$value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($expecting)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some($exact(number)))
        }

        fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some($exact(number.try_into().unwrap_or(i64::MAX))))
        }

        fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
            Ok(Some($rounded(number)))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            let text = text.trim();
            if text.is_empty() {
                return Ok(None);
            }
            if let Ok(number) = text.parse::<i64>() {
                return Ok(Some($exact(number)));
            }
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number
                .map(|number| Some($rounded(number)))
                .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    };
}

#[expect(clippy::cast_precision_loss, reason = "what is that large is out of every range")]
impl Visitor<'_> for NumberVisitor {
    number_visitor! { "a number", f64, |number: i64| number as f64, |number| number }
}

impl Visitor<'_> for WholeVisitor {
    number_visitor! { "a whole number", Whole, Whole::Exact, Whole::Rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Read {
        #[serde(deserialize_with = "number")]
        number: Option<f64>,
        #[serde(deserialize_with = "whole")]
        whole: Option<i64>,
        #[serde(deserialize_with = "count")]
        count: Option<u32>,
        #[serde(deserialize_with = "texts")]
        texts: Vec<String>,
        #[serde(deserialize_with = "or_default")]
        list: Vec<u8>,
    }

    fn read(json: &str) -> Read {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"))
    }

    // Fault 74.
    #[test]
    fn a_number_may_be_written_in_any_way_that_programs_write_it() {
        for (written, number, whole, count) in [
            ("100", Some(100.0), Some(100), Some(100)),
            ("100.0", Some(100.0), Some(100), Some(100)),
            ("\"100\"", Some(100.0), Some(100), Some(100)),
            ("\" 1.5 \"", Some(1.5), Some(1), Some(1)),
            ("-1", Some(-1.0), Some(-1), None),
            ("0", Some(0.0), Some(0), None),
            ("0.7", Some(0.7), Some(0), None),
            ("null", None, None, None),
            ("\"\"", None, None, None),
            ("1e12", Some(1e12), Some(1_000_000_000_000), Some(u32::MAX)),
            ("99999999999999999999", Some(99_999_999_999_999_999_999.0), Some(i64::MAX), Some(u32::MAX)),
        ] {
            let read = read(&format!(r#"{{"number":{written},"whole":{written},"count":{written}}}"#));
            assert_eq!((read.number, read.whole, read.count), (number, whole, count), "{written}");
        }
        for written in ["\"many\"", "true", "[1]", "\"inf\"", "\"NaN\""] {
            for field in ["number", "whole", "count"] {
                assert!(serde_json::from_str::<Read>(&format!(r#"{{"{field}":{written}}}"#)).is_err(), "{written}");
            }
        }
    }

    #[test]
    fn a_list_may_be_its_only_element_or_null() {
        for (written, expected) in
            [("\"a\"", &["a"][..]), ("[\"a\",null,\"\",\"b\"]", &["a", "b"]), ("null", &[]), ("[]", &[]), ("\"\"", &[])]
        {
            assert_eq!(read(&format!(r#"{{"texts":{written}}}"#)).texts, expected, "{written}");
        }
        assert!(read(r#"{"list":null}"#).list.is_empty());
        assert!(serde_json::from_str::<Read>(r#"{"texts":7}"#).is_err());
    }
}
