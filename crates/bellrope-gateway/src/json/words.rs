//! What is wrong with a document, in words for those who wrote it.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::path::of_fault;
use super::repair::BYTE_ORDER_MARK;
use super::{repaired, without_twins};

/// What stands before the name of a type that was expected, in serde's words.
const TYPES: [&str; 8] = [
    "internally tagged enum ",
    "adjacently tagged enum ",
    "struct variant ",
    "tuple struct ",
    "newtype struct ",
    "unit struct ",
    "struct ",
    "enum ",
];

/// serde's words without the names that types have in this program.
pub(crate) fn plain_words(error: &str) -> Cow<'_, str> {
    const EXPECTED: &str = "expected ";
    let Some(at) = error.rfind(EXPECTED).map(|at| at + EXPECTED.len()) else { return error.into() };
    let (before, found) = error.split_at(at);
    let Some(rest) = TYPES.iter().find_map(|name| found.strip_prefix(name)) else { return error.into() };
    let rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let counted = rest.strip_prefix(" with ").and_then(|rest| rest.split_once(" element"));
    let rest = counted.map_or(rest, |(_, rest)| rest.strip_prefix('s').unwrap_or(rest));
    format!("{before}an object{rest}").into()
}

/// The place of what a `T` cannot be read from, as in `messages[1].role`.
pub(crate) fn place_of_fault<T: DeserializeOwned>(json: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(json);
    let text = repaired(text.trim_start_matches(BYTE_ORDER_MARK));
    // As for all texts: a second kind of reader would have every type once more in the program.
    of_fault(&without_twins(&text), &|text| serde_json::from_str::<T>(text).err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_of_this_program_is_named() {
        for (error, plain) in [
            (
                "invalid type: string \"x\", expected struct WireFormat at line 1",
                "invalid type: string \"x\", expected an object at line 1",
            ),
            (
                "invalid type: sequence, expected struct ChatRequest with 27 elements",
                "invalid type: sequence, expected an object",
            ),
            (
                "invalid length 0, expected struct X with 1 element at line 1",
                "invalid length 0, expected an object at line 1",
            ),
            ("invalid type: null, expected internally tagged enum Part", "invalid type: null, expected an object"),
            (
                "invalid type: string \"expected struct X\", expected u32",
                "invalid type: string \"expected struct X\", expected u32",
            ),
            ("unknown variant `x`, expected one of `a`, `b`", "unknown variant `x`, expected one of `a`, `b`"),
            ("trailing comma at line 1 column 2", "trailing comma at line 1 column 2"),
        ] {
            assert_eq!(plain_words(error), plain);
        }
    }
}
