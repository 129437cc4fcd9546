use serde_json::Value;

use super::*;
use crate::gateway::AnswerSettings;
use crate::inbound::responses::echo::Echo;
use crate::inbound::responses::tools::{Names, tools};
use crate::inbound::wire::Told;
use crate::message::{Part, StopReason};
use crate::testing::call;

const US: Owner = Owner::User(7);

fn request(background: bool) -> StoredRequest {
    let wire =
        serde_json::json!([{"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "ls"}]}]);
    let mut names = Names::default();
    tools(serde_json::from_value(wire).unwrap(), &mut names, &mut Told::default()).unwrap();
    let echo = Echo { model: "m".into(), store: true, background, ..Echo::default() };
    StoredRequest::of(&Script::new(echo, names)).unwrap()
}

fn asked() -> Vec<Message> {
    vec![Message::new(Role::User, "Hi")]
}

fn answers() -> KeptAnswers {
    KeptAnswers::new(AnswerSettings::default())
}

fn chunks() -> Vec<Chunk> {
    vec![
        Chunk::reasoning("hm"),
        Chunk::ReasoningDetails { details: serde_json::json!({"signature": "c2ln"}) },
        Chunk::text("I look."),
        call(0, Some("c"), Some("files__ls"), "{\"a\":1}"),
        Chunk::Done { stop_reason: StopReason::ToolUse },
    ]
}

#[test]
fn the_same_chunks_make_the_same_events_and_a_later_reader_gets_the_rest_of_them() {
    let (_, stored) = request(true).begin(&answers(), US, asked()).unwrap();
    let events = |after| {
        let mut replay = stored.replay(after).unwrap();
        let mut out = Vec::new();
        replay.begin(&mut out);
        for (seq, chunk) in (0..).zip(chunks()) {
            replay.piece(&serde_json::to_vec(&SequencedChunk { seq, chunk }).unwrap(), &mut out);
        }
        String::from_utf8(out).unwrap()
    };
    let whole = events(None);
    assert_eq!(whole, events(None));
    let all: Vec<_> = whole.split_terminator("\n\n").collect();
    for (number, event) in all.iter().enumerate() {
        assert!(event.contains(&format!("\"sequence_number\":{number}")), "{event}");
        let rest = events(Some(number as u64));
        assert_eq!(rest.split_terminator("\n\n").collect::<Vec<_>>(), all[number + 1..]);
    }
    let last: Value = serde_json::from_str(all.last().unwrap().split_once("data: ").unwrap().1).unwrap();
    assert_eq!((&last["response"]["store"], &last["response"]["background"]), (&true.into(), &true.into()));
}

#[tokio::test]
async fn what_goes_on_from_a_response_has_all_that_was_said_with_what_goes_back_to_the_provider() {
    let answers = answers();
    let mut writer = request(false).writer(&answers, US, asked()).unwrap();
    let mut out = Vec::new();
    writer.begin(&mut out);
    chunks().into_iter().for_each(|chunk| writer.chunk(chunk, &mut out));
    let out = String::from_utf8(out).unwrap();
    let id = out.split("\"id\":\"").find(|rest| rest.starts_with("resp_")).unwrap().split('"').next().unwrap();
    let (answer, stored) = StoredResponse::find(&answers, &US, id).unwrap();
    let json: Value = serde_json::from_slice(&stored.json()).unwrap();
    assert_eq!((&json["id"], &json["status"], &json["store"]), (&id.into(), &"completed".into(), &true.into()));
    let previous = Some(id.to_owned());
    let echo = Echo { previous, ..Echo::default() };
    let further = StoredRequest::of(&Script::new(echo, Names::default())).unwrap();
    let mut chat = ChatRequest::user("Go on");
    further.go_on(&answers, &US, &mut chat).unwrap();
    let said = vec![
        Part::Reasoning { text: "hm".into(), details: Some(serde_json::json!({"signature": "c2ln"})) },
        Part::text("I look."),
        Part::ToolUse { id: "c".into(), name: "files__ls".into(), input: "{\"a\":1}".into(), extra_content: None },
    ];
    let expected = [
        Message::new(Role::User, "Hi"),
        Message { role: Role::Assistant, content: Content::Parts(said) },
        Message::new(Role::User, "Go on"),
    ];
    assert_eq!(chat.messages, expected);
    // It is nobody else's, has no events, and ends with its reader.
    for stranger in [Owner::User(8), Owner::Token(7)] {
        let fault = further.go_on(&answers, &stranger, &mut chat).unwrap_err();
        assert_eq!(fault.to_string(), format!("Previous response with id '{id}' not found."));
    }
    assert!(stored.replay(None).is_err() && stored.cancel(&answer).is_err());
    assert!(answer.remove());
    assert_eq!(further.go_on(&answers, &US, &mut chat).unwrap_err().status, 404);
}

#[tokio::test]
async fn an_answer_that_failed_or_finds_no_room_is_not_kept() {
    let answers = answers();
    let mut writer = request(false).writer(&answers, US, asked()).unwrap();
    writer.chunk(ProviderError::Disconnected { reason: "down".into() }.into(), &mut Vec::new());
    assert_eq!(answers.size(), (0, 0));
    let large = vec![Message::new(Role::User, "x".repeat(9 * 1024 * 1024))];
    let mut writer = request(false).writer(&answers, US, large.clone()).unwrap();
    writer.chunk(Chunk::Done { stop_reason: StopReason::EndTurn }, &mut Vec::new());
    assert_eq!(answers.size(), (0, 0));
    assert_eq!(request(true).begin(&answers, US, large).err().unwrap().status, 503);
}

#[tokio::test]
async fn a_response_under_way_can_be_cancelled_and_not_gone_on_from() {
    let answers = answers();
    let (answer, stored) = request(true).begin(&answers, US, asked()).unwrap();
    assert!(stored.conversation().is_err());
    stored.cancel(&answer).unwrap();
    stored.cancel(&answer).unwrap();
    let json: Value = serde_json::from_slice(&stored.json()).unwrap();
    assert_eq!((&json["status"], &json["error"]), (&"cancelled".into(), &Value::Null));
    assert!(stored.conversation().is_ok());
}
