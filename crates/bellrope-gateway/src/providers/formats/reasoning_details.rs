//! The `reasoning_details` of an answer, put together from the pieces in which they come.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json::{each, repaired};
use crate::message::Chunk;
use crate::reasoning::details_of;

/// The most bytes of one answer's, and the most items.
const MAX_BYTES: usize = 1 << 20;
const MAX_ITEMS: usize = 256;

/// What has come and was not handed out yet.
#[derive(Debug, Default)]
pub(super) struct ReasoningDetails {
    items: Vec<Map<String, Value>>,
    /// Of all that came.
    bytes: usize,
    count: usize,
}

impl ReasoningDetails {
    /// Whether any came.
    pub(super) fn are_there(&self) -> bool {
        self.count > 0
    }

    /// Takes a list in, or what stands for one. Whether there was room.
    pub(super) fn take(&mut self, list: &RawValue) -> bool {
        let mut has_room = true;
        let mut one = |item: &RawValue| {
            // As text, before it is read: what is nested takes many times its length.
            self.bytes = self.bytes.saturating_add(item.get().len());
            if self.bytes > MAX_BYTES {
                has_room = false;
                return;
            }
            let Ok(Value::Object(item)) = serde_json::from_str(&repaired(item.get())) else { return };
            has_room &= self.add(item);
        };
        let is_list = each(list, |_, item| {
            one(item);
            Ok::<(), ()>(())
        });
        if is_list == Ok(false) {
            one(list);
        }
        has_room
    }

    fn add(&mut self, item: Map<String, Value>) -> bool {
        if self.count >= MAX_ITEMS {
            return false;
        }
        match self.items.last_mut().filter(|last| goes_on(last, &item)) {
            Some(last) => item.into_iter().for_each(|(name, value)| more(last, name, value)),
            None => {
                self.items.push(item);
                self.count += 1;
            }
        }
        true
    }

    /// Hands out what has come, each item by itself.
    pub(super) fn hand_out(&mut self, out: &mut VecDeque<Chunk>) {
        let items = self.items.drain(..).map(|item| Chunk::ReasoningDetails { details: details_of(item.into()) });
        out.extend(items);
    }
}

/// Whether a piece is more of this item. What is encrypted comes whole.
fn goes_on(last: &Map<String, Value>, piece: &Map<String, Value>) -> bool {
    let is_same = |name: &str| last.get(name) == piece.get(name);
    let may_be =
        |name: &str| [last, piece].iter().any(|item| item.get(name).is_none_or(Value::is_null)) || is_same(name);
    is_same("type") && may_be("index") && may_be("id") && !piece.contains_key("data")
}

fn more(item: &mut Map<String, Value>, name: String, value: Value) {
    match (item.get_mut(&name), value) {
        (Some(Value::String(text)), Value::String(more)) if name == "text" || name == "summary" => text.push_str(&more),
        (Some(_), Value::Null) => {}
        (_, value) => drop(item.insert(name, value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::json::raw;

    fn taken(lists: &[Value]) -> Vec<Value> {
        let (mut details, mut out) = (ReasoningDetails::default(), VecDeque::new());
        for list in lists {
            assert!(raw(&list.to_string(), |list| details.take(list)).unwrap());
        }
        details.hand_out(&mut out);
        let item = |chunk| match chunk {
            Chunk::ReasoningDetails { details } => details["reasoning_details"][0].clone(),
            other => panic!("{other:?}"),
        };
        out.into_iter().map(item).collect()
    }

    #[test]
    fn items_that_come_in_pieces_are_whole_again() {
        let text = |text: &str| json!([{"type": "reasoning.text", "text": text, "index": 0, "signature": null}]);
        let sealed = |data: &str| json!([{"type": "reasoning.encrypted", "data": data, "index": 1}]);
        let signed = json!({"type": "reasoning.text", "signature": "c2ln", "index": 0, "format": "f"});
        let found = taken(&[text("h"), text("m"), signed, sealed("a"), sealed("b"), json!([7, {"type": "later"}])]);
        assert_eq!(
            found,
            [
                json!({"type": "reasoning.text", "text": "hm", "signature": "c2ln", "format": "f", "index": 0}),
                sealed("a")[0].clone(),
                sealed("b")[0].clone(),
                json!({"type": "later"}),
            ]
        );
    }

    #[test]
    fn they_are_bounded_in_bytes_and_in_number() {
        let nested = json!([{"type": "t", "junk": vec![0; 10_000]}]);
        for item in [json!([{"type": "reasoning.text", "text": "x".repeat(10_000)}]), json!([{"data": "x"}]), nested] {
            let mut details = ReasoningDetails::default();
            let item = item.to_string();
            let refused = (0..1_000).filter(|_| !raw(&item, |item| details.take(item)).unwrap()).count();
            assert!(refused > 500 && details.items.len() <= MAX_ITEMS);
        }
    }
}
