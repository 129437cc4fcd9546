//! Long strings of a JSON text, made shorter so that the rest of it can be read within a bound.

use memchr::{memchr, memchr2};

/// Shortens the strings of a JSON text, which may break off anywhere: of each no more than `keep` bytes stay, or one more that
/// begins an escape. The text is as much JSON as it was. How many bytes went.
pub(super) fn squeeze(json: &mut Vec<u8>, keep: usize) -> usize {
    // What was looked at, and where what stays of it ends.
    let (mut read, mut end) = (0, 0);
    while let Some(quote) = memchr(b'"', &json[read..]) {
        let string = string_at(json, read + quote + 1, keep);
        json.copy_within(read..string.cut, end);
        end += string.cut - read;
        json.copy_within(string.rest..string.end, end);
        end += string.end - string.rest;
        read = string.end;
    }
    json.copy_within(read.., end);
    end += json.len() - read;
    let went = json.len() - end;
    json.truncate(end);
    went
}

/// A string in a text. What stands between `cut` and `rest` can go.
struct LongText {
    cut: usize,
    rest: usize,
    /// Behind its last quote, or where the text breaks off.
    end: usize,
}

/// The string whose first byte after the quote is at `from`.
fn string_at(json: &[u8], from: usize, keep: usize) -> LongText {
    let most = from.saturating_add(keep);
    let (mut at, mut cut) = (from, None);
    // Where the last escape ends, which does not stay in part.
    let mut escaped = from;
    loop {
        let next = memchr2(b'"', b'\\', &json[at..]).map(|next| at + next);
        let plain_end = next.unwrap_or(json.len());
        if cut.is_none() && plain_end > most {
            cut = Some(character(json, escaped, most));
        }
        match next {
            None => return LongText { cut: cut.unwrap_or(json.len()), rest: json.len(), end: json.len() },
            Some(quote) if json[quote] == b'"' => {
                return LongText { cut: cut.unwrap_or(quote), rest: quote, end: quote + 1 };
            }
            // What it escapes is still to come.
            Some(slash) if slash + 1 == json.len() => {
                return LongText { cut: cut.unwrap_or(slash), rest: slash, end: json.len() };
            }
            Some(slash) => {
                let len = if json[slash + 1] == b'u' { 6 } else { 2 };
                if cut.is_none() && slash + len > most {
                    cut = Some(slash);
                }
                (escaped, at) = (slash + len, slash + 2);
            }
        }
    }
}

/// The beginning of the character that the byte at `at` belongs to.
fn character(json: &[u8], from: usize, mut at: usize) -> usize {
    while at > from && json.get(at).is_some_and(|byte| byte & 0xc0 == 0x80) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::json::repaired;

    fn squeezed(json: &str, keep: usize) -> String {
        let mut json = json.as_bytes().to_vec();
        squeeze(&mut json, keep);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn strings_are_cut_between_characters_and_escapes_and_nothing_else_is() {
        for (json, short) in [
            (r#"{"a":"12345678","b":[1,"12"]}"#, r#"{"a":"1234","b":[1,"12"]}"#),
            (r#"["123\"5678"]"#, r#"["123"]"#),
            (r#"["12\"45678"]"#, r#"["12\""]"#),
            (r#"["1\u00e445678"]"#, r#"["1"]"#),
            (r#"["\\\\\\\\"]"#, r#"["\\\\"]"#),
            ("[\"123\u{fc}5\"]", "[\"123\"]"),
            (r#"["12345678"#, r#"["1234"#),
            (r#"["12345678\"#, r#"["1234\"#),
            ("12345678", "12345678"),
        ] {
            assert_eq!(squeezed(json, 4), short);
        }
    }

    proptest! {
        /// However its pieces come in, a text is the same JSON but for the ends of its strings.
        #[test]
        fn a_text_that_is_squeezed_as_it_comes_has_its_form(
            texts in prop::collection::vec("[ -~äß🔔\n\"\\\\]{0,24}", 1..5), piece in 1usize..20, keep in 0usize..12,
        ) {
            let value: Value = texts.iter().map(|text| Value::from(text.as_str())).collect();
            let mut json = Vec::new();
            let text = serde_json::to_string(&value).unwrap().replace('ß', "\\u00df");
            for piece in text.as_bytes().chunks(piece) {
                json.extend_from_slice(piece);
                squeeze(&mut json, keep);
            }
            let short = String::from_utf8_lossy(&json).into_owned();
            let read: Vec<String> = serde_json::from_str(&repaired(&short)).unwrap();
            prop_assert_eq!(read.len(), texts.len());
            for (short, long) in read.iter().zip(&texts) {
                prop_assert!(long.len() <= keep && short == long || short.len() <= keep + 12, "{} of {}", short, long);
            }
        }
    }
}
