//! What people are shown of a peer's words.

/// A text in which a peer's words may stand, for people: of at most so many bytes, and without letters that steer a terminal.
#[cold]
pub(super) fn bounded(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let end = shown.len();
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        if shown.len() > most {
            shown.truncate(end);
            shown.push_str("...");
            break;
        }
    }
    shown
}
