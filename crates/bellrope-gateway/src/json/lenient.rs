//! Parts of a document, each read by itself, so that an odd one costs no other.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::piece::TextPiece;

/// The values of an object's fields, in the order of `names`; `None` if it is no object. Null counts as absent, and of
/// a field that comes twice the last value counts.
pub(crate) fn fields<'a, const N: usize>(object: &'a RawValue, names: [&str; N]) -> Option<[Option<&'a RawValue>; N]> {
    fields_and(object, names, |_, _| {})
}

/// As [`fields`]; `other` gets what has none of the names, nulls left out.
pub(crate) fn fields_and<'a, const N: usize>(
    object: &'a RawValue,
    names: [&str; N],
    other: impl FnMut(&str, &'a RawValue),
) -> Option<[Option<&'a RawValue>; N]> {
    struct Fields<'n, F, const N: usize> {
        names: [&'n str; N],
        other: F,
    }

    impl<'a, F: FnMut(&str, &'a RawValue), const N: usize> Visitor<'a> for Fields<'_, F, N> {
        type Value = [Option<&'a RawValue>; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                if value.get() == "null" {
                    continue;
                }
                let escaped = if name.get().contains('\\') { TextPiece::of(name).map(TextPiece::alone) } else { None };
                let name = escaped.as_deref().unwrap_or_else(|| name.get().trim_matches('"'));
                match self.names.iter().position(|known| *known == name) {
                    Some(at) => found[at] = Some(value),
                    None => (self.other)(name, value),
                }
            }
            Ok(found)
        }
    }

    serde_json::Deserializer::from_str(object.get()).deserialize_map(Fields { names, other }).ok()
}

/// Shows the elements of a list to `visit`, one by one, with their places, until it fails. Nothing is kept, however long
/// the list is. `false` if it is no list.
pub(crate) fn each<'a, E>(
    list: &'a RawValue,
    visit: impl FnMut(usize, &'a RawValue) -> Result<(), E>,
) -> Result<bool, E> {
    struct Each<F, E> {
        visit: F,
        failed: Option<E>,
    }

    impl<'a, F: FnMut(usize, &'a RawValue) -> Result<(), E>, E> Visitor<'a> for &mut Each<F, E> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
            let mut at = 0;
            while let Some(element) = elements.next_element()? {
                if let Err(error) = (self.visit)(at, element) {
                    self.failed = Some(error);
                    return Err(A::Error::custom("stopped"));
                }
                at += 1;
            }
            Ok(())
        }
    }

    let mut each = Each { visit, failed: None };
    let is_list = serde_json::Deserializer::from_str(list.get()).deserialize_seq(&mut each).is_ok();
    each.failed.map_or(Ok(is_list), Err)
}

/// Words in a string, or a number or boolean as it is written; nothing for an empty string and for other types.
pub(crate) fn words(value: &RawValue) -> Option<String> {
    let text = match value.get().as_bytes() {
        [b'"', ..] => TextPiece::of(value)?.alone(),
        [b'{' | b'[' | b'n', ..] | [] => return None,
        _ => value.get().to_owned(),
    };
    Some(text).filter(|text| !text.trim().is_empty())
}

/// A count, also as a string or with a fraction, which is cut off. Nothing for what is negative, too large or another
/// type.
pub(crate) fn count(value: &RawValue) -> Option<u64> {
    let text = words(value)?;
    let text = text.trim();
    text.parse().ok().or_else(|| format!("{:.0}", number_in(text)?.trunc()).parse().ok())
}

/// A number that is not negative, also as a string.
pub(crate) fn amount(value: &RawValue) -> Option<f64> {
    number(value).filter(|amount| *amount >= 0.0)
}

/// A number, also as a string.
pub(crate) fn number(value: &RawValue) -> Option<f64> {
    number_in(words(value)?.trim())
}

fn number_in(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether a value says nothing: null, `false`, 0, an empty string, list or object.
pub(crate) fn is_nothing(value: &RawValue) -> bool {
    match value.get().as_bytes() {
        [b'{' | b'[', inner @ .., _] => inner.iter().all(u8::is_ascii_whitespace),
        [b'n' | b'f', ..] => true,
        [b'"', ..] => words(value).is_none(),
        [b't', ..] => false,
        _ => number(value) == Some(0.0),
    }
}

/// A list of at most `N` elements; a longer one is an error. The text of an element can be far smaller than the element,
/// so a bound on the text alone would be none.
#[derive(Debug)]
pub(crate) struct Few<T, const N: usize>(Vec<T>);

impl<T, const N: usize> IntoIterator for Few<T, N> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FewVisitor<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for FewVisitor<T, N> {
            type Value = Few<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut few = Vec::new();
                while let Some(element) = elements.next_element()? {
                    if few.len() == N {
                        return Err(A::Error::invalid_length(N + 1, &self));
                    }
                    few.push(element);
                }
                Ok(Few(few))
            }
        }

        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::super::repair::raw;
    use super::*;

    #[test]
    fn a_list_is_bounded_by_its_elements() {
        let few: Few<u8, 3> = serde_json::from_str("[1,2,3]").unwrap();
        assert_eq!(few.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
        let error = serde_json::from_str::<Few<u8, 3>>("[1,2,3,4]").unwrap_err();
        assert!(error.to_string().contains("a list of at most 3 elements"), "{error}");
    }

    #[test]
    fn numbers_are_read_as_far_as_they_can_be() {
        for (json, read_count, read_amount) in [
            ("7", Some(7), Some(7.0)),
            (r#"" 7 ""#, Some(7), Some(7.0)),
            ("1.75", Some(1), Some(1.75)),
            (r#""2.5""#, Some(2), Some(2.5)),
            ("1e2", Some(100), Some(100.0)),
            ("-7", None, None),
            ("1e30", None, Some(1e30)),
            ("18446744073709551616", None, Some(18_446_744_073_709_551_616.0)),
            ("1e999", None, None),
            (r#""nan""#, None, None),
            ("true", None, None),
            ("{\"a\":1}", None, None),
            ("null", None, None),
        ] {
            let read = raw(json, |value| (count(value), amount(value))).unwrap();
            assert_eq!(read, (read_count, read_amount), "{json}");
        }
    }

    #[test]
    fn fields_are_found_whatever_else_an_object_holds() {
        let json = r#"{"a":1,"\u0062":"x","a":2,"\ud83d":[],"c":null,"d":3}"#;
        raw(json, |object| {
            let mut others = Vec::new();
            let found = fields_and(object, ["a", "b", "c"], |name, value| others.push((name.to_owned(), value.get())));
            let found = found.unwrap().map(|value| value.map(RawValue::get));
            assert_eq!(found, [Some("2"), Some("\"x\""), None]);
            assert_eq!(others, [("\u{fffd}".to_owned(), "[]"), ("d".to_owned(), "3")]);
        })
        .unwrap();
        assert!(raw("[]", |list| fields(list, ["a"]).is_none()).unwrap());
    }

    #[test]
    fn a_list_is_shown_until_the_visitor_has_enough() {
        let seen = |json: &str, enough: usize| {
            let mut seen = 0;
            let result = raw(json, |list| {
                each(list, |at, _| {
                    seen += 1;
                    if at == enough { Err("enough") } else { Ok(()) }
                })
            });
            (result.unwrap(), seen)
        };
        assert_eq!(seen("[1,2,3]", 9), (Ok(true), 3));
        assert_eq!(seen("[1,2,3]", 1), (Err("enough"), 2));
        assert_eq!(seen("{}", 1), (Ok(false), 0));
    }

    #[test]
    fn what_says_nothing_is_told_from_what_says_something() {
        for (json, nothing) in [
            ("null", true),
            ("false", true),
            ("0", true),
            ("0.0", true),
            ("\"\"", true),
            ("\"  \"", true),
            ("{ }", true),
            ("[]", true),
            ("true", false),
            ("1", false),
            ("\"0\"", false),
            ("[0]", false),
        ] {
            assert_eq!(raw(json, is_nothing).unwrap(), nothing, "{json}");
        }
    }
}
