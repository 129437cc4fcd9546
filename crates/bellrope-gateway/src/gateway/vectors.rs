//! What a provider sends as vectors, looked at before it counts as an answer: whoever keeps a vector keeps it for a text, and would
//! never learn that it is another one's.

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::apart::{LARGE, apart, no_thread};
use crate::error::{Excerpt, ProviderError};
use crate::json;
use crate::message::{MOST_TOKENS, Usage};

/// What they took, if the provider says it. `texts`: for how many of them a vector is to come, as far as that is known. A large answer
/// is looked at apart.
///
/// # Errors
/// There is not one vector for each text.
pub(super) async fn looked_at(
    answer: Vec<u8>,
    texts: Option<usize>,
) -> Result<(Vec<u8>, Option<Usage>), ProviderError> {
    if answer.len() <= LARGE {
        let usage = usage_of(&answer, texts)?;
        return Ok((answer, usage));
    }
    let look = move || usage_of(&answer, texts).map(|usage| (answer, usage));
    apart(look).await.map_err(no_thread)?
}

fn usage_of(answer: &[u8], texts: Option<usize>) -> Result<Option<Usage>, ProviderError> {
    #[derive(Deserialize)]
    struct Answer {
        data: Vec<Row>,
        usage: Option<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Tokens {
        prompt_tokens: Option<u64>,
        total_tokens: Option<u64>,
    }

    let read = json::from_slice::<Answer>(answer).map_err(|error| match error.is_eof() {
        true => ProviderError::Truncated { reason: "its JSON is cut off".into() },
        // Its own words are not shown: a key may be among them.
        false => malformed(&json::plain_words(&error.to_string())),
    })?;
    check(&read.data, texts).map_err(|fault| malformed(&fault))?;
    // A side matter.
    let tokens = read.usage.and_then(|usage| serde_json::from_str::<Tokens>(usage.get()).ok());
    let input = tokens.and_then(|tokens| tokens.prompt_tokens.or(tokens.total_tokens));
    let input = input.filter(|count| *count <= MOST_TOKENS);
    Ok(input.map(|input_tokens| Usage { input_tokens, ..Usage::default() }))
}

fn malformed(reason: &str) -> ProviderError {
    ProviderError::Malformed { reason: Excerpt::new(reason) }
}

fn check(rows: &[Row], texts: Option<usize>) -> Result<(), String> {
    if let Some(texts) = texts.filter(|texts| *texts != rows.len()) {
        return Err(format!("{} vectors came for {texts} texts", rows.len()));
    }
    let mut known = vec![false; rows.len()];
    for (at, row) in rows.iter().enumerate() {
        let Row { index, embedding } = row;
        if *embedding != rows[0].embedding {
            return Err(format!("the vector of `data[{at}]` has another length than the first one"));
        }
        let index = match index {
            Place::None => at,
            Place::At(index) => *index,
            Place::Odd => rows.len(),
        };
        match known.get_mut(index) {
            Some(known) if !*known => *known = true,
            _ => return Err(format!("`data[{at}].index` does not say of which text the vector is")),
        }
    }
    Ok(())
}

/// A vector, and of which text it is.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    index: Place,
    embedding: Shape,
}

/// Of which text a vector is.
#[derive(Default)]
enum Place {
    /// Of that whose turn it is.
    #[default]
    None,
    At(usize),
    Odd,
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer)?;
        let digits = value.get().trim_matches('"');
        Ok(match digits {
            "null" => Self::None,
            digits => digits.parse().map_or(Self::Odd, Self::At),
        })
    }
}

/// How much there is of a vector: so many numbers, so many characters of base64, or lists of numbers for each token. Each of its
/// numbers is one that can be reckoned with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Numbers(usize),
    Text(usize),
    Lists,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;

        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a vector")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Shape, E> {
                if text.is_empty() { Err(E::invalid_length(0, &self)) } else { Ok(Shape::Text(text.len())) }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut count = 0;
                loop {
                    match list.next_element::<Element>()? {
                        Some(Element::Number) => count += 1,
                        // What models give for each token is nobody's business here.
                        Some(Element::List) if count == 0 => {
                            while list.next_element::<IgnoredAny>()?.is_some() {}
                            return Ok(Shape::Lists);
                        }
                        Some(Element::List) => return Err(A::Error::custom("a vector holds numbers alone")),
                        None if count == 0 => return Err(A::Error::invalid_length(0, &self)),
                        None => return Ok(Shape::Numbers(count)),
                    }
                }
            }
        }

        deserializer.deserialize_any(ShapeVisitor)
    }
}

enum Element {
    Number,
    List,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Element, E> {
                match number.abs() <= f64::from(f32::MAX) {
                    true => Ok(Element::Number),
                    false => Err(E::custom("a number of a vector is too large")),
                }
            }

            fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
                Ok(Element::Number)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
                Ok(Element::Number)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element::List)
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_are_not_one_for_each_text_are_no_answer() {
        const TWO: &str = r#"{"index":0,"embedding":[1,2.5]},{"index":1,"embedding":[-3,4e-3]}"#;
        for (rows, texts, code) in [
            (TWO, Some(2), None),
            (TWO, None, None),
            (r#"{"index":1,"embedding":[1]},{"index":0,"embedding":[2]}"#, Some(2), None),
            (r#"{"index":"0","embedding":[1]},{"index":"1","embedding":[2]}"#, Some(2), None),
            (r#"{"embedding":[1]},{"index":null,"embedding":[2]}"#, Some(2), None),
            (r#"{"index":0,"embedding":"AACAPw=="},{"index":1,"embedding":"AACAPw=="}"#, Some(2), None),
            (r#"{"index":0,"embedding":[[1],[2]]},{"index":1,"embedding":[[1]]}"#, Some(2), None),
            (TWO, Some(1), Some("malformed")),
            (TWO, Some(3), Some("malformed")),
            ("", Some(1), Some("malformed")),
            (r#"{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}"#, Some(2), Some("malformed")),
            (r#"{"index":0,"embedding":[1]},{"index":2,"embedding":[2]}"#, Some(2), Some("malformed")),
            (r#"{"index":0,"embedding":[1]},{"index":-1,"embedding":[2]}"#, Some(2), Some("malformed")),
            (r#"{"index":0,"embedding":[1]},{"index":1,"embedding":[2,3]}"#, Some(2), Some("malformed")),
            (r#"{"index":0,"embedding":"AACAPw=="},{"index":1,"embedding":[1]}"#, Some(2), Some("malformed")),
            (r#"{"index":0,"embedding":null}"#, Some(1), Some("malformed")),
            (r#"{"index":0}"#, Some(1), Some("malformed")),
            (r#"{"index":0,"embedding":[]}"#, Some(1), Some("malformed")),
            (r#"{"index":0,"embedding":""}"#, Some(1), Some("malformed")),
            (r#"{"index":0,"embedding":7}"#, Some(1), Some("malformed")),
            (r#"{"index":0,"embedding":[1,null]}"#, Some(1), Some("malformed")),
            (r#"{"index":0,"embedding":[NaN]}"#, Some(1), Some("malformed")),
            (r#"{"index":0,"embedding":[1e39]}"#, Some(1), Some("malformed")),
        ] {
            let seen = usage_of(format!(r#"{{"data":[{rows}]}}"#).as_bytes(), texts);
            assert_eq!(seen.err().map(|error| error.code()), code, "{rows} {texts:?}");
        }
        for (body, code, words) in [
            ("<html>", "malformed", "expected value"),
            ("{}", "malformed", "missing field `data`"),
            (r#"{"data":[{"index":0,"embedding":[1"#, "truncated", "cut off"),
            ("", "truncated", "cut off"),
        ] {
            let error = usage_of(body.as_bytes(), Some(1)).unwrap_err();
            assert!(error.code() == code && error.to_string().contains(words), "{body}: {error}");
        }
    }

    #[tokio::test]
    async fn what_they_took_is_a_side_matter_and_a_large_answer_is_the_same() {
        let of = async |usage: &str, numbers: usize| {
            let vector = vec!["0.25"; numbers].join(",");
            let answer = format!(r#"{{"data":[{{"embedding":[{vector}]}}],"usage":{usage}}}"#).into_bytes();
            let (same, usage) = looked_at(answer.clone(), Some(1)).await.unwrap();
            assert!(same == answer);
            usage.map(|usage| usage.input_tokens)
        };
        for numbers in [1, 100_000] {
            assert_eq!(of(r#"{"prompt_tokens":8,"total_tokens":9}"#, numbers).await, Some(8));
            assert_eq!(of(r#"{"total_tokens":9}"#, numbers).await, Some(9));
            for odd in ["null", "7", "{}", r#"{"prompt_tokens":"x"}"#, r#"{"prompt_tokens":1000000000000000000}"#] {
                assert_eq!(of(odd, numbers).await, None, "{odd}");
            }
        }
    }
}
