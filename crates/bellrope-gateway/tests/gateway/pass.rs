//! Requests and answers that go through as they are, where tool and provider speak the same format.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bellrope_gateway::inbound::{Fault, pass_request};
use bellrope_gateway::pass::{PassFormat, ToolKey};
use bellrope_gateway::{
    Credentials, Gateway, HttpProvider, PassThrough, PassedAnswer, ProviderConfig, ProviderSnapshot, Told, Way,
};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::fake::{Fake, KEY, soon};
use crate::for_each_format;
use crate::script::{Format, USAGE};

pub(crate) fn same(format: Format) -> PassFormat {
    match format {
        Format::ChatCompletions => PassFormat::ChatCompletions,
        Format::Responses => PassFormat::Responses,
        Format::Messages => PassFormat::Messages,
    }
}

pub(crate) fn exact(fake: &Fake, format: Format) -> ProviderConfig {
    ProviderConfig { pass_through: Some(PassThrough::Exact), ..fake.config(format) }
}

fn gateway(config: ProviderConfig) -> Gateway {
    Gateway::new(Arc::new(HttpProvider::named("tried", config).unwrap()))
}

/// A request with odd blanks, an escape, a number that no reader keeps, and a field that nobody knows.
fn body(model: &str, stream: bool) -> String {
    format!(
        "{{ \"messages\" : [],\"input\":\"Hi \\ud83d\",\"new_field\":{{\"a\":1.0e+2}} ,\n\"model\":\"{model}\",\"stream\":{stream}}}"
    )
}

async fn send(gateway: &Gateway, format: Format, body: &str) -> Way {
    send_with(gateway, format, body, &[], None).await
}

async fn send_with(
    gateway: &Gateway,
    format: Format,
    body: &str,
    headers: &[(&str, &str)],
    key: Option<ToolKey>,
) -> Way {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut request = pass_request(same(format), body, gateway.names()).unwrap().unwrap();
    request.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    request.key = key;
    soon(gateway.pass(request)).await
}

/// All of an answer, and the error with which it broke off.
async fn read(way: Way) -> (String, Option<String>) {
    let Way::Passed(PassedAnswer { body, .. }) = way else { panic!("{way:?}") };
    let mut events = match body {
        Ok(whole) => return (String::from_utf8(whole.to_vec()).unwrap(), None),
        Err(events) => events,
    };
    let (mut text, mut cut) = (Vec::new(), None);
    while let Some(told) = soon(events.next()).await {
        match told {
            Told::Bytes(bytes) => text.extend_from_slice(&bytes),
            Told::Cut(error, _) => cut = Some(error.code().to_owned()),
        }
    }
    (String::from_utf8(text).unwrap(), cut)
}

fn counted(gateway: &Gateway) -> ProviderSnapshot {
    gateway.snapshot().providers.remove(0)
}

for_each_format! {
    async fn a_request_and_its_answer_go_through_byte_for_byte(format: Format) {
        let answer = format!("{}{}", format.ping(), format.script().text("Ding").tool(0, "c", "ring").stop("stop").end());
        let (first, rest) = answer.split_at(answer.len() / 3);
        let fake = Fake::streaming([first, rest]).await;
        let gateway = gateway(exact(&fake, format));
        let way = send(&gateway, format, &body("tried/m\\u006Fdel-x", true)).await;
        let Way::Passed(answered) = &way else { panic!("{way:?}") };
        assert_eq!(answered.status, 200);
        assert_eq!(read(way).await, (unasked(&answer), None));
        let asked = fake.requests().pop().unwrap();
        let expected = body("model-x", true);
        if format == Format::ChatCompletions {
            let added = "{\"stream_options\":{\"include_usage\":true},";
            assert_eq!(asked.body, expected.replacen('{', added, 1));
        } else {
            assert_eq!(asked.body, expected);
        }
        assert!(asked.head.starts_with(&format!("POST {} ", format.path())), "{}", asked.head);
        let seen = counted(&gateway);
        assert_eq!((seen.requests, seen.done, seen.in_flight, seen.cancelled), (1, 1, 0, 0));
        assert_eq!((seen.input_tokens, seen.output_tokens), USAGE);
        assert!(seen.pieces > 2, "{seen:?}");
    }

    async fn a_whole_answer_goes_through_byte_for_byte_and_is_counted(format: Format) {
        let answer = whole(format);
        let headers = "content-type: application/json\r\nx-request-id: r7\r\nset-cookie: a=b\r\nx-ratelimit-remaining-tokens: 9\r\n\
                       anthropic-ratelimit-tokens-limit: 8\r\nserver: x\r\n";
        let fake = Fake::replying("200 OK", headers, &answer).await;
        let gateway = gateway(exact(&fake, format));
        let way = send(&gateway, format, &body("fake-model", false)).await;
        let Way::Passed(PassedAnswer { status, headers, .. }) = &way else { panic!("{way:?}") };
        assert_eq!(*status, 200);
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let kept = ["anthropic-ratelimit-tokens-limit", "content-type", "x-ratelimit-remaining-tokens", "x-request-id"];
        assert_eq!(names, kept);
        assert_eq!(read(way).await, (answer, None));
        assert_eq!(fake.requests().pop().unwrap().body, body("fake-model", false));
        let seen = counted(&gateway);
        assert_eq!((seen.done, seen.input_tokens, seen.output_tokens), (1, 9, 4));
    }

    async fn an_answer_that_breaks_off_is_told_after_its_last_whole_event(format: Format) {
        let half = format.half("Ding");
        let fake = Fake::start(move |_, mut peer| {
            let half = format.half("Ding");
            async move {
                peer.begin_events().await;
                peer.chunk(half + "data: {\"cut").await;
                peer.reset();
            }
        })
        .await;
        let gateway = gateway(exact(&fake, format));
        let (text, cut) = read(send(&gateway, format, &body("m", true)).await).await;
        assert_eq!((text, cut.as_deref()), (half, Some("truncated")));
        let seen = counted(&gateway);
        assert_eq!((seen.done, seen.failed.iter().find(|(code, _)| *code == "truncated").unwrap().1), (0, 1));
    }

    async fn a_refusal_comes_back_with_its_status_and_its_body(format: Format) {
        let error = format.error("rate_limit_error", "slow down");
        let headers = "content-type: application/json\r\nretry-after: 7\r\nrequest-id: req_9\r\nset-cookie: a=b\r\n";
        let fake = Fake::replying("429 Too Many Requests", headers, &error).await;
        let gateway = gateway(ProviderConfig { max_retries: 0, ..exact(&fake, format) });
        let way = send(&gateway, format, &body("m", true)).await;
        let Way::Refused(refusal) = way else { panic!("{way:?}") };
        assert_eq!((refusal.status, &*refusal.body), (429, error.as_bytes()));
        let header = |name: &str| refusal.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &**value);
        assert_eq!((header("retry-after"), header("request-id")), (Some(&b"7"[..]), Some(&b"req_9"[..])));
        assert_eq!(header("set-cookie"), None);
        // Unless it quotes the key.
        let fake = Fake::replying("401 Unauthorized", "content-type: application/json\r\n", &format.error("x", KEY)).await;
        let gateway = self::gateway(exact(&fake, format));
        let Way::Refused(refusal) = send(&gateway, format, &body("m", false)).await else { panic!() };
        let text = String::from_utf8(refusal.body.to_vec()).unwrap();
        assert!(refusal.status == 401 && text.contains("[secret]") && !text.contains(KEY), "{text}");
    }

    async fn the_next_provider_is_asked_before_the_first_byte_and_gets_its_own_model(format: Format) {
        let down = Fake::replying("503 Service Unavailable", "content-type: application/json\r\n", "{}").await;
        let answer = format.answer("Ding");
        let up = Fake::streaming([&*answer]).await;
        let config = |fake: &Fake, model: &str| {
            let kind = format.kind().name();
            serde_json::json!({"kind": kind, "base_url": fake.url(), "model": model, "pass_through": "exact", "max_retries": 0})
        };
        let settings = serde_json::json!({
            "provider": "a", "fallback": ["b"], "providers": {"a": config(&down, "x"), "b": config(&up, "y")},
        });
        let gateway = Gateway::from_settings_and_vars(serde_json::from_value(settings).unwrap(), |_| None).unwrap();
        let key = ToolKey::new(Some("Bearer sk-tool-123456"), None);
        let way = send_with(&gateway, format, &body("mine", true), &[], key).await;
        assert_eq!(read(way).await, (unasked(&answer), None));
        assert!(down.requests()[0].body.contains("\"model\":\"mine\""));
        assert!(up.requests()[0].body.contains("\"model\":\"y\""), "{:?}", up.requests());
        // One that refuses the request itself is not passed over.
        let refusing = Fake::replying("400 Bad Request", "content-type: application/json\r\n", "{\"error\":{}}").await;
        let settings = serde_json::json!({
            "provider": "a", "fallback": ["b"], "providers": {"a": config(&refusing, "x"), "b": config(&up, "y")},
        });
        let gateway = Gateway::from_settings_and_vars(serde_json::from_value(settings).unwrap(), |_| None).unwrap();
        assert!(matches!(send(&gateway, format, &body("m", true)).await, Way::Refused(refusal) if refusal.status == 400));
    }

    async fn a_tool_that_goes_away_takes_the_providers_stream_along(format: Format) {
        let left = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&left);
        let fake = Fake::start(move |_, mut peer| {
            let (noted, half) = (Arc::clone(&noted), format.half("Ding"));
            async move {
                peer.begin_events().await;
                peer.chunk(half).await;
                peer.closed().await;
                noted.store(true, SeqCst);
            }
        })
        .await;
        let gateway = gateway(exact(&fake, format));
        let Way::Passed(PassedAnswer { body: Err(mut events), .. }) = send(&gateway, format, &body("m", true)).await else {
            panic!()
        };
        assert!(matches!(soon(events.next()).await, Some(Told::Bytes(_))));
        assert_eq!(counted(&gateway).in_flight, 1);
        drop(events);
        soon(async {
            while !left.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!((counted(&gateway).in_flight, counted(&gateway).cancelled), (0, 1));
    }

    async fn headers_of_the_list_go_to_the_provider_and_no_others(format: Format) {
        let fake = Fake::streaming([&*format.answer("a")]).await;
        let headers = std::collections::BTreeMap::from([("openai-project".to_owned(), "ours".to_owned())]);
        let gateway = gateway(ProviderConfig { headers, ..exact(&fake, format) });
        let sent = [
            ("anthropic-version", "2099-01-01"),
            ("anthropic-beta", "one"),
            ("anthropic-beta", "two,three"),
            ("openai-organization", "org"),
            ("openai-project", "theirs"),
            ("x-client-request-id", "id-7"),
            ("cookie", "a=b"),
            ("x-api-key", "sk-stale"),
            ("authorization", "Bearer stale"),
            ("x-request-id", "a\nb"),
        ];
        let key = ToolKey::new(Some("Bearer sk-tool-123456"), Some("sk-tool-654321"));
        read(send_with(&gateway, format, &body("m", true), &sent, key).await).await;
        let head = fake.requests()[0].head.clone();
        for line in [
            "anthropic-version: 2099-01-01",
            "anthropic-beta: one",
            "anthropic-beta: two,three",
            "openai-organization: org",
            "openai-project: ours",
            "x-client-request-id: id-7",
        ] {
            assert!(head.lines().any(|found| found == line), "{line}: {head}");
        }
        for word in ["cookie", "theirs", "stale", "sk-tool", "x-request-id", "2023-06-01"] {
            assert!(!head.contains(word), "{word}: {head}");
        }
        assert_eq!(head.matches(KEY).count(), 1, "{head}");
    }

    async fn a_tools_own_key_goes_to_a_provider_that_takes_it_and_nowhere_else(format: Format) {
        const OWN: &str = "sk-tool-4f9a1c77e0";
        let fake = Fake::streaming([&*format.answer("a")]).await;
        let config = ProviderConfig { credentials: Credentials::Client, ..exact(&fake, format) };
        let gateway = gateway(config);
        let bearer = format!("Bearer {OWN}");
        for key in [ToolKey::new(Some(&bearer), None), ToolKey::new(None, Some(OWN))] {
            read(send_with(&gateway, format, &body("m", true), &[], key.clone()).await).await;
            let head = fake.requests().pop().unwrap().head;
            assert_eq!(head.matches(OWN).count(), 1, "{head}");
            assert!(!head.contains(KEY), "{head}");
            assert!(!format!("{key:?}").contains(OWN));
        }
        // A token of a subscription stays one.
        let is_bearer = fake.requests()[0].head.to_ascii_lowercase().contains("authorization: bearer ");
        assert!(is_bearer, "{:?}", fake.requests()[0]);
        let way = send(&gateway, format, &body("m", true)).await;
        let Way::Failed(error) = way else { panic!("{way:?}") };
        let fault = Fault::from(error);
        assert_eq!(fault.status, 401);
        assert!(fault.to_string().contains("gateway.providers.tried.credentials"), "{fault}");
        // Whoever asks without the API port has none.
        let error = soon(gateway.chat(bellrope_gateway::ChatRequest::user("Hi"))).await.unwrap_err();
        assert_eq!(error.code(), "authentication");
        // One that is refused is quoted nowhere, and nobody else's stands in for it.
        let refusing = Fake::replying("401 Unauthorized", "content-type: application/json\r\n", &format.error("x", OWN)).await;
        let settings = serde_json::json!({"provider": "a", "fallback": ["embedded"], "providers": {"a": {
            "kind": format.kind().name(), "base_url": refusing.url(), "pass_through": "exact", "credentials": "client",
        }}});
        let gateway = Gateway::from_settings_and_vars(serde_json::from_value(settings).unwrap(), |_| None).unwrap();
        let way = send_with(&gateway, format, &body("m", true), &[], ToolKey::new(Some(&bearer), None)).await;
        let Way::Refused(refusal) = way else { panic!("{way:?}") };
        assert!(refusal.status == 401 && !String::from_utf8_lossy(&refusal.body).contains(OWN));
    }

    async fn a_web_page_in_place_of_an_answer_is_named(format: Format) {
        let fake = Fake::replying("200 OK", "content-type: text/html\r\n", "<html>Please log in</html>").await;
        let way = send(&gateway(exact(&fake, format)), format, &body("m", true)).await;
        assert!(matches!(&way, Way::Failed(error) if error.code() == "unexpected_content"), "{way:?}");
    }

    async fn a_whole_answer_that_is_cut_has_the_status_of_an_error(format: Format) {
        let answer = whole(format);
        let fake = Fake::start(move |_, mut peer| {
            let answer = whole(format);
            async move {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
                peer.send(head + &answer[..answer.len() / 2]).await;
            }
        })
        .await;
        let way = send(&gateway(exact(&fake, format)), format, &body("m", false)).await;
        assert!(matches!(&way, Way::Failed(error) if error.code() == "truncated"), "{answer}: {way:?}");
    }
}

/// An answer without the event of chat completions that the tool did not ask for.
fn unasked(answer: &str) -> String {
    let is_extra = |event: &&str| event.contains("\"choices\":[]") && event.contains("\"usage\":{");
    answer.split_inclusive("\n\n").filter(|event| !is_extra(event)).collect()
}

/// A whole answer of a format, with blanks that nobody would write again.
pub(crate) fn whole(format: Format) -> String {
    let (read, written) = USAGE;
    match format {
        Format::ChatCompletions => format!(
            "{{ \"id\":\"c\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"Ding\"}},\
             \"finish_reason\":\"stop\"}}],  \"usage\":{{\"prompt_tokens\":{read},\"completion_tokens\":{written}}},\"new\":1e2}}\n"
        ),
        Format::Responses => format!(
            "{{ \"id\":\"resp_1\",\"object\":\"response\",\"status\":\"completed\",\"output\":[{{\"type\":\"message\",\"id\":\"m\",\
             \"role\":\"assistant\",\"content\":[{{\"type\":\"output_text\",\"text\":\"Ding\"}}]}}],\
             \"usage\":{{\"input_tokens\":{read},\"output_tokens\":{written}}},  \"new\":1e2}}\n"
        ),
        Format::Messages => format!(
            "{{ \"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[{{\"type\":\"text\",\"text\":\"Ding\"}}],\
             \"stop_reason\":\"end_turn\",\"usage\":{{\"input_tokens\":{read},\"output_tokens\":{written}}},  \"new\":1e2}}\n"
        ),
    }
}

#[tokio::test]
async fn a_provider_that_speaks_another_format_or_repairs_is_not_asked_so() {
    let fake = Fake::streaming([&*Format::Messages.answer("a")]).await;
    for config in [
        exact(&fake, Format::Messages),
        ProviderConfig { pass_through: None, ..fake.config(Format::ChatCompletions) },
        ProviderConfig { pass_through: Some(PassThrough::Off), ..fake.config(Format::ChatCompletions) },
    ] {
        let gateway = gateway(config);
        assert!(!gateway.passes(PassFormat::ChatCompletions));
        let way = send(&gateway, Format::ChatCompletions, &body("m", true)).await;
        assert!(matches!(way, Way::Translated { tried: 0, .. }), "{way:?}");
    }
    assert!(fake.requests().is_empty());
    // The hosts of the inventors are asked exactly unless the settings say otherwise.
    for (name, format) in [
        ("openai", PassFormat::ChatCompletions),
        ("openai", PassFormat::Completions),
        ("openai-responses", PassFormat::Responses),
        ("anthropic", PassFormat::Messages),
        ("anthropic", PassFormat::CountTokens),
    ] {
        let of = |config| Gateway::new(Arc::new(HttpProvider::named(name, config).unwrap())).passes(format);
        assert!(of(ProviderConfig::default()), "{name}");
        assert!(!of(ProviderConfig { pass_through: Some(PassThrough::Repaired), ..ProviderConfig::default() }));
    }
    let groq = Gateway::new(Arc::new(HttpProvider::named("groq", ProviderConfig::default()).unwrap()));
    assert!(!groq.passes(PassFormat::ChatCompletions));
}

#[tokio::test]
async fn what_an_answer_took_is_asked_for_and_hidden_where_the_tool_did_not_ask() {
    let events = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Ding\"},\"finish_reason\":\"stop\"}]}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\n";
    let fake = Fake::streaming([events, usage, "data: [DONE]\n\n"]).await;
    let gateway = gateway(exact(&fake, Format::ChatCompletions));
    let all = [events, usage, "data: [DONE]\n\n"].concat();
    for (options, expected) in [
        ("", all.replace(usage, "")),
        (",\"stream_options\":{\"include_usage\":false}", all.replace(usage, "")),
        (",\"stream_options\":{\"include_usage\":true}", all.clone()),
    ] {
        let body = format!("{{\"model\":\"m\",\"stream\":true{options}}}");
        assert_eq!(read(send(&gateway, Format::ChatCompletions, &body).await).await, (expected, None), "{options}");
        assert!(fake.requests().pop().unwrap().body.contains("\"include_usage\":true"));
    }
    assert_eq!(counted(&gateway).output_tokens, 12);
    // A server that does not know the field is not asked.
    let config = ProviderConfig { stream_options: false, ..exact(&fake, Format::ChatCompletions) };
    let body = "{\"model\":\"m\",\"stream\":true}";
    assert_eq!(read(send(&self::gateway(config), Format::ChatCompletions, body).await).await, (all, None));
    assert_eq!(fake.requests().pop().unwrap().body, body);
}

#[tokio::test]
async fn an_error_in_place_of_the_first_event_is_a_refusal_that_another_provider_can_make_good() {
    let error =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"no\"}}\n\n";
    let fake = Fake::streaming([error]).await;
    let gateway = gateway(exact(&fake, Format::Messages));
    let Way::Refused(refusal) = send(&gateway, Format::Messages, &body("m", true)).await else { panic!() };
    assert_eq!((refusal.status, &*refusal.body), (200, error.as_bytes()));
    assert_eq!(counted(&gateway).done, 0);
}
