//! The conversation in turns that every format allows: each call of a tool has exactly one result, which stands with it,
//! and each result a call.
//!
//! The history that comes in need not be like that. Clients cut off its beginning, cancel tools, use ids again, or send
//! what another provider wrote. Whatever can be said in another way is said so, and noted.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::ids::{self, CallRules};
use super::said::{Call, NO_RESULT, Output, Piece, Reasoning, Said, is_blank, pieces};
use crate::error::ProviderError;
use crate::message::{Message, Role};
use crate::notes::Notes;
use crate::provider::MAX_TOOL_CALLS;

/// A turn of a conversation.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    System(Vec<Said<'a>>),
    User(Vec<Said<'a>>),
    Assistant(Spoken<'a>),
    /// A result whose call is not in the conversation: a text of the user's.
    Stray(String),
}

/// What the model said in a turn, by kind: as chat completions want it, which have no order.
#[derive(Debug, Default)]
pub(super) struct Spoken<'a> {
    pub(super) reasoning: Vec<Reasoning<'a>>,
    pub(super) said: Vec<Said<'a>>,
    pub(super) calls: Vec<Call<'a>>,
    /// In which order.
    order: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Said,
    Call,
}

/// Parts of one kind that the model said one after the other.
#[derive(Debug)]
pub(super) enum Run<'s, 'a> {
    Reasoning(&'s [Reasoning<'a>]),
    Said(&'s [Said<'a>]),
    Calls(&'s [Call<'a>]),
}

/// The turns of a conversation, oldest first. None is without content, though a text may be empty.
pub(super) fn turns<'a>(
    messages: &'a [Message],
    rules: CallRules,
    notes: &mut Notes,
) -> Result<Vec<Turn<'a>>, ProviderError> {
    let mut pairing = Pairing::default();
    for message in messages {
        pairing.add(message)?;
    }
    let mut turns = pairing.finish(notes);
    let calls = turns.iter_mut().filter_map(|turn| match turn {
        Turn::Assistant(spoken) => Some(&mut spoken.calls[..]),
        _ => None,
    });
    ids::fit(calls, rules);
    Ok(turns)
}

/// Where a call stands: its turn, and its place in there.
type Place = (usize, usize);

/// The calls and results of one id. Ids come again in many a conversation, so there can be several of both.
#[derive(Default)]
struct OfId<'a> {
    /// Calls without a result, oldest first.
    open: VecDeque<Place>,
    /// The last call that has its result.
    answered: Option<Place>,
    /// Results that came before their calls: where they stand, and what they are.
    early: VecDeque<(usize, Output<'a>)>,
}

#[derive(Default)]
struct Pairing<'a> {
    turns: Vec<Option<Turn<'a>>>,
    ids: HashMap<&'a str, OfId<'a>>,
    /// The last turns of user and assistant.
    last_user: usize,
    last_assistant: Option<usize>,
    /// Whether some result was not the first of its call.
    repeated: bool,
}

impl<'a> Pairing<'a> {
    fn add(&mut self, message: &'a Message) -> Result<(), ProviderError> {
        let mut spoken = Spoken::default();
        for piece in pieces(message)? {
            match piece {
                Piece::Said(said) => spoken.say(said),
                Piece::Reasoning(reasoning) => spoken.think(reasoning),
                Piece::Call(call) => spoken.call(call),
                Piece::Result { id, output } => self.add_result(id, output),
            }
        }
        match message.role {
            Role::Assistant if !spoken.is_empty() => {
                self.open(&mut spoken.calls);
                self.last_assistant = Some(self.turns.len());
                self.turns.push(Some(Turn::Assistant(spoken)));
            }
            Role::System if !spoken.said.is_empty() => self.turns.push(Some(Turn::System(spoken.said))),
            Role::User if !spoken.said.is_empty() => {
                self.last_user = self.turns.len();
                self.turns.push(Some(Turn::User(spoken.said)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes note of the calls of the turn that is added next.
    fn open(&mut self, calls: &mut [Call<'a>]) {
        let turn = self.turns.len();
        for (at, call) in calls.iter_mut().enumerate() {
            let Cow::Borrowed(id) = call.id else { continue };
            let of_id = self.ids.entry(id).or_default();
            if let Some((place, output)) = of_id.early.pop_front() {
                self.turns[place] = None;
                call.output = Some(output);
                of_id.answered = Some((turn, at));
                continue;
            }
            // Calls that the user has spoken after get no result any more, if their id comes again.
            while of_id.open.front().is_some_and(|(earlier, _)| *earlier < self.last_user) {
                of_id.open.pop_front();
            }
            of_id.open.push_back((turn, at));
        }
    }

    fn add_result(&mut self, id: &'a str, output: Output<'a>) {
        let id = if id.is_empty() { self.only_open().unwrap_or(id) } else { id };
        let of_id = self.ids.entry(id).or_default();
        if let Some(place) = of_id.open.pop_front() {
            of_id.answered = Some(place);
            self.call(place).output = Some(output);
        } else if let Some(place) = of_id.answered {
            self.repeated = true;
            self.call(place).output.get_or_insert_default().append(output);
        } else {
            of_id.early.push_back((self.turns.len(), output));
            // The place is kept for it, should its call never come.
            self.turns.push(None);
        }
    }

    /// The id of the first call of the last turn that has no result, for a result that names none.
    fn only_open(&self) -> Option<&'a str> {
        let Some(Turn::Assistant(spoken)) = &self.turns[self.last_assistant?] else { return None };
        let open = spoken.calls.iter().take(MAX_TOOL_CALLS).find(|call| call.output.is_none())?;
        match open.id {
            Cow::Borrowed(id) => Some(id),
            Cow::Owned(_) => None,
        }
    }

    fn call(&mut self, (turn, at): Place) -> &mut Call<'a> {
        match &mut self.turns[turn] {
            Some(Turn::Assistant(spoken)) => &mut spoken.calls[at],
            _ => unreachable!("calls stand in turns of the assistant"),
        }
    }

    fn finish(mut self, notes: &mut Notes) -> Vec<Turn<'a>> {
        if self.repeated {
            notes.add("some calls of tools have several results in `messages`; they were joined");
        }
        for (place, output) in self.ids.values_mut().flat_map(|of_id| of_id.early.drain(..)) {
            notes.add("a result of a tool in `messages` has no call there; it was sent as text of the user");
            let pictures = if output.images.is_empty() { "" } else { " (and pictures, which were left out)" };
            let text = format!("The result of a call of a tool: {}{pictures}", output.text);
            self.turns[place] = Some(Turn::Stray(text));
        }
        let mut turns: Vec<_> = self.turns.into_iter().flatten().collect();
        for turn in &mut turns {
            let Turn::Assistant(spoken) = turn else { continue };
            for call in spoken.calls.iter_mut().filter(|call| call.output.is_none()) {
                notes.add("a call of a tool in `messages` has no result there; one was added that says so");
                call.output = Some(Output { text: NO_RESULT.into(), is_error: true, ..Output::default() });
            }
        }
        turns
    }
}

impl<'a> Spoken<'a> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn say(&mut self, said: Said<'a>) {
        self.said.push(said);
        self.order.push(Kind::Said);
    }

    fn think(&mut self, reasoning: Reasoning<'a>) {
        self.reasoning.push(reasoning);
        self.order.push(Kind::Reasoning);
    }

    fn call(&mut self, call: Call<'a>) {
        self.calls.push(call);
        self.order.push(Kind::Call);
    }

    /// All of it in the order in which it was said: a provider that signs its thoughts, or gives each an id, refuses a
    /// turn whose parts stand in another one.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run<'_, 'a>> {
        let (mut reasoning, mut said, mut calls) = (&self.reasoning[..], &self.said[..], &self.calls[..]);
        self.order.chunk_by(|a, b| a == b).map(move |run| match run[0] {
            Kind::Reasoning => Run::Reasoning(begin(&mut reasoning, run.len())),
            Kind::Said => Run::Said(begin(&mut said, run.len())),
            Kind::Call => Run::Calls(begin(&mut calls, run.len())),
        })
    }
}

/// Takes so many off the beginning of a list.
fn begin<'s, T>(list: &mut &'s [T], count: usize) -> &'s [T] {
    let (begin, rest) = list.split_at(count);
    *list = rest;
    begin
}

impl<'a> Output<'a> {
    fn append(&mut self, more: Self) {
        if is_blank(&self.text) {
            self.text = more.text;
        } else if !is_blank(&more.text) {
            let text = self.text.to_mut();
            text.push('\n');
            text.push_str(&more.text);
        }
        self.images.extend(more.images);
        self.is_error |= more.is_error;
        self.cache = self.cache.or(more.cache);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ANY: CallRules = CallRules { longest_id: 40, plain_ids: false, unique_ids: false, longest_name: None };

    /// Each turn in a word or two: `u:text`, `a:text`, `call=result`.
    fn told(messages: Value) -> (Vec<String>, usize) {
        let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
        let mut notes = Notes::default();
        let mut told = Vec::new();
        for turn in turns(&messages, ANY, &mut notes).unwrap() {
            let texts = |said: &[Said<'_>]| {
                let text = |said: &Said<'_>| match said {
                    Said::Text { text, .. } => (*text).to_owned(),
                    Said::Image { .. } => "image".to_owned(),
                };
                said.iter().map(text).collect::<Vec<_>>().join("+")
            };
            match turn {
                Turn::System(said) => told.push(format!("s:{}", texts(&said))),
                Turn::User(said) => told.push(format!("u:{}", texts(&said))),
                Turn::Stray(text) => told.push(format!("stray:{text}")),
                Turn::Assistant(Spoken { said, calls, .. }) => {
                    told.extend((!said.is_empty()).then(|| format!("a:{}", texts(&said))));
                    told.extend(calls.iter().map(|call| format!("{}={}", call.id, call.output.as_ref().unwrap().text)));
                }
            }
        }
        (told, notes.into_vec().len())
    }

    fn calls(ids: &[&str]) -> Value {
        let call = |id: &&str| json!({"type": "tool_use", "id": id, "name": "f"});
        json!({"role": "assistant", "content": ids.iter().map(call).collect::<Vec<_>>()})
    }

    fn results(results: &[(&str, &str)]) -> Value {
        let result = |(id, text): &(&str, &str)| json!({"type": "tool_result", "tool_use_id": id, "content": text});
        json!({"role": "tool", "content": results.iter().map(result).collect::<Vec<_>>()})
    }

    // Fault 74.
    #[test]
    fn every_call_has_one_result_that_stands_with_it_and_every_result_a_call() {
        let user = |text: &str| json!({"role": "user", "content": text});
        for (messages, expected, notes) in [
            (
                json!([calls(&["a", "b"]), user("hm"), results(&[("b", "2"), ("a", "1")])]),
                vec!["a=1", "b=2", "u:hm"],
                0,
            ),
            (json!([calls(&["a"]), calls(&["b"]), results(&[("a", "1"), ("b", "2")])]), vec!["a=1", "b=2"], 0),
            // Ids that come again, in another turn and in the same.
            (
                json!([calls(&["x"]), results(&[("x", "1")]), calls(&["x"]), results(&[("x", "2")])]),
                vec!["x=1", "x=2"],
                0,
            ),
            (json!([calls(&["", ""]), results(&[("", "1"), ("", "2")])]), vec!["call_1=1", "call_2=2"], 0),
            (json!([calls(&["a"]), results(&[("", "1")])]), vec!["a=1"], 0),
            (json!([results(&[("a", "1")]), calls(&["a"])]), vec!["a=1"], 0),
            (json!([calls(&["a"]), results(&[("a", "1"), ("a", "2")])]), vec!["a=1\n2"], 1),
            (
                json!([user("q"), results(&[("a", "1")]), user("r")]),
                vec!["u:q", "stray:The result of a call of a tool: 1", "u:r"],
                1,
            ),
            (json!([calls(&["a", "b"]), results(&[("a", "1")])]), vec!["a=1", "b=(this call has no result)"], 1),
            (
                json!([calls(&["x"]), user("q"), calls(&["x"]), results(&[("x", "2")])]),
                vec!["x=(this call has no result)", "u:q", "x=2"],
                1,
            ),
            (json!([{"role": "user", "content": []}, {"role": "assistant", "content": []}, user("q")]), vec!["u:q"], 0),
        ] {
            assert_eq!(
                told(messages.clone()),
                (expected.into_iter().map(str::to_owned).collect(), notes),
                "{messages}"
            );
        }
    }

    #[test]
    fn a_long_history_of_one_id_takes_no_time_that_grows_with_its_square() {
        let many = 20_000;
        let ids = vec!["x"; many];
        let (told, _) = told(json!([calls(&ids), results(&vec![("x", "1"); 2 * many])]));
        assert_eq!(told.len(), many);
    }
}
