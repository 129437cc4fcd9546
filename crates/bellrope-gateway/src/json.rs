//! Reading JSON that others wrote: nothing that a string holds is lost, and no sender chooses how much memory it takes.
//!
//! JSON allows strings that Rust's cannot hold: half of a surrogate pair (`"\ud83d"`), which a writer that cuts text at
//! UTF-16 units sends. serde refuses the whole document for it. Every document of a client, an editor, a provider or a
//! file is therefore read by [`from_slice`] or [`from_str`]: half a pair becomes U+FFFD, like bytes that are not UTF-8.

mod repair;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use repair::{from_slice, from_str, repaired};

/// A list of at most `N` elements; a longer one is an error. The text of an element can be far smaller than the element,
/// so a bound on the text alone would be none.
#[derive(Debug)]
pub(crate) struct Few<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

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

/// Text that says something; nothing for null, an empty string or another type.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(string_of(raw).filter(|text| !text.is_empty()))
}

/// A count; nothing for null or another type.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(<&RawValue>::deserialize(deserializer)?.get().parse().ok())
}

/// The text of a JSON string.
pub(crate) fn string_of(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| from_str(raw.get()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Lenient {
        #[serde(default, deserialize_with = "text")]
        text: Option<String>,
        #[serde(default, deserialize_with = "count")]
        count: Option<u64>,
    }

    #[test]
    fn a_list_is_bounded_by_its_elements() {
        let few: Few<u8, 3> = serde_json::from_str("[1,2,3]").unwrap();
        assert_eq!(few.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
        let error = serde_json::from_str::<Few<u8, 3>>("[1,2,3,4]").unwrap_err();
        assert!(error.to_string().contains("a list of at most 3 elements"), "{error}");
    }

    #[test]
    fn other_types_count_as_nothing() {
        for (json, text, count) in [
            (r#"{"text":"a\u0062","count":7}"#, Some("ab"), Some(7)),
            (r#"{"text":"","count":-7}"#, None, None),
            (r#"{"text":[{"type":"x"}],"count":null}"#, None, None),
            (r#"{"text":null,"count":1.5}"#, None, None),
            ("{}", None, None),
        ] {
            let lenient: Lenient = serde_json::from_str(json).unwrap();
            assert_eq!((lenient.text.as_deref(), lenient.count), (text, count), "{json}");
        }
    }
}
