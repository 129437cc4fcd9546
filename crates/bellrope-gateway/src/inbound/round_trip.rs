//! Conversations that go from one format to another and back: a body is written for a provider of a format, and read as that
//! of a tool of the same format. What is said, called and answered stays, in its order.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::ToolFormat;
use crate::message::{ChatRequest, Content, Message, Part, Role};
use crate::notes::Notes;
use crate::providers::formats::{ProviderKind, ProviderServer};

const FORMATS: [(ToolFormat, ProviderKind); 3] = [
    (ToolFormat::ChatCompletions, ProviderKind::OpenAi),
    (ToolFormat::Responses, ProviderKind::OpenAiResponses),
    (ToolFormat::Messages, ProviderKind::Anthropic),
];

const SERVER: ProviderServer = ProviderServer { at_inventor: false, message_extras: true, stream_options: true };

/// The request as a tool of this format would have sent it.
fn through(request: &ChatRequest, (tool, provider): (ToolFormat, ProviderKind)) -> ChatRequest {
    let body = provider.format().body(request, Some("m"), SERVER, &mut Notes::default()).unwrap();
    tool.read(&body, &[]).unwrap_or_else(|fault| panic!("{fault}: {}", String::from_utf8_lossy(&body))).chat
}

/// What a conversation comes to: instructions first; then who said what, and each call with its result, in their order.
fn told(request: &ChatRequest) -> Vec<String> {
    let mut instructions: Vec<_> = request.system.iter().cloned().collect();
    let mut told = Vec::new();
    let mut calls: Vec<(String, usize)> = Vec::new();
    for message in &request.messages {
        let one;
        let parts = match &message.content {
            Content::Text(text) => {
                one = [Part::text(text)];
                &one[..]
            }
            Content::Parts(parts) => parts,
        };
        for part in parts {
            match part {
                Part::Text { text, .. } if message.role == Role::System => instructions.push(text.clone()),
                Part::Text { text, .. } => told.push(format!("{:?}: {text}", message.role)),
                Part::Image { url, .. } => told.push(format!("image {url}")),
                Part::Reasoning { .. } => {}
                Part::ToolUse { id, name, input, .. } => {
                    let text = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
                    let input: Value = serde_json::from_str(&text).unwrap();
                    calls.push((id.clone(), told.len()));
                    told.push(format!("{name} {input}"));
                }
                Part::ToolResult { tool_use_id, content, images, .. } => {
                    let at = calls.iter().rposition(|(id, _)| id == tool_use_id).expect("a result has its call");
                    let (_, at) = calls.remove(at);
                    told[at].push_str(&format!(" = {content} {images:?}"));
                }
            }
        }
    }
    assert!(calls.is_empty(), "a call has its result");
    told.insert(0, instructions.join("\n\n"));
    told
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé🔔{}\"\\\\]{1,8}( [a-z\u{1}]{1,4})?".prop_map(|text| format!("{text}."))
}

/// The name of a called tool, its input and its result.
type Called = (String, Value, String);

/// What the user says, whether a picture is shown, what the model says to it, and what it calls.
type Exchange = (Vec<String>, bool, Vec<String>, Vec<Called>);

fn call() -> impl Strategy<Value = Called> {
    ("[a-z_]{1,12}", proptest::collection::btree_map("[a-z\"]{1,4}", text(), 0..3), text())
        .prop_map(|(name, input, result)| (name, json!(input), result))
}

fn turn() -> impl Strategy<Value = Exchange> {
    let texts = |least| proptest::collection::vec(text(), least..3);
    (texts(1), any::<bool>(), texts(0), proptest::collection::vec(call(), 0..4))
}

fn conversation() -> impl Strategy<Value = ChatRequest> {
    (proptest::option::of(text()), proptest::collection::vec(turn(), 1..5), text()).prop_map(|(system, turns, last)| {
        let mut messages = Vec::new();
        let mut number = 0;
        for (asked, has_image, said, calls) in turns {
            let mut parts: Vec<_> = asked.into_iter().map(Part::text).collect();
            parts.extend(has_image.then(|| Part::image("data:image/png;base64,AA==")));
            messages.push(Message { role: Role::User, content: Content::Parts(parts) });
            let mut parts: Vec<_> = said.into_iter().map(Part::text).collect();
            let mut results = Vec::new();
            for (name, input, result) in calls {
                number += 1;
                parts.push(Part::tool_use(format!("c{number}"), name, input));
                results.push(Part::tool_result(format!("c{number}"), result));
            }
            for (role, parts) in [(Role::Assistant, parts), (Role::Tool, results)] {
                if !parts.is_empty() {
                    messages.push(Message { role, content: Content::Parts(parts) });
                }
            }
        }
        messages.push(Message::new(Role::User, last));
        ChatRequest { system, messages, ..ChatRequest::default() }
    })
}

proptest! {
    #[test]
    fn a_conversation_keeps_texts_calls_results_and_their_order_through_every_format(request in conversation()) {
        let expected = told(&request);
        for tool in FORMATS {
            let as_sent = through(&request, tool);
            prop_assert_eq!(&told(&as_sent), &expected, "{:?}", tool.0);
            for other in FORMATS {
                let back = through(&through(&as_sent, other), tool);
                prop_assert_eq!(&told(&back), &expected, "{:?} by {:?}", tool.0, other.0);
            }
        }
    }

    /// Whatever a tool sends is read or refused, and nothing breaks.
    #[test]
    fn no_body_makes_a_reader_panic(
        fields in proptest::collection::vec(
            ("(input|messages|tools|tool_choice|system|content|prompt|text|reasoning|metadata|model)", "[\\[\\]{}\":,a-z0-9\\\\u]{0,24}|\"x\"|7|null|\\[\\]|\\[\\{\\}\\]|\\{\\}"), 0..5)
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let body = format!("{{{}}}", fields.join(","));
        for format in ToolFormat::ALL {
            let _ = format.read(body.as_bytes(), &[]);
        }
        let _ = super::embedding_request(body.as_bytes(), &[]);
    }
}

#[test]
fn a_body_that_is_nested_without_end_is_refused_and_breaks_nothing() {
    for (open, close) in [("[", "]"), ("{\"content\":", "}"), ("{\"tools\":[", "]}")] {
        let deep = open.repeat(100_000) + "1" + &close.repeat(100_000);
        for field in ["messages", "input", "system", "tools", "metadata", "prompt", "text"] {
            for format in ToolFormat::ALL {
                let body = format!("{{\"{field}\":{deep},\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}");
                let _ = format.read(body.as_bytes(), &[]);
            }
        }
    }
}
