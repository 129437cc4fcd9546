//! A look at a document before anything is made of it. It takes no memory, however deep or long the document is.

/// The deepest nesting that is read, in lists and objects: that of serde's own readers.
pub(crate) const MAX_DEPTH: usize = 127;

/// A list or an object of more bytes is kept as its text where a field has room for any value: trees of many small values
/// take up to a hundred times the memory of their text.
pub(crate) const MAX_TREE: usize = 256;

/// A place in a document: the name of a field of an object, or [`IN_LIST`] for a list, from the outside to the inside.
pub(crate) type Place = &'static [&'static str];

/// Any element of a list.
pub(crate) const IN_LIST: &str = "";

/// What a document consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Values {
    /// Values of any kind: at most one too few for each list and object.
    pub(crate) all: usize,
    /// The objects among them.
    pub(crate) objects: usize,
}

/// The values of a document. A list or an object at `text` counts as one if it is kept as text. What is no JSON has some
/// number of values, too.
pub(crate) fn values(json: &[u8], text: Place) -> Values {
    let (mut values, mut depth, mut at) = (Values::default(), 0_usize, 0);
    // How far the path to where we are is that of `text`.
    let mut along = 0;
    // Where a container at `text` began, and how many values there were before.
    let mut began = None;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                let end = end_of_string(json, at + 1);
                // It may be a field on the way.
                let wanted = text.get(depth.wrapping_sub(1)).filter(|_| depth <= text.len());
                if let Some(name) = wanted.filter(|name| **name != IN_LIST && along + 1 >= depth) {
                    let is_name = json[end.min(json.len())..].iter().skip(1).find(|byte| !byte.is_ascii_whitespace());
                    if is_name == Some(&b':') {
                        let matches = json.get(at + 1..end) == Some(name.as_bytes());
                        along = if matches { depth } else { depth - 1 };
                    }
                }
                at = end;
            }
            b'{' | b'[' => {
                if depth == text.len() && along == depth && began.is_none() {
                    began = Some((at, values));
                }
                values.all += 1;
                values.objects += usize::from(byte == b'{');
                depth += 1;
                // Each element of a list on the way is on the way.
                if byte == b'[' && along + 1 == depth && text.get(depth - 1) == Some(&IN_LIST) {
                    along = depth;
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                along = along.min(depth);
                if depth == text.len()
                    && let Some((start, before)) = began.take()
                    && at - start >= MAX_TREE
                {
                    values = Values { all: before.all + 1, ..before };
                }
            }
            b',' => values.all += 1,
            _ => {}
        }
        at += 1;
    }
    values
}

/// What a value of a request takes at the most while it is read and sent on, and an object beside that: a tree of it, and a
/// copy of that. In bytes.
const VALUE: u64 = 160;
const OBJECT: u64 = 1_200;

/// How many bytes the values of a document take at the most beside its texts, when it is read. `text`: as for [`values`].
pub(crate) fn weight(json: &[u8], text: Place) -> u64 {
    let Values { all, objects } = values(json, text);
    all as u64 * VALUE + objects as u64 * OBJECT
}

/// Bytes of the texts in a value, as they are written: those of `id` and `type`, and the names of fields, are none.
pub(crate) fn text_len(json: &[u8]) -> usize {
    let (mut len, mut at, mut name) = (0_usize, 0, &[][..]);
    while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr(b'"', rest)) {
        let begin = at + found + 1;
        let end = end_of_string(json, begin);
        let text = &json[begin.min(end)..end];
        at = end + 1;
        let next = json.get(at..).and_then(|rest| rest.iter().find(|byte| !byte.is_ascii_whitespace()));
        if next == Some(&b':') {
            name = text;
        } else if !matches!(name, b"id" | b"type") {
            len = len.saturating_add(text.len());
        }
    }
    len
}

/// How deep the lists and objects of a document lie in one another.
pub(crate) fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => at = end_of_string(json, at + 1),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Where the quote stands that ends a string, or the end of the document.
pub(crate) fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return at;
        }
        at += 2;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: Place = &["messages", IN_LIST, "content", IN_LIST, "input"];

    #[test]
    fn values_are_counted_wherever_they_stand() {
        for (json, expected) in [
            ("", 0),
            ("7", 0),
            ("[]", 1),
            ("[1,2,3]", 3),
            (r#"{"a":"x,[{","b\",":[1,{"c":2}]}"#, 5),
            (r#""\\",[1"#, 2),
            ("\"never ends, [", 0),
            ("]]}[", 1),
        ] {
            assert_eq!(values(json.as_bytes(), INPUT).all, expected, "{json}");
        }
        assert_eq!(values(br#"[{"a":{}},["{"]]"#, INPUT), Values { all: 5, objects: 2 });
    }

    #[test]
    fn what_is_kept_as_text_counts_once_and_the_same_elsewhere_as_what_it_is() {
        let ones = format!("[{}1]", "1,".repeat(500));
        let part = |name: &str| format!(r#"{{"type":"tool_use","{name}":{ones},"name":"f"}}"#);
        let message = |content: &str| format!(r#"{{"role":"assistant","content":{content}}}"#);
        let request = |message: &str| format!(r#"{{"model":"m","messages":[{message},{message}],"tools":[]}}"#);
        let few = values(request(&message(&format!("[{}]", part("input")))).as_bytes(), INPUT).all;
        assert!(few < 30, "{few}");
        let first = request(&message(&format!("[{},{}]", part("input"), part("input"))));
        assert!(values(first.as_bytes(), INPUT).all < 40);
        for elsewhere in [
            request(&message(&format!("[{}]", part("details")))),
            request(&message(&part("input"))),
            request(&part("input")),
            request(&message(&format!("[[{}]]", part("input")))),
            format!(r#"{{"messages":[],"metadata":{}}}"#, part("input")),
            format!(r#"{{"content":[{}]}}"#, part("input")),
            format!("[{}]", part("input")),
        ] {
            assert!(values(elsewhere.as_bytes(), INPUT).all >= 500, "{elsewhere}");
        }
        let small = part("input").replace(&ones, &format!("[{}1]", "1,".repeat(100)));
        assert!(values(request(&message(&format!("[{small}]"))).as_bytes(), INPUT).all > 200, "it becomes a tree");
    }

    #[test]
    fn depth_is_that_of_the_deepest_place() {
        for (json, expected) in [("", 0), ("\"[[[\"", 0), ("[]", 1), (r#"[{"a]":[1]},[]]"#, 3), ("]]][", 1)] {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
        assert_eq!(depth("[".repeat(1_000_000).as_bytes()), 1_000_000);
    }
}
