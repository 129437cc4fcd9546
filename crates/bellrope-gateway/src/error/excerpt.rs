//! Text that came from outside, made fit to be shown.

use std::fmt;

/// The longest [`Excerpt`], in characters.
pub const MAX_EXCERPT: usize = 512;

/// Text that came from outside, made fit for a log, a terminal or an editor: at most [`MAX_EXCERPT`] characters, with
/// control and direction-changing characters escaped.
///
/// ```
/// # use bellrope_gateway::Excerpt;
/// assert_eq!(Excerpt::new("  red\x1b[31m\n").as_str(), r"red\u{1b}[31m");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    /// Trims, escapes and cuts `text`; a cut ends in `…`.
    pub fn new(text: &str) -> Self {
        Self(escape(text.trim(), MAX_EXCERPT).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text with control and direction-changing characters escaped, cut to so many characters; a cut ends in `…`.
pub(crate) fn escape(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    let mut left = most - 1;
    for c in text.chars() {
        let escaped = c.escape_default();
        let wide = if must_escape(c) { escaped.len() } else { 1 };
        if wide > left {
            shown.push('…');
            break;
        }
        left -= wide;
        if must_escape(c) { shown.extend(escaped) } else { shown.push(c) }
    }
    shown
}

/// Controls, and what makes a text read differently from what it says: bidirectional marks and line separators.
fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
