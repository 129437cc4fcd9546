//! Which value of a JSON text stands at a line and column, so that an error can name it.

use super::super::codec::Step;

/// Most levels that are followed.
const MOST_LEVELS: usize = 128;

/// An object or a list that is not closed yet.
enum Open {
    /// With the place of the key whose value comes or came last.
    Object(Option<(usize, usize)>),
    /// With the number of the element.
    List(usize),
}

/// The steps from the whole text to what ends at `line` (from 1) and `column` (in bytes).
pub(super) fn steps(text: &[u8], line: usize, column: usize) -> Vec<Step> {
    let open = open_at(&text[..end(text, line, column)]);
    let step = |open: &Open| match open {
        Open::List(index) => Some(Step::Index(*index)),
        Open::Object(key) => key.map(|(from, to)| Step::Name(name(&text[from..to]).into())),
    };
    open.iter().filter_map(step).collect()
}

/// Where that is in the text.
pub(super) fn end(text: &[u8], line: usize, column: usize) -> usize {
    let starts = text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1));
    starts.map(<[u8]>::len).sum::<usize>().saturating_add(column).min(text.len())
}

/// What is open at the end of the text.
fn open_at(text: &[u8]) -> Vec<Open> {
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let from = at;
        at += 1;
        match byte {
            b'"' => {
                at = end_of_text(text, at);
                if let Some(Open::Object(key @ None)) = open.last_mut() {
                    *key = Some((from, at));
                }
            }
            b'{' | b'[' if open.len() == MOST_LEVELS => break,
            b'{' => open.push(Open::Object(None)),
            b'[' => open.push(Open::List(0)),
            b'}' | b']' => drop(open.pop()),
            b',' => match open.last_mut() {
                Some(Open::Object(key)) => *key = None,
                Some(Open::List(index)) => *index += 1,
                None => {}
            },
            _ => {}
        }
    }
    open
}

/// Where a text ends whose first quotation mark stands before `at`.
fn end_of_text(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            b'"' => break,
            _ => {}
        }
    }
    at.min(text.len())
}

fn name(quoted: &[u8]) -> String {
    serde_json::from_slice(quoted).unwrap_or_else(|_| String::from_utf8_lossy(quoted).into_owned())
}
