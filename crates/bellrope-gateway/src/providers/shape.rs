//! What is done here to the text of answers of local models: thoughts between `<think>` and `</think>` become reasoning, and
//! an answer ends at a text that its server does not know as an end.

use std::collections::VecDeque;
use std::mem;

use futures_util::{StreamExt, stream};

use crate::message::{Chunk, StopReason};
use crate::provider::ProviderStream;
use crate::text::boundary;

const BEGIN: &str = "<think>";
const END: &str = "</think>";

/// What is told of thoughts without an end.
const ENDLESS: &str = "the answer began with `<think>` and has no `</think>`, so that all of it is told as reasoning";

/// The text of one answer.
#[derive(Debug)]
pub(crate) struct AnswerShape {
    thoughts: Thoughts,
    /// Texts that end the answer.
    stops: Vec<String>,
    /// What may be the beginning of a tag or of an end.
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thoughts {
    /// Nothing has been said yet.
    MayBegin,
    Inside,
    /// After them, before the answer's first word.
    After,
    Over,
}

impl AnswerShape {
    /// `thinks`: whether an answer may begin with what the model thinks.
    pub(crate) fn new(thinks: bool, stops: Vec<String>) -> Self {
        Self { thoughts: if thinks { Thoughts::MayBegin } else { Thoughts::Over }, stops, held: String::new() }
    }

    /// Whether it changes nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.thoughts == Thoughts::Over && self.stops.is_empty() && self.held.is_empty()
    }

    /// Takes a chunk in, and appends what is to be said for it.
    pub(crate) fn take(&mut self, chunk: Chunk, out: &mut Vec<Chunk>) {
        match chunk {
            Chunk::Text { text } => {
                self.held.push_str(&text);
                self.text(false, out);
            }
            // What a server tells apart by itself is no text, and comes when it comes.
            other @ (Chunk::Reasoning { .. } | Chunk::ReasoningDetails { .. } | Chunk::Notice { .. }) => {
                out.push(other);
            }
            other => {
                self.text(true, out);
                if self.thoughts == Thoughts::Inside && matches!(other, Chunk::Done { .. }) {
                    out.push(Chunk::Notice { text: ENDLESS.to_owned() });
                }
                out.push(other);
            }
        }
    }

    /// Says what is sure of the text that is held; all of it at its `end`.
    fn text(&mut self, end: bool, out: &mut Vec<Chunk>) {
        loop {
            match self.thoughts {
                Thoughts::MayBegin => {
                    let text = self.held.trim_start();
                    if let Some(rest) = text.strip_prefix(BEGIN) {
                        self.held = rest.to_owned();
                        self.thoughts = Thoughts::Inside;
                    } else if !end && BEGIN.starts_with(text) {
                        return;
                    } else {
                        self.thoughts = Thoughts::Over;
                    }
                }
                Thoughts::Inside => match self.held.find(END) {
                    Some(at) => {
                        let rest = self.held.split_off(at);
                        self.say(self.held.len(), Chunk::reasoning, out);
                        self.held = rest[END.len()..].to_owned();
                        self.thoughts = Thoughts::After;
                    }
                    None => {
                        let sure = if end { self.held.len() } else { sure(&self.held, &[END]) };
                        return self.say(sure, Chunk::reasoning, out);
                    }
                },
                Thoughts::After => {
                    self.held = self.held.trim_start().to_owned();
                    if self.held.is_empty() {
                        return;
                    }
                    self.thoughts = Thoughts::Over;
                }
                Thoughts::Over => {
                    let ends = self.stops.iter().filter_map(|stop| self.held.find(&**stop));
                    if let Some(at) = ends.min() {
                        self.say(at, Chunk::text, out);
                        self.held.clear();
                        out.push(Chunk::Done { stop_reason: StopReason::EndTurn });
                        return;
                    }
                    let stops: Vec<_> = self.stops.iter().map(String::as_str).collect();
                    let sure = if end { self.held.len() } else { sure(&self.held, &stops) };
                    return self.say(sure, Chunk::text, out);
                }
            }
        }
    }

    /// Says so many bytes of what is held.
    fn say(&mut self, bytes: usize, kind: fn(String) -> Chunk, out: &mut Vec<Chunk>) {
        if bytes > 0 {
            let rest = self.held.split_off(bytes);
            out.push(kind(mem::replace(&mut self.held, rest)));
        }
    }
}

/// An answer whose text goes through `shape`. What ends it there drops the provider's stream.
pub(crate) fn shaped(pieces: ProviderStream, shape: AnswerShape) -> ProviderStream {
    let state = (Some(pieces), shape, VecDeque::new());
    Box::pin(stream::unfold(state, |(mut pieces, mut shape, mut ready)| async move {
        while ready.is_empty() {
            match pieces.as_mut()?.next().await? {
                Ok(chunk) if shape.is_idle() => return Some((Ok(chunk), (pieces, shape, ready))),
                Ok(chunk) => {
                    let mut out = Vec::new();
                    shape.take(chunk, &mut out);
                    ready.extend(out);
                    if ready.iter().any(Chunk::is_terminal) {
                        pieces = None;
                    }
                }
                Err(error) => return Some((Err(error), (pieces, shape, ready))),
            }
        }
        let chunk = ready.pop_front()?;
        Some((Ok(chunk), (pieces, shape, ready)))
    }))
}

/// How many bytes of a text can not belong to one of these words, of which it holds none as a whole.
fn sure(text: &str, words: &[&str]) -> usize {
    let longest = words.iter().map(|word| word.len()).max().unwrap_or(0);
    let from = boundary(text, text.len().saturating_sub(longest));
    let ends = text[from..].char_indices().map(|(at, _)| from + at);
    ends.into_iter().find(|at| words.iter().any(|word| word.starts_with(&text[*at..]))).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reasoning and the text of an answer whose text comes in pieces of so many characters, and whether it was ended.
    fn shaped(text: &str, size: usize, thinks: bool, stops: &[&str]) -> (String, String, bool) {
        let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut shape = AnswerShape::new(thinks, stops);
        let (mut out, characters) = (Vec::new(), text.chars().collect::<Vec<_>>());
        for piece in characters.chunks(size) {
            shape.take(Chunk::text(piece.iter().collect::<String>()), &mut out);
            if out.last().is_some_and(Chunk::is_terminal) {
                break;
            }
        }
        let ended = out.last().is_some_and(Chunk::is_terminal);
        if !ended {
            shape.take(Chunk::Done { stop_reason: StopReason::EndTurn }, &mut out);
        }
        let (mut reasoning, mut said) = (String::new(), String::new());
        for chunk in out {
            match chunk {
                Chunk::Text { text } => said.push_str(&text),
                Chunk::Reasoning { text } => reasoning.push_str(&text),
                _ => {}
            }
        }
        (reasoning, said, ended)
    }

    #[test]
    fn thoughts_are_told_apart_wherever_they_are_cut() {
        for size in 1..20 {
            for (text, reasoning, said) in [
                ("<think>hm é</think>\n\nYes <think>.", "hm é", "Yes <think>."),
                (" \n<think>\n</think>Yes", "\n", "Yes"),
                ("Yes <think>no</think>", "", "Yes <think>no</think>"),
                ("<thing>", "", "<thing>"),
                ("<think>cut </thin", "cut </thin", ""),
                ("<thi", "", "<thi"),
                (" ", "", " "),
            ] {
                assert_eq!(shaped(text, size, true, &[]), (reasoning.to_owned(), said.to_owned(), false), "{size}");
            }
            assert_eq!(shaped("<think>a</think>b", size, false, &[]).1, "<think>a</think>b");
        }
    }

    #[test]
    fn thoughts_without_an_end_are_told_of() {
        for (text, expected) in [("<think>hm", true), ("<think>hm</think>", false), ("hm", false)] {
            let mut shape = AnswerShape::new(true, Vec::new());
            let mut out = Vec::new();
            shape.take(Chunk::text(text), &mut out);
            shape.take(Chunk::Done { stop_reason: StopReason::EndTurn }, &mut out);
            let is_told = matches!(&out[out.len().saturating_sub(2)], Chunk::Notice { text } if text == ENDLESS);
            assert_eq!(is_told, expected, "{text}");
        }
    }

    #[test]
    fn an_answer_ends_at_the_first_end_wherever_it_is_cut_and_none_of_it_is_said() {
        for size in 1..20 {
            let ends = ["<|file_sep|>", "<|fim_pad|>"];
            assert_eq!(
                shaped("ab é<|fim_pad|>c<|file_sep|>", size, false, &ends),
                (String::new(), "ab é".to_owned(), true)
            );
            let whole = shaped("a <|fim_ b <|file", size, false, &ends);
            assert_eq!(whole, (String::new(), "a <|fim_ b <|file".to_owned(), false));
        }
        assert!(AnswerShape::new(false, Vec::new()).is_idle() && !AnswerShape::new(true, Vec::new()).is_idle());
    }
}
