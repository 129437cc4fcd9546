//! What is wrong with a text in other words than serde_json's, where those name what nobody wrote.

use serde::de::IgnoredAny;

use super::place;

const VALUE: &str = "expected value at line ";
const PLAIN: &str = "invalid type: unit variant, expected ";
const HALF: &str = "unexpected end of hex escape at line ";

/// What serde_json found wrong with this text, and in which column of its line that is.
#[cold]
pub(super) fn of(text: &[u8], error: &serde_json::Error) -> (String, usize) {
    let said = error.to_string();
    let (line, column) = (error.line(), error.column());
    if said.starts_with(VALUE) && serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        let words = format!(
            "one variant of an enum is expected, as {{\"name\": ...}} with nothing beside it, or as \"name\" if it has no \
             contents, at line {line} column {column}"
        );
        // It is the list that is none, and not its first element.
        let is_list = text[..place::end(text, line, column)].ends_with(b"[");
        return (words, column - usize::from(is_list));
    }
    if let Some(kind) = said.strip_prefix(PLAIN) {
        let before = &text[..place::end(text, line, column)];
        let name = text_at_end(before).map_or("name".into(), String::from_utf8_lossy);
        let contents = if kind.starts_with("struct") { "{...}" } else { "..." };
        let words = format!(
            "the variant `{name}` has contents: {{\"{name}\": {contents}}} is expected, at line {line} column {column}"
        );
        return (words, column);
    }
    if said.starts_with(HALF) {
        let words =
            format!("a \\u escape is half of a surrogate pair without its other half, at line {line} column {column}");
        return (words, column);
    }
    (said, column)
}

/// Most bytes of a name that are said.
const MOST_NAME: usize = 64;

/// The short text in quotation marks that ends there.
fn text_at_end(before: &[u8]) -> Option<&[u8]> {
    // What comes behind it may be looked at already.
    let behind = || before.split_last()?.1.trim_ascii_end().strip_suffix(b"\"");
    let inside = before.strip_suffix(b"\"").or_else(behind)?;
    let inside = &inside[inside.len().saturating_sub(MOST_NAME)..];
    let begin = inside.iter().rposition(|byte| *byte == b'"')?;
    Some(&inside[begin + 1..])
}
