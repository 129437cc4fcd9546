//! What JSON that comes in pieces is so far: whether it is at its end, and whether it says anything. Each byte is looked at
//! once, however many pieces there are.

/// What stands for no arguments: servers send an empty object where none are needed, or before the true ones.
const BLANK: [&[u8]; 4] = [b"", b"{}", b"null", b"[]"];
/// Bytes of the longest of them.
const LONGEST: usize = 4;

/// Follows the brackets of a JSON object.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Form {
    depth: u32,
    is_begun: bool,
    in_string: bool,
    is_escaped: bool,
    is_final: bool,
    says: Says,
}

/// Whether there is more than white space around one of [`BLANK`].
#[derive(Debug, Default, Clone, Copy)]
struct Says {
    word: [u8; LONGEST],
    len: usize,
    /// Whether white space came after the word.
    is_over: bool,
    something: bool,
}

impl Form {
    /// That of arguments to which nothing will be added.
    pub(super) fn whole() -> Self {
        Self { is_begun: true, is_final: true, ..Self::default() }
    }

    /// Takes more text in.
    pub(super) fn push(&mut self, text: &str) {
        self.says.push(text);
        for byte in text.bytes() {
            if self.in_string {
                if self.is_escaped {
                    self.is_escaped = false;
                } else {
                    self.is_escaped = byte == b'\\';
                    self.in_string = byte != b'"';
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.is_begun = true;
                    self.depth = self.depth.saturating_add(1);
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Whether the end is within a string.
    pub(super) fn is_in_string(self) -> bool {
        self.in_string
    }

    /// Whether an object or a list has begun and ended.
    pub(super) fn is_whole(self) -> bool {
        self.is_begun && self.depth == 0 && !self.in_string
    }

    /// Whether it says nothing so far.
    pub(super) fn is_blank(self) -> bool {
        !self.says.something && BLANK.contains(&&self.says.word[..self.says.len])
    }

    /// Whether nothing will be added.
    pub(super) fn is_final(self) -> bool {
        self.is_final
    }
}

impl Says {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.something {
                return;
            }
            if byte.is_ascii_whitespace() {
                self.is_over = self.len > 0;
            } else if self.is_over || self.len == LONGEST {
                self.something = true;
            } else {
                self.word[self.len] = byte;
                self.len += 1;
            }
        }
    }
}

/// Whether arguments say nothing.
pub(super) fn is_blank(arguments: &str) -> bool {
    let mut says = Form::default();
    says.says.push(arguments);
    says.is_blank()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_something_once_there_is_more_than_an_empty_value_however_they_are_cut() {
        for (text, expected) in [
            ("", true),
            (" \n\t", true),
            (" {} ", true),
            ("null", true),
            ("[]\r\n", true),
            ("{ }", false),
            ("nul", false),
            ("{", false),
            ("nullx", false),
            ("{} {}", false),
            ("{\"a\":1}", false),
        ] {
            let mut form = Form::default();
            text.chars().for_each(|c| form.push(c.encode_utf8(&mut [0; 4])));
            assert_eq!((form.is_blank(), is_blank(text)), (expected, expected), "{text:?}");
        }
    }

    #[test]
    fn an_object_is_whole_at_its_last_bracket_and_not_before() {
        let text = r#"{"a\"}":[{"b":"]"}]}"#;
        for end in 0..=text.len() {
            let mut form = Form::default();
            form.push(&text[..end]);
            assert_eq!(form.is_whole(), end == text.len(), "{}", &text[..end]);
        }
    }
}
