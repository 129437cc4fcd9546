//! Documents in which a field stands twice.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use serde::de::IgnoredAny;

use super::scan::end_of_string;

/// The most names that are remembered at once. A document with more of them stays as it is.
const MAX_NAMES: usize = 64 * 1024;

/// A list or an object on the way.
enum Within<'a> {
    List,
    Object {
        /// Each name so far, with where its field stands.
        seen: HashMap<Cow<'a, str>, Range<usize>>,
        /// The name of the field that is read, and where it begins.
        field: Option<(Cow<'a, str>, usize)>,
        /// Whether a name comes next.
        wants_name: bool,
    },
}

/// The same JSON with each field once in its object, as it stands there last: so read the parsers of Python, JavaScript and Go,
/// in which tools and providers are written, while serde refuses the document. Borrowed if nothing had to change. What is no JSON
/// stays none.
pub(crate) fn without_twins(json: &str) -> Cow<'_, str> {
    // What is wrong in a twin is not to be cut away with it.
    let is_sound = serde_json::from_str::<IgnoredAny>(json).is_ok();
    let cuts = if is_sound { twins(json) } else { Vec::new() };
    if cuts.is_empty() {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut copied = 0;
    for cut in cuts {
        // A twin may lie within another one.
        if cut.start >= copied {
            out.push_str(&json[copied..cut.start]);
            copied = cut.end;
        }
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// Where fields stand that come again in their object, each with the comma behind it.
fn twins(json: &str) -> Vec<Range<usize>> {
    let bytes = json.as_bytes();
    let (mut cuts, mut within, mut names, mut at) = (Vec::new(), Vec::new(), 0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = end_of_string(bytes, at + 1);
                if let Some(Within::Object { field, wants_name: wants_name @ true, .. }) = within.last_mut() {
                    *wants_name = false;
                    *field = json.get(at..=end).map(|quoted| (name(quoted), at));
                }
                at = end;
            }
            b'[' => within.push(Within::List),
            b'{' => within.push(Within::Object { seen: HashMap::new(), field: None, wants_name: true }),
            b',' => {
                if let Some(Within::Object { seen, field, wants_name }) = within.last_mut() {
                    *wants_name = true;
                    cuts.extend(field.take().and_then(|(name, start)| seen.insert(name, start..at + 1)));
                    names += 1;
                    if names > MAX_NAMES {
                        return Vec::new();
                    }
                }
            }
            b'}' | b']' => {
                if let Some(Within::Object { mut seen, field: Some((name, start)), .. }) = within.pop() {
                    cuts.extend(seen.insert(name, start..at));
                    names = names.saturating_sub(seen.len());
                }
            }
            _ => {}
        }
        at += 1;
    }
    cuts.sort_unstable_by_key(|cut| cut.start);
    cuts
}

/// The name in quotes.
fn name(quoted: &str) -> Cow<'_, str> {
    let plain = quoted.trim_matches('"');
    match plain.contains('\\').then(|| serde_json::from_str(quoted)) {
        Some(Ok(name)) => Cow::Owned(name),
        _ => Cow::Borrowed(plain),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn of_a_field_that_stands_twice_the_last_counts() {
        for (json, expected) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"b":{"a":[1,2]} , "a" : 2 }"#, r#"{"b":{"a":[1,2]} , "a" : 2 }"#),
            (r#"[{"a":"x,\"a\":","b":0,"a":[{"c":1,"c":2}]}]"#, r#"[{"b":0,"a":[{"c":2}]}]"#),
            (r#"{"a":{"b":1,"b":2},"a":3,"a":4}"#, r#"{"a":4}"#),
            (r#"{"\u0061":1,"a":2}"#, r#"{"a":2}"#),
        ] {
            assert_eq!(without_twins(json), expected, "{json}");
        }
    }

    #[test]
    fn what_has_no_twins_is_not_copied_and_what_is_no_json_harms_nobody() {
        for json in [
            r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#,
            "",
            "}]",
            "{\"a",
            r#"{"a":1 1,"a":2}"#,
            "\"\\",
            r#"{"a""a","é":1}"#,
        ] {
            assert!(matches!(without_twins(json), Cow::Borrowed(_)), "{json}");
        }
        let many: String = (0..MAX_NAMES).map(|number| format!("\"{number}\":1,")).collect();
        assert!(matches!(without_twins(&format!("{{{many}\"a\":1,\"a\":2}}")), Cow::Borrowed(_)));
        let apart = format!("[{}{{\"a\":1,\"a\":2}}]", "{\"a\":1,\"b\":2},".repeat(MAX_NAMES));
        assert!(without_twins(&apart).ends_with("{\"a\":2}]"));
    }

    proptest! {
        /// serde's own tree takes the last of several, too.
        #[test]
        fn a_document_without_twins_means_what_it_meant(json in "(\\{|\\}|\\[|\\]|,|\"a\":|\"b\":|1|\"x\"|\"é\\\\\"\"){0,24}") {
            let once = without_twins(&json);
            prop_assert_eq!(serde_json::from_str::<Value>(&once).ok(), serde_json::from_str::<Value>(&json).ok());
        }
    }
}
