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
use crate::message::{ChatRequest, Chunk, Content, Message, Part, Role};
use crate::provider::MAX_TOOL_CALLS;
use crate::text::boundary;

/// What is remembered of one thought, and of all of them, in bytes. The oldest are forgotten first.
const MAX_THOUGHT: usize = 64 * 1024;
const MAX_ALL: usize = 1024 * 1024;
/// What an entry takes beside its text, and what JSON takes beside its.
const ENTRY: usize = 384;
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
    by_call: HashMap<CallKey, (CallLead, usize)>,
    /// What is known of the calls of one id.
    by_id: HashMap<u64, OfId>,
    /// The calls, oldest first.
    order: VecDeque<CallKey>,
    bytes: usize,
}

/// A call. Some providers count their ids in each conversation, so an id alone may mean several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CallKey {
    /// The hash of whose call it is, of its provider, and of its id.
    id: u64,
    /// The hash of where the conversation had come to before it.
    question: u64,
}

/// Where a conversation has come to.
#[derive(Debug, Clone, Copy, Default, Hash)]
struct Question {
    /// The hash of what the user said last.
    said: u64,
    /// How many results of tools came since.
    results: usize,
}

#[derive(Debug)]
struct OfId {
    question: u64,
    /// How many calls of it are remembered.
    calls: usize,
    /// Whether it came behind another question, too.
    is_shared: bool,
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

/// Who asked, and the hash of where the conversation has come to.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    asker: Asker,
    question: u64,
}

/// What one answer thinks.
#[derive(Debug)]
pub(super) struct Thinking {
    thoughts: Thoughts,
    asked: Asked,
    parts: Vec<Part>,
    /// Of what belongs to no part yet.
    text: String,
    bytes: usize,
    /// Its calls so far: their numbers, and their ids with what came with them.
    calls: Vec<(u32, String, Option<Value>)>,
}

impl Thinking {
    pub(super) fn new(thoughts: Thoughts, request: &ChatRequest) -> Self {
        let asked = thoughts.asked(request);
        Self { thoughts, asked, parts: Vec::new(), text: String::new(), bytes: 0, calls: Vec::new() }
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
        self.thoughts.keep(&self.asked, provider, id, thought, bytes + length(extra.as_ref()));
    }
}

impl Thoughts {
    /// Remembers what led to this provider's call with this id.
    pub(super) fn remember(&self, asked: &Asked, provider: &str, id: &str, thought: CallLead) {
        let bytes = thought.bytes();
        self.keep(asked, provider, id, thought, bytes);
    }

    /// Who asks, and where the conversation has come to.
    pub(super) fn asked(&self, request: &ChatRequest) -> Asked {
        let mut question = Question::default();
        request.messages.iter().for_each(|message| self.follow(&mut question, message));
        Asked { asker: request.asker.clone(), question: self.0.hasher.hash_one(question) }
    }

    fn keep(&self, asked: &Asked, provider: &str, id: &str, thought: CallLead, bytes: usize) {
        if id.is_empty() {
            return;
        }
        let call = CallKey { id: self.hash(&asked.asker, provider, id), question: asked.question };
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        if let Some(of_id) = kept.by_id.get_mut(&call.id) {
            of_id.is_shared |= of_id.question != call.question;
        }
        if bytes == 0 || bytes > MAX_THOUGHT {
            return;
        }
        let bytes = bytes + ENTRY;
        kept.bytes += bytes;
        match kept.by_call.insert(call, (thought, bytes)) {
            Some((_, earlier)) => kept.bytes -= earlier,
            None => {
                kept.order.push_back(call);
                let of_id = OfId { question: call.question, calls: 0, is_shared: false };
                kept.by_id.entry(call.id).or_insert(of_id).calls += 1;
            }
        }
        while kept.bytes > MAX_ALL
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.forget(oldest);
        }
    }

    /// Puts what led to this provider's calls of a conversation before them, and what came with them to them, where the tool did
    /// not send it.
    pub(super) fn restore(&self, request: &mut ChatRequest, provider: &str) {
        let mut asked = Question::default();
        for message in &mut request.messages {
            self.follow(&mut asked, message);
            let (Role::Assistant, Content::Parts(parts)) = (message.role, &mut message.content) else { continue };
            let has_thoughts = parts.iter().any(|part| matches!(part, Part::Reasoning { .. }));
            let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (mut led, question): (Arc<[Part]>, _) = (Arc::default(), self.0.hasher.hash_one(asked));
            for part in &mut *parts {
                let Part::ToolUse { id, extra_content, .. } = part else { continue };
                let call = CallKey { id: self.hash(&request.asker, provider, id), question };
                let Some(thought) = kept.lead_of(call, is_counted(id)) else { continue };
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

    /// Takes the next message of a conversation in.
    fn follow(&self, question: &mut Question, message: &Message) {
        let texts: Vec<_> = match &message.content {
            Content::Text(text) => vec![text],
            Content::Parts(parts) => parts.iter().filter_map(text_of).collect(),
        };
        if message.role == Role::User && !texts.is_empty() {
            *question = Question { said: self.0.hasher.hash_one(texts), results: 0 };
        }
        if let Content::Parts(parts) = &message.content {
            question.results += parts.iter().filter(|part| matches!(part, Part::ToolResult { .. })).count();
        }
    }

    fn hash(&self, asker: &Asker, provider: &str, id: &str) -> u64 {
        // Tools of some formats are told another id, and send that.
        self.0.hasher.hash_one((asker.kind, asker.name(), provider, &*plain(id)))
    }
}

/// Whether a call's id looks as if its provider counts: `call_0`, `functions.look:12`.
fn is_counted(id: &str) -> bool {
    let name = id.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = id.len() - name.len();
    digits == id.len() || (1..=4).contains(&digits) && name.ends_with(['_', ':', '-', '.'])
}

fn text_of(part: &Part) -> Option<&String> {
    match part {
        Part::Text { text, .. } => Some(text),
        _ => None,
    }
}

impl Kept {
    /// What led to a call. Tools change what was said before, so of an id that is drawn by lot, and that nothing else has, the
    /// question is not asked.
    fn lead_of(&self, call: CallKey, is_counted: bool) -> Option<&CallLead> {
        let exact = self.by_call.get(&call);
        let only = || {
            let of_id = self.by_id.get(&call.id).filter(|of_id| !is_counted && !of_id.is_shared)?;
            self.by_call.get(&CallKey { question: of_id.question, ..call })
        };
        exact.or_else(only).map(|(lead, _)| lead)
    }

    fn forget(&mut self, call: CallKey) {
        let forgotten = self.by_call.remove(&call);
        self.bytes -= forgotten.map_or(0, |(_, bytes)| bytes);
        if let Some(of_id) = self.by_id.get_mut(&call.id) {
            of_id.calls -= 1;
            if of_id.calls == 0 {
                self.by_id.remove(&call.id);
            }
        }
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
        let mut thinking = Thinking::new(thoughts.clone(), &asked(&own, &json!([])));
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
    fn what_led_to_a_call_of_one_conversation_never_stands_in_another_whose_calls_have_the_same_ids() {
        let (thoughts, own) = (Thoughts::default(), Asker::default());
        let conversation = |question: &str| {
            let called = json!([{"type": "tool_use", "id": "call_0", "name": "f"}]);
            let messages = json!([{"role": "user", "content": question}, {"role": "assistant", "content": called},
                {"role": "tool", "content": [{"type": "tool_result", "tool_use_id": "call_0", "content": "r"}]}]);
            let request = serde_json::from_value(json!({"messages": messages})).unwrap();
            ChatRequest { asker: own.clone(), ..request }
        };
        let thought_of = |question: &str| {
            let mut request = conversation(question);
            thoughts.restore(&mut request, "p");
            match &request.messages[1].content {
                Content::Parts(parts) => parts.iter().find_map(|part| match part {
                    Part::Reasoning { text, .. } => Some(text.clone()),
                    _ => None,
                }),
                Content::Text(_) => None,
            }
        };
        let lead = |text: &str| CallLead {
            parts: [Part::Reasoning { text: text.to_owned(), details: None }].into(),
            extra: None,
        };
        // As it is when the call is made.
        let asked = |question: &str| {
            let mut request = conversation(question);
            request.messages.truncate(1);
            thoughts.asked(&request)
        };
        thoughts.remember(&asked("a"), "p", "call_0", lead("of a"));
        // Its provider counts, so it may be that of any other conversation, of which nothing is remembered.
        assert_eq!((thought_of("a").as_deref(), thought_of("a, shortened")), (Some("of a"), None));
        thoughts.remember(&asked("b"), "p", "call_0", CallLead::default());
        assert_eq!((thought_of("a").as_deref(), thought_of("b"), thought_of("c")), (Some("of a"), None, None));
        thoughts.remember(&asked("b"), "p", "call_0", lead("of b"));
        assert_eq!((thought_of("a").as_deref(), thought_of("b").as_deref()), (Some("of a"), Some("of b")));
    }

    #[test]
    fn an_id_that_is_drawn_by_lot_is_enough_until_it_comes_again_elsewhere() {
        let thoughts = Thoughts::default();
        let at = |question| CallKey { id: 7, question };
        let asked = |question| Asked { asker: Asker::default(), question };
        let lead = |text: &str| CallLead {
            parts: [Part::Reasoning { text: text.to_owned(), details: None }].into(),
            extra: None,
        };
        let id = "call_Zk3vYbQm1hT8";
        let key = |question| CallKey { id: thoughts.hash(&Asker::default(), "p", id), ..at(question) };
        let has = |question| thoughts.0.kept.lock().unwrap().lead_of(key(question), is_counted(id)).is_some();
        thoughts.remember(&asked(1), "p", id, lead("a"));
        assert!(has(1) && has(2), "the tool has changed what was said");
        thoughts.remember(&asked(2), "p", id, CallLead::default());
        assert!(has(1) && !has(2) && !has(3));
        for (id, counted) in
            [("call_0", true), ("functions.look:12", true), ("7", true), (id, false), ("toolu_01A09q90", false)]
        {
            assert_eq!(is_counted(id), counted, "{id}");
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
        let request = asked(&own, &json!([]));
        let asked_by = thoughts.asked(&request);
        for number in 0..100 {
            thoughts.remember(&asked_by, "p", &number.to_string(), part(&long[..MAX_THOUGHT]));
            thoughts.remember(&asked_by, "p", "again", part("short"));
        }
        let mut thinking = Thinking::new(thoughts.clone(), &request);
        (0..3).for_each(|_| thinking.take_in(&Chunk::reasoning(&long), "p"));
        thinking.take_in(&Chunk::ReasoningDetails { details: json!({"data": "x".repeat(MAX_THOUGHT)}) }, "p");
        assert!(thinking.text.len() <= MAX_THOUGHT && thinking.parts.is_empty());
        let kept = thoughts.0.kept.lock().unwrap();
        let bytes: usize = kept.by_call.values().map(|(_, bytes)| bytes).sum();
        assert_eq!((kept.bytes, kept.order.len()), (bytes, kept.by_call.len()));
        assert!(bytes <= MAX_ALL, "{bytes}");
        assert_eq!(kept.by_id.values().map(|of_id| of_id.calls).sum::<usize>(), kept.by_call.len());
    }
}
