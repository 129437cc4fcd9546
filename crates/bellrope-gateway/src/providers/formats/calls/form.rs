//! Whether JSON that comes in pieces is at its end.

/// Follows the brackets of a JSON object.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Form {
    depth: u32,
    is_begun: bool,
    in_string: bool,
    is_escaped: bool,
    is_final: bool,
}

impl Form {
    /// That of arguments to which nothing will be added.
    pub(super) fn whole() -> Self {
        Self { is_begun: true, is_final: true, ..Self::default() }
    }

    /// Takes more text in.
    pub(super) fn push(&mut self, text: &str) {
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

    /// Whether an object or a list has begun and ended.
    pub(super) fn is_whole(self) -> bool {
        self.is_begun && self.depth == 0 && !self.in_string
    }

    /// Whether nothing will be added.
    pub(super) fn is_final(self) -> bool {
        self.is_final
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
