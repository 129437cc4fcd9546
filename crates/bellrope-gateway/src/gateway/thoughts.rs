//! What models thought before they called tools, and what came with the calls, for the providers that said it: some want it
//! back, and many tools do not send it.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::asker::Asker;
use crate::ids::plain;
use crate::message::{ChatRequest, Chunk, Content, Part, Role};
use crate::provider::MAX_TOOL_CALLS;
use crate::text::boundary;

/// What is remembered of one thought, and of all of them, in bytes. The oldest are forgotten first.
const MAX_THOUGHT: usize = 64 * 1024;
const MAX_ALL: usize = 1024 * 1024;
/// What an entry takes beside its text, and what JSON takes beside its.
const ENTRY: usize = 128;
const DETAILS: usize = 512;

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
    /// By the hash of whose call it is, of its provider, and of its id.
    by_call: HashMap<u64, (CallLead, usize)>,
    /// The hashes, oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

/// What led to a call, in parts that can be sent back, and what came with it.
#[derive(Debug, Clone, Default)]
pub(super) struct CallLead {
    pub(super) parts: Arc<[Part]>,
    /// The call's `extra_content`.
    pub(super) extra: Option<Value>,
}

impl CallLead {
    fn bytes(&self) -> usize {
        bytes_of(&self.parts) + length(self.extra.as_ref())
    }
}

fn bytes_of(parts: &[Part]) -> usize {
    let bytes = parts.iter().map(|part| match part {
        Part::Reasoning { text, details } => text.len() + length(details.as_ref()),
        _ => 0,
    });
    bytes.sum()
}

fn length(json: Option<&Value>) -> usize {
    json.map_or(0, |json| DETAILS + json.to_string().len())
}

/// What one answer thinks.
#[derive(Debug)]
pub(super) struct Thinking {
    thoughts: Thoughts,
    asker: Asker,
    parts: Vec<Part>,
    /// Of what belongs to no part yet.
    text: String,
    bytes: usize,
    /// Its calls so far: their numbers, and their ids with what came with them.
    calls: Vec<(u32, String, Option<Value>)>,
}

impl Thinking {
    pub(super) fn new(thoughts: Thoughts, asker: Asker) -> Self {
        Self { thoughts, asker, parts: Vec::new(), text: String::new(), bytes: 0, calls: Vec::new() }
    }

    /// Takes a piece of this provider's answer in.
    pub(super) fn take_in(&mut self, chunk: &Chunk, provider: &str) {
        match chunk {
            Chunk::Reasoning { text } => {
                let more = &text[..boundary(text, MAX_THOUGHT - self.bytes)];
                self.text.push_str(more);
                self.bytes += more.len();
            }
            Chunk::ReasoningDetails { details } => {
                let bytes = length(Some(details));
                if bytes > MAX_THOUGHT - self.bytes {
                    return;
                }
                self.bytes += bytes;
                self.parts.push(Part::Reasoning { text: take(&mut self.text), details: Some(details.clone()) });
                // Some come behind the calls that they belong to.
                let lead = self.lead();
                self.calls.iter().for_each(|call| self.remember(provider, call, &lead));
            }
            Chunk::ToolCall(delta) => {
                if let Some(id) = delta.id.as_ref().filter(|_| self.calls.len() < MAX_TOOL_CALLS) {
                    let call = (delta.index, id.clone(), None);
                    self.remember(provider, &call, &self.lead());
                    self.calls.push(call);
                }
            }
            Chunk::ToolCallExtra { index, extra_content } => {
                if let Some(at) = self.calls.iter().position(|(known, ..)| known == index) {
                    self.calls[at].2 = Some(extra_content.clone());
                    self.remember(provider, &self.calls[at], &self.lead());
                }
            }
            _ => {}
        }
    }

    /// What leads to its calls so far, with its bytes: made once for all of them.
    fn lead(&self) -> (Arc<[Part]>, usize) {
        let text = Some(&self.text).filter(|text| !text.is_empty());
        let rest = text.map(|text| Part::Reasoning { text: text.clone(), details: None });
        let parts: Arc<[Part]> = self.parts.iter().cloned().chain(rest).collect();
        let bytes = bytes_of(&parts);
        (parts, bytes)
    }

    fn remember(&self, provider: &str, (_, id, extra): &(u32, String, Option<Value>), lead: &(Arc<[Part]>, usize)) {
        let (parts, bytes) = lead;
        let thought = CallLead { parts: Arc::clone(parts), extra: extra.clone() };
        self.thoughts.keep(&self.asker, provider, id, thought, bytes + length(extra.as_ref()));
    }
}

impl Thoughts {
    /// Remembers what led to this provider's call with this id.
    pub(super) fn remember(&self, asker: &Asker, provider: &str, id: &str, thought: CallLead) {
        let bytes = thought.bytes();
        self.keep(asker, provider, id, thought, bytes);
    }

    fn keep(&self, asker: &Asker, provider: &str, id: &str, thought: CallLead, bytes: usize) {
        if bytes == 0 || bytes > MAX_THOUGHT || id.is_empty() {
            return;
        }
        let (hash, bytes) = (self.hash(asker, provider, id), bytes + ENTRY);
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        match kept.by_call.insert(hash, (thought, bytes)) {
            Some((_, earlier)) => kept.bytes -= earlier,
            None => kept.order.push_back(hash),
        }
        while kept.bytes > MAX_ALL
            && let Some(oldest) = kept.order.pop_front()
        {
            let forgotten = kept.by_call.remove(&oldest);
            kept.bytes -= forgotten.map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Puts what led to this provider's calls of a conversation before them, and what came with them to them, where the tool did
    /// not send it.
    pub(super) fn restore(&self, request: &mut ChatRequest, provider: &str) {
        for message in request.messages.iter_mut().filter(|message| message.role == Role::Assistant) {
            let Content::Parts(parts) = &mut message.content else { continue };
            let has_thoughts = parts.iter().any(|part| matches!(part, Part::Reasoning { .. }));
            let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let mut led: Arc<[Part]> = Arc::default();
            for part in &mut *parts {
                let Part::ToolUse { id, extra_content, .. } = part else { continue };
                let known = kept.by_call.get(&self.hash(&request.asker, provider, id));
                let Some((thought, _)) = known else { continue };
                if extra_content.is_none() {
                    extra_content.clone_from(&thought.extra);
                }
                if led.is_empty() {
                    led = Arc::clone(&thought.parts);
                }
            }
            drop(kept);
            if !has_thoughts {
                parts.splice(0..0, led.iter().cloned());
            }
        }
    }

    fn hash(&self, asker: &Asker, provider: &str, id: &str) -> u64 {
        // Tools of some formats are told another id, and send that.
        self.0.hasher.hash_one((asker.kind, asker.name(), provider, &*plain(id)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::asker::AskerKind;
    use crate::testing::call;

    fn asked(asker: &Asker, parts: &Value) -> ChatRequest {
        let request = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": parts}]});
        ChatRequest { asker: asker.clone(), ..serde_json::from_value(request).unwrap() }
    }

    // Row 46.
    #[test]
    fn what_led_to_a_call_stands_before_it_again_for_whoever_asked() {
        let (thoughts, own) = (Thoughts::default(), Asker::new(AskerKind::Program, "aider", ""));
        let mut thinking = Thinking::new(thoughts.clone(), own.clone());
        for chunk in [Chunk::reasoning("I have to "), Chunk::reasoning("look."), call(0, Some("c"), Some("look"), "")] {
            thinking.take_in(&chunk, "p");
        }
        let parts = json!([{"type": "tool_use", "id": "c", "name": "look"}]);
        let mut request = asked(&own, &parts);
        thoughts.restore(&mut request, "p");
        let Content::Parts(restored) = &request.messages[1].content else { panic!("{request:?}") };
        let expected = Part::Reasoning { text: "I have to look.".into(), details: None };
        assert_eq!((restored.len(), &restored[0]), (2, &expected));
        let sent = json!([{"type": "reasoning", "text": "own"}, {"type": "tool_use", "id": "c", "name": "look"}]);
        let other = Asker::new(AskerKind::Program, "other", "");
        let text = json!([{"type": "text", "text": "c"}]);
        for (request, provider) in [
            (asked(&own, &sent), "p"),
            (asked(&other, &parts), "p"),
            (asked(&own, &text), "p"),
            (asked(&own, &parts), "another"),
        ] {
            let mut restored = request.clone();
            thoughts.restore(&mut restored, provider);
            assert_eq!(restored, request);
        }
    }

    #[test]
    fn thoughts_are_bounded() {
        let (thoughts, own) = (Thoughts::default(), Asker::default());
        let long = "é".repeat(MAX_THOUGHT);
        let part = |text: &str| CallLead {
            parts: [Part::Reasoning { text: text.to_owned(), details: None }].into(),
            extra: None,
        };
        for number in 0..100 {
            thoughts.remember(&own, "p", &number.to_string(), part(&long[..MAX_THOUGHT]));
            thoughts.remember(&own, "p", "again", part("short"));
        }
        let mut thinking = Thinking::new(thoughts.clone(), own);
        (0..3).for_each(|_| thinking.take_in(&Chunk::reasoning(&long), "p"));
        thinking.take_in(&Chunk::ReasoningDetails { details: json!({"data": "x".repeat(MAX_THOUGHT)}) }, "p");
        assert!(thinking.text.len() <= MAX_THOUGHT && thinking.parts.is_empty());
        let kept = thoughts.0.kept.lock().unwrap();
        let bytes: usize = kept.by_call.values().map(|(_, bytes)| bytes).sum();
        assert_eq!((kept.bytes, kept.order.len()), (bytes, kept.by_call.len()));
        assert!(bytes <= MAX_ALL, "{bytes}");
    }
}
