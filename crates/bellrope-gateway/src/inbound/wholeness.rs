//! Arguments of a call of a tool as they come.

/// Whether the text of a JSON object or list has come to its end.
#[derive(Debug, Default)]
pub(super) struct Wholeness {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    is_whole: bool,
}

impl Wholeness {
    /// Reads on.
    pub(super) fn read(&mut self, more: &str) {
        for byte in more.bytes() {
            if self.is_in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    self.is_whole |= self.depth == 0;
                }
                _ => {}
            }
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }
}
