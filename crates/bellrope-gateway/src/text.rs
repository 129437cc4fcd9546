//! Cutting text.

/// Where to cut a text so that at most so many bytes are left, and no character is cut.
pub(crate) fn boundary(text: &str, most: usize) -> usize {
    let mut at = text.len().min(most);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
