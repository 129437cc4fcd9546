//! The items of recent answers, which some tools do not send again: OpenAI's own server keeps them, so that a request may name an
//! item by its id.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::gateway::Owner;
use crate::inbound::fault::Fault;
use crate::inbound::writer::AnswerWriter;
use crate::json;
use crate::message::{ChatResponse, Chunk};

/// What all items take together, in bytes, and one of them. The oldest are forgotten first.
const MAX_ALL: usize = 1024 * 1024;
pub(super) const MAX_ITEM: usize = 64 * 1024;
/// What an item takes beside its text.
const ENTRY: usize = 192;

/// The type of an item that names another one.
const REFERENCE: &str = "item_reference";

/// Items of answers, each for whoever asked. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct KeptItems(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    by_id: HashMap<(Owner, String), Box<str>>,
    /// Oldest first.
    order: VecDeque<(Owner, String)>,
    bytes: usize,
}

impl KeptItems {
    /// A request for responses with the items in the place of their references, as far as they are known. `None`: it has none.
    #[must_use]
    pub fn filled(&self, owner: Owner, body: &[u8]) -> Option<Vec<u8>> {
        memchr::memmem::find(body, REFERENCE.as_bytes())?;
        let mut request: Value = json::from_slice(body).ok()?;
        let (mut is_filled, mut left) = (false, MAX_ALL);
        for item in request.get_mut("input")?.as_array_mut()? {
            let is_reference = item["type"] == REFERENCE;
            let known = item["id"].as_str().filter(|_| is_reference).and_then(|id| self.find(owner, id, &mut left));
            if let Some(known) = known {
                (*item, is_filled) = (known, true);
            }
        }
        is_filled.then(|| request.to_string().into_bytes())
    }

    /// A writer that remembers the items of its answer.
    #[must_use]
    pub fn writer(&self, owner: Owner, writer: Box<dyn AnswerWriter>) -> Box<dyn AnswerWriter> {
        Box::new(Remembering { items: self.clone(), owner, writer })
    }

    /// `left`: how many bytes a request may still be filled with. What goes beyond stays a reference, which is refused.
    fn find(&self, owner: Owner, id: &str, left: &mut usize) -> Option<Value> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let item = kept.by_id.get(&(owner, id.to_owned()))?;
        *left = left.checked_sub(ENTRY + item.len())?;
        serde_json::from_str(item).ok()
    }

    fn keep(&self, owner: Owner, item: &Value) {
        let Some(id) = item["id"].as_str() else { return };
        let text = item.to_string();
        if text.len() > MAX_ITEM {
            return;
        }
        let key = (owner, id.to_owned());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += ENTRY + text.len();
        match kept.by_id.insert(key.clone(), text.into()) {
            Some(earlier) => kept.bytes -= ENTRY + earlier.len(),
            None => kept.order.push_back(key),
        }
        while kept.bytes > MAX_ALL
            && let Some(oldest) = kept.order.pop_front()
        {
            let forgotten = kept.by_id.remove(&oldest).map_or(0, |item| ENTRY + item.len());
            kept.bytes -= forgotten;
        }
    }
}

/// Writes an answer, and remembers its items when it is whole.
struct Remembering {
    items: KeptItems,
    owner: Owner,
    writer: Box<dyn AnswerWriter>,
}

impl Remembering {
    fn remember(&self) {
        self.writer.items(&mut |item| self.items.keep(self.owner, item));
    }
}

impl AnswerWriter for Remembering {
    fn expect(&mut self, input_tokens: u64) {
        self.writer.expect(input_tokens);
    }

    fn whole(&mut self, response: ChatResponse) -> serde_json::Result<Vec<u8>> {
        let whole = self.writer.whole(response);
        self.remember();
        whole
    }

    fn items(&self, keep: &mut dyn FnMut(&Value)) {
        self.writer.items(keep);
    }

    fn held(&self) -> usize {
        self.writer.held()
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        self.writer.begin(out);
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>) {
        let is_end = matches!(chunk, Chunk::Done { .. });
        self.writer.chunk(chunk, out);
        if is_end {
            self.remember();
        }
    }

    fn tells_in_stream(&self, fault: &Fault) -> bool {
        self.writer.tells_in_stream(fault)
    }

    fn fail(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        self.writer.fail(fault, out);
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        self.writer.ping(out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inbound::ToolFormat;
    use crate::testing::call;

    fn asked(body: &Value) -> crate::inbound::Asked {
        ToolFormat::Responses.read(body.to_string().as_bytes(), &[]).unwrap()
    }

    // As Vercel's AI SDK has it: it sends the result of a call, and names the call.
    #[test]
    fn an_item_that_is_named_stands_in_its_place_for_whoever_was_told_of_it() {
        let (items, own) = (KeptItems::default(), Owner::User(7));
        let answer = |body: Value| {
            let mut out = Vec::new();
            let mut writer = items.writer(own, asked(&body).writer);
            writer.begin(&mut out);
            for chunk in [
                call(0, Some("t1"), Some("look"), "{\"at\":1}"),
                Chunk::Done { stop_reason: crate::StopReason::ToolUse },
            ] {
                writer.chunk(chunk, &mut out);
            }
            let text = String::from_utf8(out).unwrap();
            let (_, rest) = text.split_once("\"id\":\"fc_").unwrap();
            format!("fc_{}", rest.split_once('"').unwrap().0)
        };
        let id = answer(json!({"input": "Look."}));
        let next = |id: &str| {
            json!({"input": [
                {"role": "user", "content": "Look."}, {"type": "item_reference", "id": id},
                {"type": "function_call_output", "call_id": "t1", "output": "a bell"},
            ]})
        };
        let filled = items.filled(own, next(&id).to_string().as_bytes()).unwrap();
        let chat = ToolFormat::Responses.read(&filled, &[]).unwrap().chat;
        assert!(serde_json::to_string(&chat).unwrap().contains("\"name\":\"look\""), "{chat:?}");
        for (owner, body) in [
            (Owner::User(8), next(&id)),
            (own, next("fc_other")),
            (own, json!({"input": [{"role": "user", "content": "what is an item_reference?"}]})),
            (own, json!({"input": "item_reference"})),
        ] {
            assert_eq!(items.filled(owner, body.to_string().as_bytes()), None, "{body}");
        }
        let secret = answer(json!({"input": "Look.", "store": false}));
        assert_eq!(items.filled(own, next(&secret).to_string().as_bytes()), None, "it was not to be kept");
    }

    #[test]
    fn an_item_that_is_named_often_fills_no_more_than_all_items_take() {
        let (items, own) = (KeptItems::default(), Owner::User(7));
        items.keep(own, &json!({"id": "large", "text": "x".repeat(MAX_ITEM - 100)}));
        let body = json!({"input": vec![json!({"type": "item_reference", "id": "large"}); 1_000]}).to_string();
        let filled = items.filled(own, body.as_bytes()).unwrap();
        assert!(filled.len() < body.len() + 2 * MAX_ALL, "{}", filled.len());
        assert!(memchr::memmem::find(&filled, REFERENCE.as_bytes()).is_some(), "what is left is refused");
    }

    #[test]
    fn items_are_bounded() {
        let items = KeptItems::default();
        for number in 0..200 {
            items.keep(Owner::User(7), &json!({"id": number.to_string(), "text": "x".repeat(MAX_ITEM / 2)}));
            items.keep(Owner::User(7), &json!({"id": "large", "text": "x".repeat(MAX_ITEM)}));
        }
        let kept = items.0.lock().unwrap();
        assert!(kept.bytes <= MAX_ALL && kept.by_id.len() == kept.order.len() && kept.by_id.len() > 10);
    }
}
