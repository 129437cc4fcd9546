//! What a request for vectors wants them of. It takes no memory, however many tokens there are.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json;

/// For how many texts vectors are wanted, as far as that is known: a list of tokens is one text. What else some servers take may be
/// one text in several parts.
///
/// # Errors
/// Nobody makes vectors of it, in words.
pub(super) fn look(input: &RawValue) -> Result<Option<usize>, Cow<'static, str>> {
    let read = json::from_str::<Input>(input.get());
    read.map_or(Err("input cannot be read".into()), |Input(found)| found)
}

/// What was found.
struct Input(Result<Option<usize>, Cow<'static, str>>);

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

const NONE: Result<Option<usize>, Cow<'static, str>> = Err(Cow::Borrowed("there is no input"));
const ODD: Result<Option<usize>, Cow<'static, str>> =
    Err(Cow::Borrowed("input is a text, a list of texts, a list of tokens, or a list of such lists"));

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list")
    }

    fn visit_unit<E>(self) -> Result<Input, E> {
        Ok(Input(NONE))
    }

    fn visit_str<E>(self, text: &str) -> Result<Input, E> {
        Ok(Input(if text.is_empty() { NONE } else { Ok(Some(1)) }))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Input, E> {
        Ok(Input(ODD))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Input, E> {
        Ok(Input(ODD))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Input, E> {
        Ok(Input(ODD))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Input, E> {
        Ok(Input(ODD))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Input, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Input(ODD))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Input, A::Error> {
        // Of each kind, and the first that is of none, or of another one than those before.
        let (mut tokens, mut texts, mut objects, mut odd) = (0, 0, 0, None);
        while let Some(element) = list.next_element::<Element>()? {
            let at = tokens + texts + objects;
            *match element {
                _ if odd.is_some() => continue,
                Element::Token if texts + objects == 0 => &mut tokens,
                Element::Text if tokens == 0 => &mut texts,
                Element::Object if tokens == 0 => &mut objects,
                Element::Token => {
                    odd =
                        Some(format!("input[{at}] is a token among texts; send texts alone, or lists of tokens alone"));
                    continue;
                }
                Element::Text | Element::Object => {
                    odd = Some(format!("input[{at}] is no token, as those before it are; send one kind alone"));
                    continue;
                }
                Element::Odd => {
                    odd = Some(format!(
                        "input[{at}] is odd: each element of input is a text, a token, a list of tokens, or an object that \
                         says what it is"
                    ));
                    continue;
                }
            } += 1_usize;
        }
        Ok(Input(match (tokens, texts, objects, odd) {
            (.., Some(odd)) => Err(odd.into()),
            (0, 0, 0, _) => NONE,
            (1.., ..) => Ok(Some(1)),
            (_, texts, 0, _) => Ok(Some(texts)),
            _ => Ok(None),
        }))
    }
}

/// An element of a list.
enum Element {
    Token,
    /// A text, or one in tokens.
    Text,
    Object,
    Odd,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or tokens")
            }

            fn visit_unit<E>(self) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
                Ok(Element::Token)
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Element, E> {
                Ok(Element::Text)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element::Text)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
                let mut says = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    says = true;
                }
                Ok(if says { Element::Object } else { Element::Odd })
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_a_request_are_counted_and_what_is_none_is_refused() {
        for (input, expected) in [
            (r#""a""#, Ok(Some(1))),
            (r#"["a","b"]"#, Ok(Some(2))),
            ("[1,2,3]", Ok(Some(1))),
            ("[[1,2],[3]]", Ok(Some(2))),
            (r#"["a",[3]]"#, Ok(Some(2))),
            (r#"[{"text":"a"},{"image":"b"}]"#, Ok(None)),
            (r#"["a",{"image":"b"}]"#, Ok(None)),
            ("[]", NONE),
            ("null", NONE),
            ("\"\"", NONE),
            ("7", ODD),
            ("-1", ODD),
            ("0.5", ODD),
            ("true", ODD),
            ("{}", ODD),
        ] {
            let raw = RawValue::from_string(input.to_owned()).unwrap();
            assert_eq!(look(&raw), expected, "{input}");
        }
    }

    #[test]
    fn the_element_that_is_at_fault_is_named() {
        for (input, at) in [
            ("[{}]", 0),
            (r#"["a",null]"#, 1),
            (r#"["a",7]"#, 1),
            (r#"["a","b",7,null]"#, 2),
            (r#"[1,2,"a"]"#, 2),
            (r#"[{"text":"a"},7]"#, 1),
            ("[1,2,[3]]", 2),
            ("[1.5]", 0),
            ("[3,-1]", 1),
        ] {
            let raw = RawValue::from_string(input.to_owned()).unwrap();
            let words = look(&raw).unwrap_err();
            assert!(words.starts_with(&format!("input[{at}] is ")), "{input}: {words}");
        }
    }
}
