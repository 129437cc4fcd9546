//! How a part of a message is read: field by field, because what serde derives for such a type would first make a tree of
//! everything in it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::lenient;
use super::request::Part;

const TYPES: &[&str] = &["text", "image", "reasoning", "tool_use", "tool_result"];

/// The fields of all parts. One that is of no use to a part may be anything.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    r#type: Option<String>,
    text: Given<String>,
    url: Given<String>,
    detail: Given<String>,
    details: Option<Value>,
    id: Given<String>,
    name: Given<String>,
    #[serde(deserialize_with = "lenient::arguments")]
    input: Value,
    extra_content: Option<Value>,
    tool_use_id: Given<String>,
    content: Given<String>,
    images: Given<Texts>,
    is_error: Given<bool>,
    cache_control: Option<Value>,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let Fields { details, input, extra_content, cache_control, .. } = fields;
        let kind = fields.r#type.ok_or_else(|| D::Error::missing_field("type"))?;
        Ok(match &*kind {
            "text" => Self::Text { text: fields.text.required("text")?, cache_control },
            "image" => {
                let (url, detail) = (fields.url.required("url")?, fields.detail.optional()?);
                Self::Image { url, detail, cache_control }
            }
            "reasoning" => Self::Reasoning { text: fields.text.or_default()?, details },
            "tool_use" => {
                let (id, name) = (fields.id.or_default()?, fields.name.required("name")?);
                Self::ToolUse { id, name, input, extra_content }
            }
            "tool_result" => Self::ToolResult {
                tool_use_id: fields.tool_use_id.or_default()?,
                content: fields.content.or_default()?,
                images: fields.images.or_default::<D::Error>()?.0,
                is_error: fields.is_error.or_default()?,
                cache_control,
            },
            other => return Err(D::Error::unknown_variant(other, TYPES)),
        })
    }
}

/// What stands in a field.
#[derive(Default)]
enum Given<T> {
    #[default]
    Nothing,
    Null,
    Value(T),
    /// Another type: the words for it.
    Wrong(String),
}

impl<T> Given<T> {
    fn required<E: Error>(self, name: &'static str) -> Result<T, E> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Nothing => Err(E::missing_field(name)),
            Self::Null => Err(E::custom(format_args!("invalid type: null, expected a value for `{name}`"))),
            Self::Wrong(words) => Err(E::custom(words)),
        }
    }

    fn optional<E: Error>(self) -> Result<Option<T>, E> {
        match self {
            Self::Value(value) => Ok(Some(value)),
            Self::Nothing | Self::Null => Ok(None),
            Self::Wrong(words) => Err(E::custom(words)),
        }
    }

    fn or_default<E: Error>(self) -> Result<T, E>
    where
        T: Default,
    {
        self.optional().map(Option::unwrap_or_default)
    }
}

/// What a field may be, beside null.
trait Expected: Sized {
    const WORDS: &'static str;

    fn of_text(_: String) -> Result<Self, String> {
        Err("string".to_owned())
    }

    fn of_bool(value: bool) -> Result<Self, String> {
        Err(Unexpected::Bool(value).to_string())
    }

    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Result<Self, String>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(Unexpected::Seq.to_string()))
    }
}

impl Expected for String {
    const WORDS: &'static str = "a string";

    fn of_text(text: String) -> Result<Self, String> {
        Ok(text)
    }
}

impl Expected for bool {
    const WORDS: &'static str = "a boolean";

    fn of_bool(value: bool) -> Result<Self, String> {
        Ok(value)
    }
}

/// A list of strings.
#[derive(Default)]
struct Texts(Vec<String>);

impl Expected for Texts {
    const WORDS: &'static str = "a list of strings";

    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Result<Self, String>, A::Error> {
        let mut texts = Ok(Vec::new());
        while let Some(element) = list.next_element::<Given<String>>()? {
            match (element, &mut texts) {
                (Given::Value(text), Ok(texts)) => texts.push(text),
                (Given::Value(_), Err(_)) => {}
                (_, texts) => *texts = Err("a list of something else".to_owned()),
            }
        }
        Ok(texts.map(Self))
    }
}

impl<'de, T: Expected> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor(PhantomData))
    }
}

struct GivenVisitor<T>(PhantomData<T>);

impl<T: Expected> GivenVisitor<T> {
    #[expect(clippy::unnecessary_wraps, reason = "what visitors return")]
    fn given<E>(found: Result<T, String>) -> Result<Given<T>, E> {
        let wrong = |found| Given::Wrong(format!("invalid type: {found}, expected {}", T::WORDS));
        Ok(found.map_or_else(wrong, Given::Value))
    }
}

impl<'de, T: Expected> Visitor<'de> for GivenVisitor<T> {
    type Value = Given<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WORDS)
    }

    fn visit_unit<E>(self) -> Result<Given<T>, E> {
        Ok(Given::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Given<T>, E> {
        Self::given(T::of_text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Given<T>, E> {
        Self::given(T::of_text(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Given<T>, E> {
        Self::given(T::of_bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Given<T>, E> {
        Self::given(Err(Unexpected::Signed(value).to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Given<T>, E> {
        Self::given(Err(Unexpected::Unsigned(value).to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Given<T>, E> {
        Self::given(Err(Unexpected::Float(value).to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Given<T>, A::Error> {
        Self::given(T::of_list(list)?)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Self::given(Err(Unexpected::Map.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(json: &str) -> String {
        serde_json::from_str::<Part>(json).unwrap_err().to_string()
    }

    #[test]
    fn a_part_is_read_in_any_order_and_what_it_has_no_use_for_may_be_anything() {
        for (json, part) in [
            (r#"{"text":"a","type":"text","content":[{"x":1}],"is_error":7,"images":{}}"#, Part::text("a")),
            (r#"{"type":"image","url":"u","detail":null,"name":1.5,"id":false}"#, Part::image("u")),
            (r#"{"type":"reasoning"}"#, Part::Reasoning { text: String::new(), details: None }),
            (r#"{"type":"tool_use","name":"f","id":null}"#, Part::tool_use("", "f", Value::Null)),
            (r#"{"type":"tool_result","is_error":null,"content":null}"#, Part::tool_result("", "")),
        ] {
            assert_eq!(serde_json::from_str::<Part>(json).unwrap(), part, "{json}");
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::from_value::<Part>(value).unwrap(), part, "{json}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_part_is_said() {
        for (json, words) in [
            (r#"{"type":"text"}"#, "missing field `text`"),
            (r#"{"text":"a"}"#, "missing field `type`"),
            (r#"{"type":"smell"}"#, "unknown variant `smell`, expected one of `text`, `image`"),
            (r#"{"type":"text","text":7}"#, "invalid type: integer `7`, expected a string"),
            (r#"{"type":"text","text":null}"#, "invalid type: null, expected a value for `text`"),
            (r#"{"type":"tool_result","is_error":"yes"}"#, "invalid type: string, expected a boolean"),
            (r#"{"type":"tool_result","images":["a",1]}"#, "expected a list of strings"),
            (r#"{"type":"tool_result","images":"a"}"#, "invalid type: string, expected a list of strings"),
            (r#"{"type":"tool_use","name":{"a":1}}"#, "invalid type: map, expected a string"),
        ] {
            let fault = fault(json);
            assert!(fault.contains(words), "{json}: {fault}");
        }
    }

    // Fault 58.
    #[test]
    fn arguments_of_many_values_are_kept_as_their_text() {
        let read =
            |input: &str| match serde_json::from_str(&format!(r#"{{"type":"tool_use","name":"f","input":{input}}}"#))
                .unwrap()
            {
                Part::ToolUse { input, .. } => input,
                other => panic!("{other:?}"),
            };
        assert_eq!(read(r#"{"a": [1, 2]}"#), json!({"a": [1, 2]}));
        assert_eq!((read("7"), read("\"x\""), read("null")), (json!(7), json!("x"), json!(null)));
        let long = format!(r#"{{"a": [{}1]}}"#, "1, ".repeat(1000));
        assert_eq!(read(&long), json!(long));
        let deep = |levels: usize| {
            format!(r#"{{"type":"tool_use","name":"f","input":{}}}"#, "[".repeat(levels) + &"]".repeat(levels))
        };
        assert!(serde_json::from_str::<Part>(&deep(100)).is_ok());
        assert!(fault(&deep(100_000)).contains("deep"));
    }
}
