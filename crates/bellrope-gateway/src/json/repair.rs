//! Documents that are JSON but for some characters in their strings.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::twins::without_twins;

/// What some editors write before all text.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads JSON whose strings may hold anything: half a surrogate pair and bytes that are not UTF-8 are read as U+FFFD,
/// and a control character that should have been escaped (NUL, a line feed) as itself. Of a field that stands twice in its
/// object the last counts. A byte order mark is passed over.
///
/// ```
/// let text: String = bellrope_gateway::json::from_slice(b"\"cut \\ud83d here \xff\"")?;
/// assert_eq!(text, "cut \u{fffd} here \u{fffd}");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
/// It is no JSON, or not what `T` expects.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    from_str(&String::from_utf8_lossy(json))
}

/// Reads JSON as [`from_slice`] does.
///
/// # Errors
/// As there.
pub fn from_str<T: DeserializeOwned>(json: &str) -> serde_json::Result<T> {
    let json = json.trim_start_matches(BYTE_ORDER_MARK);
    // Nearly every document is as serde wants it, and costs no second look.
    let error = match serde_json::from_str(json) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let sound = repaired(json);
    let error = match sound {
        Cow::Borrowed(_) => error,
        Cow::Owned(_) => match serde_json::from_str(&sound) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        },
    };
    match error.is_data().then(|| without_twins(&sound)) {
        Some(Cow::Owned(once)) => serde_json::from_str(&once),
        _ => Err(error),
    }
}

/// The same JSON with strings that serde can read: U+FFFD for half a surrogate pair, and control characters escaped.
/// Borrowed if nothing had to change. What is no JSON stays none.
pub fn repaired(json: &str) -> Cow<'_, str> {
    repair(json, Reader::Whole)
}

/// Hands the JSON in `json`, which a provider said, to `read`, with every surrogate as it was sent, for readers that take
/// strings by pieces. Numbers that are none (`NaN`, `-Infinity`), as Python's writer has them, are null. A byte order mark
/// is passed over.
pub(crate) fn raw<R>(json: &str, read: impl FnOnce(&RawValue) -> R) -> serde_json::Result<R> {
    let json = json.trim_start_matches('\u{feff}');
    match serde_json::from_str(json) {
        Ok(raw) => Ok(read(raw)),
        Err(error) => match repair(json, Reader::Pieces) {
            Cow::Borrowed(_) => Err(error),
            Cow::Owned(repaired) => serde_json::from_str(&repaired).map(read),
        },
    }
}

/// What the repaired document is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// One that takes strings whole, and would not notice a null in place of a number.
    Whole,
    /// One that takes strings by pieces, and side fields if they are what they should be.
    Pieces,
}

/// What is written for numbers that JSON does not have.
const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

fn repair(json: &str, reader: Reader) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut in_string = false;
    while let Some(&byte) = bytes.get(at) {
        let (length, instead) = match byte {
            b'"' => {
                in_string = !in_string;
                (1, None)
            }
            b'\\' if in_string => match unit(&bytes[at..]) {
                // A pair is kept whole, so that its second half is not taken for a lone one.
                Some(0xD800..=0xDBFF) if matches!(unit(&bytes[at + 6..]), Some(0xDC00..=0xDFFF)) => (12, None),
                Some(0xD800..=0xDFFF) if reader == Reader::Whole => (6, Some("\\ufffd".to_owned())),
                // The escaped character may be a quote.
                _ => (2, None),
            },
            0..0x20 if in_string => (1, Some(format!("\\u{byte:04x}"))),
            b'N' | b'I' | b'-' if !in_string && reader == Reader::Pieces => {
                let none = NO_NUMBERS.iter().find(|none| bytes[at..].starts_with(none.as_bytes()));
                none.map_or((1, None), |none| (none.len(), Some("null".to_owned())))
            }
            _ => (1, None),
        };
        if let Some(instead) = instead {
            // Both ends are at ASCII characters.
            out.push_str(&json[copied..at]);
            out.push_str(&instead);
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// The UTF-16 unit of an escape such as `\ud83d` at the beginning of `bytes`.
pub(super) fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let digits = str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    // Fault 70.
    #[test]
    fn half_a_surrogate_pair_is_read_as_the_replacement_character_wherever_it_stands() {
        for (json, text) in [
            (r#""a\ud83db""#, "a\u{fffd}b"),
            (r#""\uDD14""#, "\u{fffd}"),
            (r#""\ud83d\udd14""#, "🔔"),
            (r#""\ud83d\ud83d\udd14""#, "\u{fffd}🔔"),
            (r#""\udd14\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\n\\ud83d""#, "\u{fffd}\n\\ud83d"),
            (r#""\ud83d\"\\""#, "\u{fffd}\"\\"),
            ("\"\\u0000\0\n\"", "\0\0\n"),
            ("\u{feff}\"a\"", "a"),
        ] {
            assert_eq!(from_str::<String>(json).unwrap(), text, "{json}");
        }
        let read: Value = from_str(r#"{"\ud83d":{"deep":["\udd14 x"]}}"#).unwrap();
        assert_eq!(read, serde_json::json!({"\u{fffd}": {"deep": ["\u{fffd} x"]}}));
        assert_eq!(from_slice::<String>(b"\"\xf0\x9f\x94 \\ud83d\"").unwrap(), "\u{fffd} \u{fffd}");
    }

    #[test]
    fn a_number_that_is_none_costs_its_own_field_alone() {
        let json = r#"{"text":"NaN -Infinity","logprobs":[-Infinity,-1,NaN],"used":Infinity}"#;
        let read = raw(json, |document| document.get().to_owned()).unwrap();
        assert_eq!(read, r#"{"text":"NaN -Infinity","logprobs":[null,-1,null],"used":null}"#);
        assert_eq!(raw("\u{feff}[1]", |document| document.get().to_owned()).unwrap(), "[1]");
        // What asks for something says what it means.
        assert!(from_str::<Value>(json).is_err() && raw("Inf", |_| ()).is_err());
    }

    #[test]
    fn what_is_no_json_stays_an_error_and_what_is_sound_is_not_copied() {
        for json in ["", "{", "\"a", r#""\ud8""#, r#""\ud83d"#, "\"\\", "\u{1}", r#""\x""#] {
            assert!(from_str::<Value>(json).is_err(), "{json}");
        }
        assert!(matches!(repaired(r#"{"a":"\\ud83d \ud83d\udd14"}"#), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn repairing_changes_nothing_that_serde_can_read(json in "(\"|\\\\|\\\\u|d83d|dd14|0041|a|é|\n|\\{|:){0,24}") {
            if let Ok(value) = serde_json::from_str::<Value>(&json) {
                prop_assert_eq!(from_str::<Value>(&json).unwrap(), value);
                prop_assert!(matches!(repaired(&json), Cow::Borrowed(_)));
            }
        }

        /// Strings of any UTF-16 units are read as `String::from_utf16_lossy` reads them.
        #[test]
        fn any_units_are_read_as_utf16_is(units in proptest::collection::vec(
            prop_oneof![Just(0xd83d_u16), Just(0xdd14), 0xd7ff_u16..0xe001, any::<u16>()], 0..12)
        ) {
            let json: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(from_str::<String>(&format!("\"{json}\"")).unwrap(), String::from_utf16_lossy(&units));
        }
    }
}
