//! What models thought before they called tools, for providers that want it back: tools of OpenAI's chat completions do not
//! send it.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use crate::asker::Asker;
use crate::message::{ChatRequest, Chunk, Content, Part, Role};
use crate::text::boundary;

/// What is remembered of one thought, and of all of them, in bytes. The oldest are forgotten first.
const MAX_THOUGHT: usize = 64 * 1024;
const MAX_ALL: usize = 1024 * 1024;
/// What an entry takes beside its text.
const ENTRY: usize = 128;

/// The thoughts that led to calls. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Thoughts(Arc<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the hash of whose call it is, and of its id.
    by_call: HashMap<u64, Arc<str>>,
    /// The hashes, oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

/// What one answer thinks.
#[derive(Debug)]
pub(super) struct Thinking {
    thoughts: Thoughts,
    asker: Asker,
    text: String,
}

impl Thinking {
    pub(super) fn new(thoughts: Thoughts, asker: Asker) -> Self {
        Self { thoughts, asker, text: String::new() }
    }

    /// Takes a piece of the answer in.
    pub(super) fn take_in(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Reasoning { text } => {
                let room = MAX_THOUGHT - self.text.len();
                self.text.push_str(&text[..boundary(text, room)]);
            }
            Chunk::ToolCall(delta) => {
                if let Some(id) = &delta.id {
                    self.thoughts.remember(&self.asker, id, &self.text);
                }
            }
            _ => {}
        }
    }
}

impl Thoughts {
    /// Remembers what led to the call with this id.
    pub(super) fn remember(&self, asker: &Asker, id: &str, thought: &str) {
        if thought.is_empty() || id.is_empty() {
            return;
        }
        let (hash, thought) = (self.hash(asker, id), &thought[..boundary(thought, MAX_THOUGHT)]);
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += thought.len() + ENTRY;
        match kept.by_call.insert(hash, thought.into()) {
            Some(earlier) => kept.bytes -= earlier.len() + ENTRY,
            None => kept.order.push_back(hash),
        }
        while kept.bytes > MAX_ALL
            && let Some(oldest) = kept.order.pop_front()
        {
            let forgotten = kept.by_call.remove(&oldest);
            kept.bytes -= forgotten.map_or(0, |thought| thought.len() + ENTRY);
        }
    }

    /// Puts what led to the calls of a conversation before them, where the tool did not send it.
    pub(super) fn restore(&self, request: &mut ChatRequest) {
        for message in request.messages.iter_mut().filter(|message| message.role == Role::Assistant) {
            let Content::Parts(parts) = &mut message.content else { continue };
            if parts.iter().any(|part| matches!(part, Part::Reasoning { .. })) {
                continue;
            }
            let id = |part: &Part| match part {
                Part::ToolUse { id, .. } => Some(self.hash(&request.asker, id)),
                _ => None,
            };
            let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let thought = parts.iter().filter_map(id).find_map(|hash| kept.by_call.get(&hash).map(Arc::clone));
            drop(kept);
            if let Some(thought) = thought {
                parts.insert(0, Part::Reasoning { text: thought.to_string(), details: None });
            }
        }
    }

    fn hash(&self, asker: &Asker, id: &str) -> u64 {
        self.0.hasher.hash_one((asker.kind, asker.name(), id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::asker::AskerKind;
    use crate::testing::call;

    fn asked(asker: &Asker, parts: &serde_json::Value) -> ChatRequest {
        let request = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": parts}]});
        ChatRequest { asker: asker.clone(), ..serde_json::from_value(request).unwrap() }
    }

    // Row 46.
    #[test]
    fn what_led_to_a_call_stands_before_it_again_for_whoever_asked() {
        let (thoughts, own) = (Thoughts::default(), Asker::new(AskerKind::Program, "aider", ""));
        let mut thinking = Thinking::new(thoughts.clone(), own.clone());
        for chunk in [Chunk::reasoning("I have to "), Chunk::reasoning("look."), call(0, Some("c"), Some("look"), "")] {
            thinking.take_in(&chunk);
        }
        let parts = json!([{"type": "tool_use", "id": "c", "name": "look"}]);
        let mut request = asked(&own, &parts);
        thoughts.restore(&mut request);
        let Content::Parts(restored) = &request.messages[1].content else { panic!("{request:?}") };
        let expected = Part::Reasoning { text: "I have to look.".into(), details: None };
        assert_eq!((restored.len(), &restored[0]), (2, &expected));
        let sent = json!([{"type": "reasoning", "text": "own"}, {"type": "tool_use", "id": "c", "name": "look"}]);
        let other = Asker::new(AskerKind::Program, "other", "");
        let text = json!([{"type": "text", "text": "c"}]);
        for request in [asked(&own, &sent), asked(&other, &parts), asked(&own, &text)] {
            let mut restored = request.clone();
            thoughts.restore(&mut restored);
            assert_eq!(restored, request);
        }
    }

    #[test]
    fn thoughts_are_bounded() {
        let (thoughts, own) = (Thoughts::default(), Asker::default());
        let long = "é".repeat(MAX_THOUGHT);
        for number in 0..100 {
            thoughts.remember(&own, &number.to_string(), &long);
            thoughts.remember(&own, "again", "short");
        }
        let mut thinking = Thinking::new(thoughts.clone(), own);
        (0..3).for_each(|_| thinking.take_in(&Chunk::reasoning(&long)));
        assert!(thinking.text.len() <= MAX_THOUGHT);
        let kept = thoughts.0.kept.lock().unwrap();
        let bytes: usize = kept.by_call.values().map(|thought| thought.len() + ENTRY).sum();
        assert_eq!((kept.bytes, kept.order.len()), (bytes, kept.by_call.len()));
        assert!(bytes <= MAX_ALL, "{bytes}");
    }
}
