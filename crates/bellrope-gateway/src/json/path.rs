//! Which value of a document a fault is in, told by reading its beginning again.
//!
//! A reader that keeps its path would tell it, too, but all types would be there twice: once for each reader.

use super::scan::{MAX_DEPTH, end_of_string};

/// The longest path that is told, in bytes.
const MAX_PATH: usize = 256;

/// The path to the value that is at fault, as in `messages[1].role`. `None`: it is the whole document. `read` reads a document, and
/// tells what is wrong with it.
pub(super) fn of_fault(json: &str, read: &dyn Fn(&str) -> Option<serde_json::Error>) -> Option<String> {
    let error = read(json)?;
    let walk = Walk::to(json.as_bytes(), offset(json, error.line(), error.column())?);
    // What a list, an object or a field is at fault for is known at its end, or, where its parts were kept until then, in what
    // follows: the first of the ends behind which it is known is that of the value.
    let known = |end: &usize| json.get(..*end).and_then(read).is_some_and(|error| error.is_data());
    let ends = error.is_data().then_some([walk.last_within, walk.last]);
    match ends.into_iter().flatten().flatten().find(known) {
        Some(end) => Walk::to(json.as_bytes(), end).path(json),
        None => walk.path(json),
    }
}

/// Where a line's column is, in bytes. Both count from 1.
fn offset(json: &str, line: usize, column: usize) -> Option<usize> {
    let start = match line.checked_sub(2) {
        Some(breaks) => memchr::memchr_iter(b'\n', json.as_bytes()).nth(breaks)? + 1,
        None => 0,
    };
    Some((start + column).min(json.len())).filter(|_| line > 0)
}

/// A list or an object that has begun.
enum Within {
    /// With the number of the element.
    List(usize),
    /// With where the name of the field stands, once that is there.
    Object(Option<(usize, usize)>),
}

/// The way through a document up to some byte.
#[derive(Default)]
struct Walk {
    within: Vec<Within>,
    /// How many lists and objects have begun in the deepest one that is remembered.
    deeper: usize,
    /// Where the latest value ended.
    last: Option<usize>,
    /// Where the last value in it ended, if it is a list or an object.
    last_within: Option<usize>,
}

impl Walk {
    fn to(json: &[u8], stop: usize) -> Self {
        let mut walk = Self::default();
        let mut at = 0;
        while at < stop {
            let byte = json[at];
            let end = match byte {
                b'"' => (end_of_string(json, at + 1) + 1).min(json.len()),
                byte if is_mark(byte) => at + 1,
                _ => json[at..].iter().position(|byte| is_mark(*byte)).map_or(json.len(), |len| at + len),
            };
            if end > stop {
                break;
            }
            walk.take(byte, at, end);
            at = end;
        }
        walk
    }

    /// Takes in what stands from `at` to `end`, and begins with this byte.
    fn take(&mut self, byte: u8, at: usize, end: usize) {
        match byte {
            b'[' | b'{' if self.deeper > 0 || self.within.len() > MAX_DEPTH => self.deeper += 1,
            b']' | b'}' if self.deeper > 1 => self.deeper -= 1,
            b']' | b'}' if self.deeper == 1 => {
                self.deeper = 0;
                (self.last, self.last_within) = (Some(end), None);
            }
            _ if self.deeper > 0 => {}
            b'[' | b'{' => {
                self.within.push(if byte == b'[' { Within::List(0) } else { Within::Object(None) });
                (self.last, self.last_within) = (None, None);
            }
            b']' | b'}' => {
                self.within.pop();
                (self.last, self.last_within) = (Some(end), self.last);
            }
            b',' => match self.within.last_mut() {
                Some(Within::List(number)) => *number += 1,
                Some(Within::Object(name)) => *name = None,
                None => {}
            },
            b':' | b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => match self.within.last_mut() {
                Some(Within::Object(name @ None)) => *name = Some((at + 1, end - 1)),
                _ => (self.last, self.last_within) = (Some(end), None),
            },
        }
    }

    /// The path to the value that ended here, or else to the one that begins or goes on here.
    fn path(&self, json: &str) -> Option<String> {
        let mut path = String::new();
        for within in &self.within {
            match within {
                Within::List(number) => path.push_str(&format!("[{number}]")),
                Within::Object(None) => {}
                Within::Object(Some((from, to))) => {
                    let dot = if path.is_empty() { "" } else { "." };
                    path.extend([dot, json.get(*from..*to).unwrap_or_default()]);
                }
            }
            if path.len() > MAX_PATH {
                return None;
            }
        }
        Some(path).filter(|path| !path.is_empty())
    }
}

/// Whether it stands between values, or begins or ends one.
fn is_mark(byte: u8) -> bool {
    matches!(byte, b'[' | b'{' | b']' | b'}' | b',' | b':' | b'"' | b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "it is read to see how that fails")]
    struct Document {
        name: String,
        #[serde(default)]
        rows: Vec<Row>,
        #[serde(default)]
        kept: Vec<Kept>,
        one: Option<Kept>,
        texts: Option<Vec<String>>,
        by_name: Option<BTreeMap<String, u8>>,
        #[serde(default)]
        pair: (u8, Inner),
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "as above")]
    struct Row {
        role: String,
        inner: Option<Inner>,
    }

    #[derive(Default, Deserialize)]
    #[expect(dead_code, reason = "as above")]
    struct Inner {
        deep: u8,
    }

    /// It is kept whole before its fields are read.
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "as above")]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Kept {
        Text { text: String },
        Row(Row),
    }

    fn path(json: &str) -> Option<String> {
        of_fault(json, &|json| serde_json::from_str::<Document>(json).err())
    }

    #[test]
    fn the_value_at_fault_is_named() {
        for (json, expected) in [
            (r#"{"name":7}"#, "name"),
            (r#"{"name":{}}"#, "name"),
            (r#"{"name": [1], "rows":[]}"#, "name"),
            (r#"{"rows":[{}],"name":"x"}"#, "rows[0]"),
            (r#"{"rows":[{"role":"a"},{"role":7}],"name":"x"}"#, "rows[1].role"),
            (r#"{"rows":[{"role":"a"},{"rule":"b"}],"name":"x"}"#, "rows[1]"),
            (r#"{"rows":[{"role":"a"},"b",{"role":"c"}]}"#, "rows[1]"),
            (r#"{"rows":[{"role":"a"},[[]],{"role":"c"}]}"#, "rows[1][0]"),
            (r#"{"rows":"none"}"#, "rows"),
            (r#"{"rows":[{"role":"a","inner":{"deep":300}}]}"#, "rows[0].inner.deep"),
            (r#"{"rows":[{"role":"a","inner":{"deep": -1 } } ] }"#, "rows[0].inner.deep"),
            (r#"{"rows":[{"role":"a","inner":[]}]}"#, "rows[0].inner"),
            (r#"{"rows":[{"role":"a","x":[[{"y":"]\"}"}]],"inner":{}}]}"#, "rows[0].inner"),
            (r#"{"kept":[{"type":"text","text":"a"},{"type":"text"}]}"#, "kept[1]"),
            (r#"{"kept":[{"type":"text"},{"type":"text","text":"a"}]}"#, "kept[0]"),
            (r#"{"kept":[{"type":"text"} , {"type":"text","text":"a"}]}"#, "kept[0]"),
            (r#"{"kept":[{"type":"odd"}]}"#, "kept[0].type"),
            (r#"{"kept":[{"type":"row","role":[]}]}"#, "kept[0]"),
            (r#"{"kept":[7]}"#, "kept[0]"),
            (r#"{"one":{"type":"text"}}"#, "one"),
            (r#"{"one":{"type":"text"},"name":"x"}"#, "one"),
            (r#"{"texts":["a","b",{}]}"#, "texts[2]"),
            (r#"{"texts":["a",null]}"#, "texts[1]"),
            (r#"{"texts":[[]]}"#, "texts[0]"),
            (r#"{"by_name":{"a":1,"b c":"x"}}"#, "by_name.b c"),
            (r#"{"pair":[1]}"#, "pair"),
            (r#"{"pair":[1,{"deep":""}]}"#, "pair[1].deep"),
            ("[7]", "[0]"),
            ("{\n\n \"name\":\n7}", "name"),
            ("{\"name\": \"a\nb\", \"rows\": 7}", "name"),
            (r#"{"rows":[{"role":"a"},{"role":"#, "rows[1].role"),
        ] {
            assert_eq!(path(json).as_deref(), Some(expected), "{json}");
        }
        for json in ["", "7", "{}", r#"{"rows":[]}"#, r#"{"name":"x",}"#, r#"{"name":"x"} y"#, r#"{"name":"x"}"#] {
            assert_eq!(path(json), None, "{json}");
        }
    }

    #[test]
    fn no_document_takes_long_or_has_a_long_path() {
        let long = format!(r#"{{"by_name":{{"{}":"x"}}}}"#, "n".repeat(MAX_PATH));
        assert_eq!(path(&long), None);
        let deep = format!(r#"{{"x":{}{},"name":7}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(path(&deep).as_deref(), Some("name"));
    }
}
