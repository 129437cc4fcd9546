//! What was said so far, within what a server takes.

use anyhow::ensure;
use bellrope::{AsyncClient, CallError};
use bellrope_gateway::{ChatRequest, Content, Message, Role};
use clap::Args;

use super::answer::ChatAnswer;
use crate::socket;

/// The most bytes of a conversation, as JSON: what a server takes by default. A server may take less.
const MAX_BYTES: usize = 10 * 1024 * 1024;
/// The most bytes of an answer that are remembered.
const MAX_HEARD: usize = 1024 * 1024;
/// The most messages of a conversation.
const MAX_MESSAGES: usize = 1000;

/// Whom to ask, and how.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AskArgs {
    /// The AI provider to ask [default: the server's own choice].
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The model to ask, as its provider calls it [default: the provider's own choice].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Instructions to the model, ahead of the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How freely the model chooses its words, usually from 0 to 2 [default: the provider's own choice].
    #[arg(long, value_name = "NUMBER", value_parser = temperature)]
    temperature: Option<f64>,
    /// The most tokens of an answer [default: the provider's own choice].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
}

impl AskArgs {
    /// A request that holds no message yet.
    pub(crate) fn into_request(self) -> ChatRequest {
        let Self { provider, model, system, temperature, max_tokens } = self;
        ChatRequest { provider, model, system, temperature, max_tokens, ..ChatRequest::default() }
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("give a number from 0 on, as in 0.7".to_owned()),
    }
}

/// A conversation: questions and answers in turns. It forgets its oldest turns when it outgrows its bounds.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// All that was said, a question last while it waits for its answer.
    request: ChatRequest,
    /// The answer under way, as far as it came.
    heard: String,
    /// Messages that the last request had to leave out.
    forgotten: usize,
}

impl Conversation {
    /// A conversation that asks as `request` does.
    pub(crate) fn new(request: ChatRequest) -> Self {
        Self { request, heard: String::new(), forgotten: 0 }
    }

    /// Adds a question.
    pub(crate) fn ask(&mut self, question: impl Into<String>) {
        self.ask_in_parts(Content::Text(question.into()));
    }

    /// Adds a question that may hold more than text.
    pub(crate) fn ask_in_parts(&mut self, content: Content) {
        self.request.messages.push(Message { role: Role::User, content });
        self.heard.clear();
    }

    /// Sends the conversation, and forgets its oldest turns if that takes less than all of it.
    ///
    /// # Errors
    /// The request cannot be sent; the last question alone is larger than the server takes.
    pub(crate) async fn begin(&mut self, client: &AsyncClient) -> anyhow::Result<ChatAnswer> {
        self.forgotten = 0;
        let over = self.request.messages.len().saturating_sub(MAX_MESSAGES);
        self.forget(|messages, _| messages < over);
        loop {
            let request = serde_json::to_vec(&self.request)?;
            let (size, limit) = (request.len() as u64, MAX_BYTES as u64);
            let (error, over) = if size > limit {
                (CallError::MessageTooLarge { size, limit }, size - limit)
            } else {
                match ChatAnswer::begin(client, request, self.request.resumable).await {
                    Err(error @ CallError::MessageTooLarge { size, limit }) => (error, size.saturating_sub(limit)),
                    outcome => return outcome.map_err(socket::explain_call),
                }
            };
            let forgotten = self.forgotten;
            self.forget(|_, bytes| (bytes as u64) < over);
            ensure!(self.forgotten > forgotten, "{error}; ask with less");
        }
    }

    /// All that was said.
    pub(crate) fn request(&self) -> &ChatRequest {
        &self.request
    }

    /// Changes how questions are asked from the next one on.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut ChatRequest) -> T) -> T {
        change(&mut self.request)
    }

    /// What to tell about messages that the last request had to leave out.
    pub(crate) fn forgotten(&self) -> Option<String> {
        (self.forgotten > 0)
            .then(|| format!("the conversation is too long; its oldest {} messages are forgotten", self.forgotten))
    }

    /// Takes in more of the answer under way.
    pub(crate) fn hear(&mut self, text: &str) {
        let room = MAX_HEARD - self.heard.len().min(MAX_HEARD);
        self.heard.push_str(&text[..text.floor_char_boundary(room)]);
    }

    /// Ends a turn: what came of the answer was said.
    pub(crate) fn settle(&mut self) {
        if self.heard.is_empty() {
            self.take_back();
        } else {
            self.request.messages.push(Message::new(Role::Assistant, std::mem::take(&mut self.heard)));
        }
    }

    /// Ends a turn that failed: its question was never asked.
    pub(crate) fn take_back(&mut self) {
        self.heard.clear();
        if self.request.messages.last().is_some_and(|message| message.role == Role::User) {
            self.request.messages.pop();
        }
    }

    /// Forgets the oldest turns while `more` (of the messages and bytes forgotten by now) says so. The last question
    /// stays, and what remains starts with a question.
    fn forget(&mut self, more: impl Fn(usize, usize) -> bool) {
        let messages = &mut self.request.messages;
        let (mut count, mut bytes) = (0, 0);
        while count + 1 < messages.len() && (more(count, bytes) || messages[count].role != Role::User) {
            bytes += serde_json::to_vec(&messages[count]).map_or(0, |json| json.len() + 1);
            count += 1;
        }
        messages.drain(..count);
        self.forgotten += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(turns: usize) -> Conversation {
        let mut conversation = Conversation::new(ChatRequest::default());
        for turn in 0..turns {
            conversation.ask(format!("question {turn}"));
            conversation.hear("answer");
            conversation.settle();
        }
        conversation
    }

    fn said(conversation: &Conversation) -> Vec<(Role, String)> {
        let text = |content: &Content| match content {
            Content::Text(text) => text.clone(),
            Content::Parts(_) => panic!("parts"),
        };
        conversation.request.messages.iter().map(|message| (message.role, text(&message.content))).collect()
    }

    #[test]
    fn what_was_heard_of_a_cancelled_answer_was_said_and_a_failed_question_was_not() {
        let mut conversation = conversation(1);
        conversation.ask("more");
        conversation.take_back();
        conversation.ask("cancelled before a word came");
        conversation.settle();
        conversation.ask("cancelled");
        conversation.hear("hal");
        conversation.settle();
        let expected = [
            (Role::User, "question 0"),
            (Role::Assistant, "answer"),
            (Role::User, "cancelled"),
            (Role::Assistant, "hal"),
        ];
        assert_eq!(said(&conversation), expected.map(|(role, text)| (role, text.to_owned())));
    }

    #[test]
    fn the_oldest_turns_are_forgotten_whole_and_the_last_question_never_is() {
        let mut conversation = conversation(3);
        conversation.ask("last");
        conversation.forget(|_, bytes| bytes < 1);
        assert_eq!((conversation.forgotten, said(&conversation)[0].1.as_str()), (2, "question 1"));
        conversation.forget(|_, _| true);
        assert_eq!(said(&conversation), [(Role::User, "last".to_owned())]);
        assert_eq!(conversation.forgotten, 6);
    }

    #[test]
    fn an_endless_answer_is_remembered_up_to_its_bound() {
        let mut conversation = conversation(0);
        conversation.ask("q");
        for _ in 0..3 {
            conversation.hear(&"é".repeat(MAX_HEARD / 4));
        }
        assert_eq!(conversation.heard.len(), MAX_HEARD);
        conversation.hear("x");
        assert_eq!(conversation.heard.len(), MAX_HEARD);
    }

    #[test]
    fn a_temperature_is_a_number_from_0_on() {
        assert_eq!(temperature("0.5"), Ok(0.5));
        for text in ["-1", "NaN", "inf", "warm"] {
            assert!(temperature(text).is_err(), "{text}");
        }
    }
}
