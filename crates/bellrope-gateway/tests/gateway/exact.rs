//! Answers that are handed on as they come: what of them is counted, what is never told, and how they end.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellrope_gateway::account::{Admission, Books, Intent, Outcome, Spent, Verdict};
use bellrope_gateway::inbound::pass_request;
use bellrope_gateway::pass::ToolKey;
use bellrope_gateway::{
    ChatRequest, Chunk, Gateway, HttpProvider, PassedAnswer, PassedStream, ProviderConfig, ProviderError, Told, Way,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::fake::{Fake, KEY, soon};
use crate::for_each_format;
use crate::pass::{exact, same, whole};
use crate::script::{Format, USAGE};

/// Books that let everything through, and remember how it ended.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The most tokens that an answer may have.
    pub(crate) limit: Option<u32>,
    /// The most tokens that the last request was said to take.
    pub(crate) said: Mutex<Option<u32>>,
    /// The models that were asked.
    pub(crate) asked: Mutex<Vec<Option<String>>>,
    pub(crate) settled: Mutex<Vec<(Outcome, Spent)>>,
}

impl Books for Ledger {
    fn admit(&self, intent: &Intent<'_>) -> Result<Verdict, ProviderError> {
        *self.said.lock().unwrap() = intent.max_tokens;
        self.asked.lock().unwrap().push(intent.model.map(str::to_owned));
        let lowered = self.limit.filter(|limit| intent.max_tokens.is_none_or(|asked| asked > *limit));
        Ok(Verdict::Send(Admission { max_tokens: lowered, is_bounded: self.limit.is_some(), ..Admission::default() }))
    }

    fn settle(&self, _: u64, outcome: Outcome, spent: &Spent) {
        self.settled.lock().unwrap().push((outcome, spent.clone()));
    }

    fn withdraw(&self, _: u64) {}
}

impl Ledger {
    pub(crate) fn last(&self) -> (Outcome, Spent) {
        self.settled.lock().unwrap().last().cloned().expect("something is over")
    }
}

#[tokio::test]
async fn the_books_are_told_the_most_tokens_that_the_provider_is_asked_for() {
    // The format demands a number: that of the request, of the setting, or its own.
    for (asked, set, expected) in
        [(None, None, 8_192), (Some(0), None, 8_192), (None, Some(700), 700), (Some(9), Some(700), 9)]
    {
        for limit in [None, Some(300)] {
            let fake = Fake::replying("400 Bad Request", "", "{}").await;
            let ledger = Arc::new(Ledger { limit, ..Ledger::default() });
            let config = ProviderConfig { max_tokens: set, ..fake.config(Format::Messages) };
            let gateway = with_books(config, &ledger);
            let request = ChatRequest { max_tokens: asked, ..ChatRequest::user("Hi") };
            soon(gateway.chat(request)).await.unwrap_err();
            assert_eq!(*ledger.said.lock().unwrap(), Some(expected), "{asked:?} {set:?}");
            let sent: serde_json::Value = serde_json::from_str(&fake.requests().last().unwrap().body).unwrap();
            assert_eq!(sent["max_tokens"], expected.min(limit.unwrap_or(u32::MAX)), "{asked:?} {set:?} {limit:?}");
        }
    }
}

pub(crate) fn with_books(config: ProviderConfig, ledger: &Arc<Ledger>) -> Gateway {
    let provider = HttpProvider::named("tried", config).unwrap();
    Gateway::new(Arc::new(provider)).with_books(Arc::clone(ledger) as _)
}

pub(crate) async fn send(gateway: &Gateway, format: Format, body: &str, key: Option<ToolKey>) -> Way {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut request = pass_request(same(format), body, gateway.names()).unwrap().unwrap();
    request.key = key;
    soon(gateway.pass(request)).await
}

pub(crate) fn stream(way: Way) -> PassedStream {
    let Way::Passed(PassedAnswer { body: Err(stream), .. }) = way else { panic!("{way:?}") };
    stream
}

/// The bytes of an answer, and the error with which it broke off.
pub(crate) async fn read(mut events: PassedStream) -> (String, Option<&'static str>) {
    let (mut text, mut cut) = (Vec::new(), None);
    while let Some(told) = soon(events.next()).await {
        match told {
            Told::Bytes(bytes) => text.extend_from_slice(&bytes),
            Told::Cut(error, _) => cut = Some(error.code()),
        }
    }
    (String::from_utf8(text).unwrap(), cut)
}

pub(crate) const STREAM: &str = r#"{"model":"m","stream":true,"messages":[],"input":"Hi"}"#;

/// An answer that has begun, with what the provider says at its beginning, and so much text.
fn begun(format: Format) -> String {
    match format {
        Format::ChatCompletions => {
            let usage = json!({"choices": [], "usage": {"prompt_tokens": USAGE.0, "completion_tokens": 1}});
            format!("data: {usage}\n\n{}", format.half("0123456789"))
        }
        // Messages say it in `message_start`, responses at their end alone.
        Format::Messages | Format::Responses => format.half("0123456789"),
    }
}

/// Begins an answer and then waits for the client, or breaks off.
async fn breaking_off(format: Format, breaks: bool) -> Fake {
    Fake::start(move |_, mut peer| async move {
        peer.begin_events().await;
        peer.chunk(begun(format)).await;
        if breaks {
            peer.end().await;
        } else {
            peer.closed().await;
        }
    })
    .await
}

for_each_format! {
    async fn what_was_said_at_the_beginning_is_booked_of_an_answer_that_has_no_end(format: Format) {
        let input = if format == Format::Responses { None } else { Some(USAGE.0) };
        let of = |spent: &Spent| (spent.usage.as_ref().map(|usage| usage.input_tokens), spent.said_bytes);
        for breaks in [true, false] {
            let expected = if breaks { Outcome::Cut } else { Outcome::Cancelled };
            let fake = breaking_off(format, breaks).await;
            let ledger = Arc::new(Ledger::default());
            let gateway = with_books(exact(&fake, format), &ledger);
            let mut events = stream(send(&gateway, format, STREAM, None).await);
            if breaks {
                assert_eq!(read(events).await.1, Some("truncated"));
            } else {
                let mut text = String::new();
                while !text.contains("0123456789") {
                    let Some(Told::Bytes(bytes)) = soon(events.next()).await else { panic!("{text}") };
                    text.push_str(std::str::from_utf8(&bytes).unwrap());
                }
                drop(events);
            }
            let (outcome, spent) = ledger.last();
            assert_eq!((outcome, of(&spent)), (expected, (input, 10)), "as it came");
            let read = gateway.snapshot().providers[0].input_tokens;
            assert_eq!(read, input.unwrap_or(0), "and on the page");

            // The same of an answer that is put in order.
            let ledger = Arc::new(Ledger::default());
            let gateway = with_books(fake.config(format), &ledger);
            let mut pieces = gateway.chat_stream(ChatRequest::user("Hi"));
            while let Some(piece) = soon(pieces.next()).await {
                if !breaks && matches!(&piece.chunk, Chunk::Text { .. }) {
                    break;
                }
            }
            drop(pieces);
            let (outcome, spent) = ledger.last();
            assert_eq!((outcome, of(&spent)), (expected, (input, 10)), "in order");
        }
    }

    async fn words_and_an_error_in_one_piece_are_handed_on_and_paid_for(format: Format) {
        let said = format.script().text("0123456789").fail("server_error", "boom");
        let fake = Fake::streaming([&*said.bytes()]).await;
        let ledger = Arc::new(Ledger::default());
        let (text, cut) = read(stream(send(&with_books(exact(&fake, format), &ledger), format, STREAM, None).await)).await;
        assert!(text.contains("0123456789") && text.contains("boom") && cut.is_none(), "{text} {cut:?}");
        let (outcome, spent) = ledger.last();
        assert_eq!((outcome, spent.said_bytes), (Outcome::Cut, 10));

        // Of a whole answer that is put together from it the words are lost, and paid for.
        let ledger = Arc::new(Ledger::default());
        soon(with_books(fake.config(format), &ledger).chat(ChatRequest::user("Hi"))).await.unwrap_err();
        let (outcome, spent) = ledger.last();
        assert_eq!((outcome, spent.said_bytes), (Outcome::Cut, 10));
    }

    async fn the_key_of_this_program_is_told_nowhere_and_all_else_is(format: Format) {
        let percent: String = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let unicode: String = KEY.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "\\u{byte:04x}").unwrap();
            text
        });
        for quoted in [KEY, &percent, &unicode] {
            // Whole, with headers.
            let body = whole(format).replace("\"new\":1e2", &format!("\"new\":\"for {quoted}!\""));
            let headers = format!("content-type: application/json\r\nx-request-id: r-{KEY}-{percent}\r\n");
            let fake = Fake::replying("200 OK", &headers, &body).await;
            let ledger = Arc::new(Ledger::default());
            let gateway = with_books(exact(&fake, format), &ledger);
            let way = send(&gateway, format, r#"{"model":"m"}"#, None).await;
            let Way::Passed(PassedAnswer { headers, body: Ok(told), .. }) = way else { panic!("{way:?}") };
            assert_eq!(told, body.replace(quoted, "[secret]"));
            let id = &headers.iter().find(|(name, _)| name == "x-request-id").unwrap().1;
            assert_eq!(String::from_utf8_lossy(id), "r-[secret]-[secret]");
            assert!(fake.requests().last().unwrap().head.contains(KEY));

            // A refusal.
            let error = format.error("x", "for KEY!").replace("KEY", quoted);
            let fake = Fake::replying("400 Bad Request", &format!("content-type: application/json\r\nx-request-id: {KEY}\r\n"), &error).await;
            let gateway = with_books(exact(&fake, format), &ledger);
            let Way::Refused(refusal) = send(&gateway, format, STREAM, None).await else { panic!() };
            assert_eq!(refusal.body, error.replace(quoted, "[secret]"));
            assert!(refusal.headers.iter().all(|(_, value)| !String::from_utf8_lossy(value).contains(KEY)));

            // A stream: in a comment, in an event, and in an error in its midst, whatever the pieces.
            let error = format.error("server_error", "for KEY!").replace("KEY", quoted);
            let begun = format!(": hello {quoted} and sk-\n\n{}", format.half("Ding sk-"));
            let failed = format!("event: error\ndata: {error}\n\n");
            for size in [1, 7, begun.len()] {
                let pieces = [&begun, &failed].map(|text| text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>());
                let has_begun = Arc::new(Notify::new());
                let may_fail = Arc::clone(&has_begun);
                let fake = Fake::start(move |_, mut peer| {
                    let ([begun, failed], may_fail) = (pieces.clone(), Arc::clone(&may_fail));
                    async move {
                        peer.begin_events().await;
                        for piece in &begun {
                            peer.chunk(piece).await;
                        }
                        // In place of the first event it would be a refusal.
                        may_fail.notified().await;
                        for piece in &failed {
                            peer.chunk(piece).await;
                        }
                        peer.end().await;
                    }
                })
                .await;
                let gateway = with_books(exact(&fake, format), &ledger);
                let events = stream(send(&gateway, format, STREAM, None).await);
                has_begun.notify_one();
                let (told, cut) = read(events).await;
                assert_eq!((told, cut), (format!("{begun}{failed}").replace(quoted, "[secret]"), None), "{size}");
                assert_eq!(ledger.last().0, Outcome::Cut);
            }
        }
    }

    async fn comments_behind_the_end_hold_nobody_up(format: Format) {
        let answer = format.answer("Ding");
        let sent = answer.clone();
        let fake = Fake::start(move |_, mut peer| {
            let answer = sent.clone();
            async move {
                peer.begin_events().await;
                peer.chunk(answer).await;
                // Until the client has had enough.
                while timeout(Duration::from_millis(100), peer.closed()).await.is_err() {
                    peer.chunk(": still there\n\n").await;
                }
            }
        })
        .await;
        let ledger = Arc::new(Ledger::default());
        let body = STREAM.replace("\"stream\"", "\"stream_options\":{\"include_usage\":true},\"stream\"");
        let (told, cut) = read(stream(send(&with_books(exact(&fake, format), &ledger), format, &body, None).await)).await;
        let comments = told.strip_prefix(&answer).unwrap_or_else(|| panic!("{told}"));
        assert!(cut.is_none() && comments.matches(": still there\n\n").count() * 15 == comments.len(), "{comments}");
        let (outcome, spent) = ledger.last();
        assert_eq!((outcome, spent.usage.map(|usage| (usage.input_tokens, usage.output_tokens))), (Outcome::Done, Some(USAGE)));
    }

    async fn a_budget_that_allows_less_changes_that_one_number_alone(format: Format) {
        let fake = Fake::streaming([&*format.answer("Ding")]).await;
        let field = match format {
            Format::ChatCompletions => "max_tokens",
            Format::Responses => "max_output_tokens",
            Format::Messages => "max_tokens",
        };
        let options = "\"stream_options\":{\"include_usage\":true}";
        let ledger = Arc::new(Ledger { limit: Some(500), ..Ledger::default() });
        let gateway = with_books(exact(&fake, format), &ledger);
        let body = |most: &str| format!("{{ \"new\":1.0e1,{options}, {most}\"model\":\"m\" ,\"stream\":true}}");
        for (asked, sent) in [
            (format!("\"{field}\" : 900,"), format!("\"{field}\" : 500,")),
            (format!("\"{field}\":499,"), format!("\"{field}\":499,")),
            (format!("\"{field}\":null,"), format!("\"{field}\":500,")),
        ] {
            let way = send(&gateway, format, &body(&asked), None).await;
            assert_eq!(read(stream(way)).await, (format.answer("Ding"), None));
            assert_eq!(fake.requests().pop().unwrap().body, body(&sent), "{asked}");
        }
        let way = send(&gateway, format, &body(""), None).await;
        assert_eq!(read(stream(way)).await.1, None);
        let sent = fake.requests().pop().unwrap().body;
        assert_eq!(sent, body("").replacen('{', &format!("{{\"{field}\":500,"), 1));
        assert!(ledger.asked.lock().unwrap().iter().all(|model| model.as_deref() == Some("m")));
        // Nobody knows what this asks for.
        for odd in ["\"n\":3,", "\"best_of\":2,", &format!("\"{field}\":\"900\",")] {
            let way = send(&gateway, format, &body(odd), None).await;
            assert!(matches!(way, Way::Translated { tried: 0, .. }), "{odd}: {way:?}");
        }
    }
}

#[tokio::test]
async fn a_budget_that_allows_less_than_the_model_is_to_think_has_the_thoughts_made_shorter() {
    let fake = Fake::streaming([&*Format::Messages.answer("Ding")]).await;
    let ledger = Arc::new(Ledger { limit: Some(3_000), ..Ledger::default() });
    let gateway = with_books(exact(&fake, Format::Messages), &ledger);
    let body = |most: u32, budget: u32| {
        format!(
            r#"{{"model":"m","stream":true,"max_tokens":{most},"thinking":{{"type":"enabled","budget_tokens" : {budget}}},"messages":[]}}"#
        )
    };
    let way = send(&gateway, Format::Messages, &body(9_000, 4_000), None).await;
    assert!(matches!(way, Way::Translated { tried: 0, .. }), "{way:?}");
    for (most, budget, sent) in [(9_000, 2_000, 3_000), (2_000, 4_000, 2_000)] {
        read(stream(send(&gateway, Format::Messages, &body(most, budget), None).await)).await;
        assert_eq!(
            fake.requests().pop().unwrap().body,
            body(sent, budget),
            "what is no fault of the budget goes as it came"
        );
    }
}

/// Providers `first`, `second` and `third`, each asked when the one before fails. Those of `client` take the tool's key.
fn chain(addresses: [&Fake; 3], kinds: [Format; 3], client: &[usize]) -> Gateway {
    let names = ["first", "second", "third"];
    let providers = (0..3).map(|at| {
        let mut provider = json!({"kind": kinds[at].kind().name(), "base_url": addresses[at].url(), "pass_through": "exact",
            "max_retries": 0, "model": "usual", "api_key": "${OURS}"});
        if client.contains(&at) {
            provider["credentials"] = json!("client");
        }
        (names[at].to_owned(), provider)
    });
    let providers: serde_json::Map<_, _> = providers.collect();
    let settings = json!({"provider": "first", "fallback": ["second", "third"], "providers": providers});
    let ours = |name: &str| (name == "OURS").then(|| KEY.to_owned());
    Gateway::from_settings_and_vars(serde_json::from_value(settings).unwrap(), ours).unwrap()
}

const OWN: &str = "sk-own-99aa88bb77";

#[tokio::test]
async fn a_tools_key_goes_to_fallbacks_that_take_it_and_to_no_other() {
    const CHAT: Format = Format::ChatCompletions;
    let json = "content-type: application/json\r\n";
    let down = Fake::replying("503 Unavailable", json, &CHAT.error("overloaded", "no")).await;
    let refusing = Fake::replying("401 Unauthorized", json, &CHAT.error("auth", "no")).await;
    let well = Fake::streaming([&*CHAT.answer("Ding")]).await;
    let key = ToolKey::new(Some(&format!("Bearer {OWN}")), None);
    let asked_with = |fake: &Fake, key: &str| fake.requests().pop().is_some_and(|asked| asked.head.contains(key));
    let notes = |way: &Way| match way {
        Way::Passed(answer) => answer.notes.join("; "),
        other => panic!("{other:?}"),
    };

    // It takes the key, and refuses it: the next one is asked with a key of this program.
    let gateway = chain([&down, &refusing, &well], [CHAT; 3], &[1]);
    let way = send(&gateway, CHAT, STREAM, key.clone()).await;
    let passed_on = |from: &str, to: &str, code: &str| {
        format!("`{to}` was asked with its own model, as `{from}` could not answer ({code})")
    };
    let both = [passed_on("first", "second", "overloaded"), passed_on("second", "third", "authentication")];
    assert_eq!(notes(&way), both.join("; "));
    assert!(asked_with(&refusing, OWN) && !asked_with(&refusing, KEY));
    for fake in [&down, &well] {
        assert!(asked_with(fake, KEY) && !asked_with(fake, OWN));
    }

    // There is no key: it is passed over, and that is said.
    let before = refusing.requests().len();
    let way = send(&gateway, CHAT, STREAM, None).await;
    let over = "the fallback `second` was skipped: it takes the tool's own key, and none came with the request";
    assert_eq!(notes(&way), format!("{over}; {}", passed_on("first", "third", "overloaded")));
    assert_eq!(refusing.requests().len(), before);
    let told: Vec<_> = soon(gateway.chat_stream(ChatRequest::user("Hi")).collect()).await;
    assert!(
        told.iter().any(|piece| matches!(&piece.chunk, Chunk::Notice { text } if text.contains("`second`"))),
        "{told:?}"
    );
    let whole = soon(gateway.chat(ChatRequest::user("Hi"))).await.unwrap();
    assert!(whole.text == "Ding" && whole.notes.iter().any(|note| note.contains("`second`")), "{whole:?}");

    // A key of another vendor is none for it.
    let messages = Fake::streaming([&*Format::Messages.answer("Dong")]).await;
    let gateway = chain([&down, &messages, &well], [CHAT, Format::Messages, CHAT], &[1]);
    let way = send(&gateway, CHAT, STREAM, key.clone()).await;
    assert!(notes(&way).contains("none of its own format came"), "{way:?}");
    assert!(messages.requests().is_empty());

    // The one that was asked says that its key is wrong, and nobody stands in for it.
    let before = well.requests().len();
    let gateway = chain([&refusing, &well, &well], [CHAT; 3], &[0]);
    let way = send(&gateway, CHAT, STREAM, key.clone()).await;
    assert!(matches!(&way, Way::Refused(refusal) if refusal.status == 401), "{way:?}");
    // Where nobody is left, the error is that of the one that was asked last.
    let gateway = chain([&down, &down, &well], [CHAT; 3], &[2]);
    let way = send(&gateway, CHAT, STREAM, None).await;
    assert!(matches!(&way, Way::Refused(refusal) if refusal.status == 503), "{way:?}");
    assert_eq!(well.requests().len(), before);
}

#[tokio::test]
async fn vectors_of_the_default_model_are_booked_as_its() {
    let answer = r#"{"data":[{"index":0,"embedding":[1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let fake = Fake::replying("200 OK", "content-type: application/json\r\n", answer).await;
    let ledger = Arc::new(Ledger::default());
    let gateway = with_books(fake.config(Format::ChatCompletions), &ledger);
    for (model, booked) in [("default", "fake-model"), ("m", "m")] {
        let body = json!({"model": model, "input": "Hi"}).to_string();
        let (request, _) = bellrope_gateway::inbound::embedding_request(body.as_bytes(), &[]).unwrap();
        soon(gateway.embed(request)).await.unwrap();
        assert_eq!(ledger.asked.lock().unwrap().last().unwrap().as_deref(), Some(booked));
    }
}

#[tokio::test]
async fn a_provider_that_changes_the_protocol_unasked_is_told_in_words() {
    let format = Format::ChatCompletions;
    let fake = Fake::start(|_, mut peer| async move {
        peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
        peer.closed().await;
    })
    .await;
    let gateway = with_books(exact(&fake, format), &Arc::default());
    let way = send(&gateway, format, STREAM, None).await;
    assert!(matches!(way, Way::Failed(_)), "{way:?}");
}
