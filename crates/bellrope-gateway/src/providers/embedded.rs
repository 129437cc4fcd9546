//! A scripted provider without model and network: the default, so that everything runs on a fresh machine.

use std::time::Duration;

use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::ProviderError;
use crate::message::{ChatRequest, Chunk, Content, ModelInfo, Part, ProviderHealth, Role, StopReason, Usage};
use crate::provider::{BoxFuture, Capabilities, Provider, ProviderLimits, ProviderStream};
use crate::text::boundary;

/// The name of the provider, and of its only model.
pub const NAME: &str = "embedded";

/// A longer word is cut into several tokens. In bytes.
const MAX_TOKEN: usize = 32;

const PREAMBLE: &str =
    "I am Bellrope's embedded provider: a script, with no model and no network behind it. You asked:";

/// What is said when a number of tokens is asked for, over and over.
const FILLER: [&str; 8] = ["Ring", " the", " bell", " and", " somebody", " will", " come", ". "];

/// How the embedded provider answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// Tokens a second. 0, the default: as fast as they are taken.
    pub tokens_per_second: u32,
    /// How many tokens every answer has. Absent by default: as many as the text has. No memory is taken for them.
    pub tokens: Option<u32>,
    /// The pieces to answer every request with, in place of any text, for tests: errors, reasoning, tool calls. Empty by
    /// default. A script without a terminal piece breaks off as a faulty provider would.
    pub script: Vec<Chunk>,
}

/// The embedded provider.
///
/// Its answers depend on nothing but request and settings. It introduces itself and repeats the last message of the
/// user, a token a word. A message that starts with `/tokens N` is answered with N tokens instead. `max_tokens` holds;
/// sampling and stop texts are passed over.
///
/// ```
/// use bellrope_gateway::{ChatRequest, EmbeddedProvider, Provider, StopReason};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let answer = EmbeddedProvider::default().chat(ChatRequest::user("Who is there?")).await?;
/// assert!(answer.text.ends_with("You asked: Who is there?"));
/// assert_eq!(answer.stop_reason, StopReason::EndTurn);
/// # Ok::<(), bellrope_gateway::ProviderError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Default)]
pub struct EmbeddedProvider {
    settings: EmbeddedSettings,
}

impl EmbeddedProvider {
    /// A provider that answers as `settings` say.
    pub fn new(settings: EmbeddedSettings) -> Self {
        Self { settings }
    }
}

impl Provider for EmbeddedProvider {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { default_model: Some(NAME.to_owned()), ..Capabilities::default() }
    }

    fn limits(&self) -> ProviderLimits {
        // Its errors are scripted, and the next request is no burden to it.
        ProviderLimits { breaker: None, ..ProviderLimits::default() }
    }

    fn has_plain_names(&self) -> bool {
        true
    }

    fn chat_stream(&self, request: ChatRequest) -> ProviderStream {
        if !self.settings.script.is_empty() {
            return Box::pin(stream::iter(self.settings.script.clone().into_iter().map(Ok)));
        }
        let answer = ScriptedAnswer::new(&request, &self.settings);
        Box::pin(stream::unfold(answer, |mut answer| async {
            let chunk = answer.next().await?;
            Some((Ok(chunk), answer))
        }))
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, ProviderError>> {
        let model = ModelInfo { id: NAME.to_owned(), provider: NAME.to_owned(), owner: Some("bellrope".to_owned()) };
        Box::pin(async { Ok(vec![model]) })
    }

    fn health(&self) -> BoxFuture<'_, ProviderHealth> {
        Box::pin(async {
            ProviderHealth { provider: NAME.to_owned(), healthy: true, latency: Duration::ZERO, error: None }
        })
    }
}

/// An answer on its way.
struct ScriptedAnswer {
    words: Words,
    stage: Stage,
    /// Tokens sent so far.
    sent: u32,
    max_tokens: u32,
    input_tokens: u64,
    /// Time between two tokens; zero for none.
    period: Duration,
    /// When the first token was asked for: the others are due by it, so that the rate holds over the whole answer.
    started: Option<Instant>,
}

enum Words {
    /// The tokens of a text from a position on.
    Of { text: String, at: usize },
    /// So many tokens, whatever they say.
    Filler { count: u32 },
}

enum Stage {
    Text,
    Done(StopReason),
    Ended,
}

impl ScriptedAnswer {
    fn new(request: &ChatRequest, settings: &EmbeddedSettings) -> Self {
        let question = last_question(request);
        let words = match asked_tokens(&question).or(settings.tokens) {
            Some(count) => Words::Filler { count },
            None => Words::Of { text: format!("{PREAMBLE} {question}"), at: 0 },
        };
        let period = match settings.tokens_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        };
        Self {
            words,
            stage: Stage::Text,
            sent: 0,
            max_tokens: request.max_tokens.unwrap_or(u32::MAX),
            input_tokens: input_tokens(request),
            period,
            started: None,
        }
    }

    async fn next(&mut self) -> Option<Chunk> {
        match self.stage {
            Stage::Text => {
                if let Some(text) = self.words.token(self.sent) {
                    if self.sent < self.max_tokens {
                        let chunk = Chunk::text(text);
                        self.pace().await;
                        self.words.advance(&chunk);
                        self.sent += 1;
                        return Some(chunk);
                    }
                    self.stage = Stage::Done(StopReason::MaxTokens);
                } else {
                    self.stage = Stage::Done(StopReason::EndTurn);
                }
                let (input_tokens, output_tokens) = (self.input_tokens, u64::from(self.sent));
                Some(Chunk::Usage(Usage { input_tokens, output_tokens, ..Usage::default() }))
            }
            Stage::Done(stop_reason) => {
                self.stage = Stage::Ended;
                Some(Chunk::Done { stop_reason })
            }
            Stage::Ended => None,
        }
    }

    /// Waits until the next token is due.
    async fn pace(&mut self) {
        let started = *self.started.get_or_insert_with(Instant::now);
        if self.period.is_zero() {
            // An answer that is always ready must not keep its thread from other tasks.
            tokio::task::consume_budget().await;
        } else {
            tokio::time::sleep_until(started + self.period * self.sent).await;
        }
    }
}

impl Words {
    /// The token that comes after `sent` others.
    fn token(&self, sent: u32) -> Option<&str> {
        match self {
            Self::Of { text, at } => first_token(&text[*at..]),
            Self::Filler { count } => (sent < *count).then(|| FILLER[sent as usize % FILLER.len()]),
        }
    }

    fn advance(&mut self, sent: &Chunk) {
        if let (Self::Of { at, .. }, Chunk::Text { text }) = (self, sent) {
            *at += text.len();
        }
    }
}

/// A word with the white space before it, of at most [`MAX_TOKEN`] bytes.
fn first_token(text: &str) -> Option<&str> {
    // What follows is not looked at: a word may be as long as a request.
    let text = &text[..boundary(text, MAX_TOKEN)];
    let word = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    let end = text[word..].find(char::is_whitespace).map_or(text.len(), |len| word + len);
    let token = &text[..end];
    (!token.is_empty()).then_some(token)
}

/// The number N of a question that starts with `/tokens N`.
fn asked_tokens(question: &str) -> Option<u32> {
    question.strip_prefix("/tokens ")?.split_whitespace().next()?.parse().ok()
}

fn last_question(request: &ChatRequest) -> String {
    let asked = request.messages.iter().rev().find(|message| message.role == Role::User);
    asked.map(|message| texts(&message.content).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

fn input_tokens(request: &ChatRequest) -> u64 {
    let said = request.messages.iter().flat_map(|message| texts(&message.content));
    said.chain(request.system.as_deref()).map(|text| text.split_whitespace().count() as u64).sum()
}

fn texts(content: &Content) -> impl Iterator<Item = &str> {
    let (whole, parts) = match content {
        Content::Text(text) => (Some(text.as_str()), &[][..]),
        Content::Parts(parts) => (None, &parts[..]),
    };
    whole.into_iter().chain(parts.iter().filter_map(|part| match part {
        Part::Text { text, .. } => Some(text.as_str()),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    async fn chunks(settings: EmbeddedSettings, request: ChatRequest) -> Vec<Chunk> {
        EmbeddedProvider::new(settings).chat_stream(request).map(|chunk| chunk.unwrap()).collect().await
    }

    #[tokio::test]
    async fn the_answer_repeats_the_question_in_tokens_and_counts_them() {
        let seen = chunks(EmbeddedSettings::default(), ChatRequest::user("What  time?")).await;
        let text: String = seen
            .iter()
            .filter_map(|chunk| match chunk {
                Chunk::Text { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(text, format!("{PREAMBLE} What  time?"));
        let words = text.split_whitespace().count();
        assert_eq!(seen.len(), words + 2);
        let usage = Usage { input_tokens: 2, output_tokens: words as u64, ..Usage::default() };
        assert_eq!(seen[words..], [Chunk::Usage(usage), Chunk::Done { stop_reason: StopReason::EndTurn }]);
    }

    #[tokio::test]
    async fn the_texts_of_a_question_in_parts_are_repeated_and_its_pictures_are_not() {
        let parts = serde_json::json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is"}, {"type": "image", "url": "https://a/b.png"},
            {"type": "text", "text": "this?"},
        ]}]});
        let seen = chunks(EmbeddedSettings::default(), serde_json::from_value(parts).unwrap()).await;
        let text: String = seen
            .iter()
            .filter_map(|chunk| if let Chunk::Text { text } = chunk { Some(text.as_str()) } else { None })
            .collect();
        assert_eq!(text, format!("{PREAMBLE} What is this?"));
    }

    #[tokio::test]
    async fn the_number_of_tokens_can_be_asked_for() {
        let settings = EmbeddedSettings { tokens: Some(3), ..EmbeddedSettings::default() };
        assert_eq!(chunks(settings.clone(), ChatRequest::user("hi")).await.len(), 3 + 2);
        assert_eq!(chunks(settings, ChatRequest::user("/tokens 5000 please")).await.len(), 5000 + 2);
    }

    #[tokio::test]
    async fn max_tokens_cuts_the_answer_off() {
        let request = ChatRequest { max_tokens: Some(2), ..ChatRequest::user("hi") };
        let seen = chunks(EmbeddedSettings::default(), request).await;
        assert_eq!(seen.len(), 2 + 2);
        assert_eq!(seen[3], Chunk::Done { stop_reason: StopReason::MaxTokens });
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_the_whole_answer() {
        let started = Instant::now();
        let settings = EmbeddedSettings { tokens_per_second: 50, tokens: Some(101), ..EmbeddedSettings::default() };
        assert_eq!(chunks(settings, ChatRequest::user("hi")).await.len(), 103);
        let took = started.elapsed();
        assert!((Duration::from_secs(2)..Duration::from_millis(2010)).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn a_script_is_played_as_it_stands() {
        let script = vec![Chunk::reasoning("hm"), Chunk::Done { stop_reason: StopReason::Refusal }];
        let settings = EmbeddedSettings { script: script.clone(), ..EmbeddedSettings::default() };
        assert_eq!(chunks(settings, ChatRequest::user("hi")).await, script);
    }

    #[test]
    fn long_words_are_cut_at_characters() {
        assert_eq!(first_token(&"é".repeat(100)).map(str::len), Some(32));
        assert_eq!(first_token(&format!("a{}", "é".repeat(100))).map(str::len), Some(31));
        assert_eq!(first_token(&" ".repeat(100)).map(str::len), Some(32));
        assert_eq!(first_token("  a b"), Some("  a"));
        assert_eq!(first_token(""), None);
    }
}
