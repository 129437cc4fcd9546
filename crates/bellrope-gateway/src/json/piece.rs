//! Strings that are pieces of a longer text.

use serde_json::value::RawValue;

use super::repair::{from_str, unit};

/// A JSON string that may begin with the second half of a surrogate pair and end with the first one of another. Half a
/// pair in its midst can never become whole, and is U+FFFD already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TextPiece {
    low: Option<u16>,
    text: String,
    high: Option<u16>,
}

impl TextPiece {
    /// The string in `json`; `None` for another type.
    pub(crate) fn of(json: &RawValue) -> Option<Self> {
        let quoted = json.get();
        if !quoted.starts_with('"') {
            return None;
        }
        // The usual case.
        serde_json::from_str::<String>(quoted).map(Self::from).ok().or_else(|| Self::in_quotes(quoted))
    }

    /// Whether it says nothing, not even half a character.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.low.is_none() && self.high.is_none()
    }

    /// The text, unless it has half a character at an end.
    pub(crate) fn whole(&self) -> Option<&str> {
        (self.low.is_none() && self.high.is_none()).then_some(&self.text)
    }

    /// The text but for halves at its ends.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The text by itself, with U+FFFD for half a pair.
    pub(crate) fn alone(self) -> String {
        let mut seam = Seam::default();
        let mut text = seam.join(self);
        text.extend(seam.rest());
        text
    }

    fn in_quotes(quoted: &str) -> Option<Self> {
        let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
        let (mut start, mut end) = (0, inner.len());
        let low = unit(inner.as_bytes()).filter(|unit| matches!(unit, 0xDC00..=0xDFFF));
        if low.is_some() {
            start = 6;
        }
        let last = end.checked_sub(6).filter(|&at| at >= start && is_escape(inner, at));
        let high = last.and_then(|at| unit(&inner.as_bytes()[at..])).filter(|unit| matches!(unit, 0xD800..=0xDBFF));
        if high.is_some() {
            end -= 6;
        }
        let text = from_str(&format!("\"{}\"", &inner[start..end])).ok()?;
        Some(Self { low, text, high })
    }
}

impl From<String> for TextPiece {
    fn from(text: String) -> Self {
        Self { low: None, text, high: None }
    }
}

/// Whether the backslash at `at` begins an escape, rather than being escaped itself.
fn is_escape(inner: &str, at: usize) -> bool {
    let before = &inner.as_bytes()[..at];
    inner.as_bytes()[at] == b'\\' && before.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0
}

/// Where the pieces of one text are joined.
#[derive(Debug, Default)]
pub(crate) struct Seam {
    /// The half with which the last piece ended.
    high: Option<u16>,
}

impl Seam {
    /// What a piece adds to the text. A half that it ends with waits for the next piece.
    pub(crate) fn join(&mut self, piece: TextPiece) -> String {
        if piece.is_empty() {
            return String::new();
        }
        let TextPiece { low, text, high } = piece;
        let first = match (self.high.take(), low) {
            (None, None) => None,
            (Some(high), Some(low)) => char::decode_utf16([high, low]).next().and_then(Result::ok),
            _ => Some(char::REPLACEMENT_CHARACTER),
        };
        self.high = high;
        match first {
            None => text,
            Some(first) => format!("{first}{text}"),
        }
    }

    /// What is left when no piece follows.
    pub(crate) fn rest(&mut self) -> Option<char> {
        self.high.take().map(|_| char::REPLACEMENT_CHARACTER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::repair::raw;
    use super::*;

    fn piece(json: &str) -> Option<TextPiece> {
        raw(json, TextPiece::of).unwrap()
    }

    fn joined(pieces: &[&str]) -> String {
        let mut seam = Seam::default();
        let mut text: String = pieces.iter().map(|json| seam.join(piece(json).unwrap())).collect();
        text.extend(seam.rest());
        text
    }

    // Fault 70.
    #[test]
    fn a_pair_that_is_split_over_pieces_is_joined_and_a_lone_half_is_replaced() {
        for (pieces, text) in [
            (&[r#""bell \ud83d""#, r#""\udd14 rings""#][..], "bell 🔔 rings"),
            (&[r#""\ud83d""#, r#""""#, r#""\udd14""#], "🔔"),
            (&[r#""\ud83d""#, r#""\udd14\ud83d""#, r#""\udd14""#], "🔔🔔"),
            (&[r#""\ud83d""#, r#""x""#], "\u{fffd}x"),
            (&[r#""x""#, r#""\udd14""#], "x\u{fffd}"),
            (&[r#""a\ud83d""#], "a\u{fffd}"),
            (&[r#""a\\ud83d""#, r#""\udd14""#], "a\\ud83d\u{fffd}"),
            (&[r#""a\ud83db""#, r#""c""#], "a\u{fffd}bc"),
        ] {
            assert_eq!(joined(pieces), text, "{pieces:?}");
        }
        assert_eq!(piece("7"), None);
    }

    proptest! {
        /// However the units of a text are cut into pieces, the text is the same.
        #[test]
        fn every_cut_of_a_text_gives_the_same_text(
            units in proptest::collection::vec(prop_oneof![Just(0xd83d_u16), Just(0xdd14), any::<u16>()], 0..10),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(units.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(units.len());
            let mut from = 0;
            let mut pieces = Vec::new();
            for to in cuts {
                let escaped: String = units[from..to].iter().map(|unit| format!("\\u{unit:04x}")).collect();
                pieces.push(format!("\"{escaped}\""));
                from = to;
            }
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(joined(&pieces), String::from_utf16_lossy(&units));
        }
    }
}
