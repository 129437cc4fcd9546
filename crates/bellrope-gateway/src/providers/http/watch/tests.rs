use proptest::prelude::*;

use super::*;
use crate::providers::formats::ProviderKind;

const CHAT: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Ding \\ud83d\"}}],\"usage\":null}\n\n\
    : still there\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const RESPONSES: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_9\"}}\n\n\
    event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"item_id\":\"m\",\"output_index\":0,\"content_index\":0,\"delta\":\"Ding\"}\n\n";
const MESSAGES: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n\
    event: ping\ndata: {\"type\": \"ping\"}\n\n\
    event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
    event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Ding\"}}\n\n\
    event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
    event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":4}}\n\n\
    event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

fn watch(kind: ProviderKind, hides_usage: bool) -> Watch {
    Watch::new(kind.format().translator(None), hides_usage, kind == ProviderKind::OpenAiResponses)
}

/// What is handed on of a stream that comes in these pieces and then ends, what was seen, and how it ended.
fn play(mut watch: Watch, pieces: &[&[u8]], closing: Closing) -> (String, Seen, Option<PassEnd>) {
    let (mut out, mut seen, mut end) = (Vec::new(), Seen::default(), None);
    let mut note = |watch: &mut Watch, bytes: Bytes| {
        out.extend_from_slice(&bytes);
        let Seen { pieces, said_bytes, usage, stop } = watch.take_seen();
        seen.pieces += pieces;
        seen.said_bytes += said_bytes;
        (seen.usage, seen.stop) = (usage.or(seen.usage.take()), stop.or(seen.stop));
        end = end.take().or(watch.take_end());
    };
    for piece in pieces {
        let bytes = watch.take_in(&Bytes::copy_from_slice(piece));
        note(&mut watch, bytes);
    }
    let bytes = watch.finish(closing);
    note(&mut watch, bytes);
    (String::from_utf8(out).unwrap(), seen, end)
}

fn split<'a>(text: &'a str, cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    cuts.push(text.len());
    cuts.sort_unstable();
    let mut from = 0;
    cuts.into_iter().map(|to| &text.as_bytes()[mem::replace(&mut from, to)..to]).collect()
}

proptest! {
    /// However the bytes of an answer are cut, they are handed on as they are, and the same is seen in them.
    #[test]
    fn every_split_of_an_answer_is_handed_on_byte_for_byte(
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12), is_crlf in any::<bool>(),
    ) {
        for (kind, text) in [
            (ProviderKind::OpenAi, [CHAT, USAGE, DONE].concat()),
            (ProviderKind::Anthropic, MESSAGES.to_owned()),
        ] {
            let text = if is_crlf { text.replace('\n', "\r\n") } else { text };
            let (out, seen, end) = play(watch(kind, false), &split(&text, &cuts), Closing::Ended);
            prop_assert_eq!(out, text);
            let usage = seen.usage.unwrap();
            prop_assert_eq!((usage.input_tokens, usage.output_tokens, seen.stop), (3, 4, Some(StopReason::EndTurn)));
            prop_assert!(matches!(end, Some(PassEnd::Done(StopReason::EndTurn))));
        }
    }

    /// The event that was not asked for is taken out, and no other byte with it.
    #[test]
    fn what_the_tool_did_not_ask_for_is_taken_out_whatever_the_split(
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12), is_crlf in any::<bool>(),
    ) {
        let line_end = |text: String| if is_crlf { text.replace('\n', "\r\n") } else { text };
        let text = line_end([CHAT, USAGE, DONE].concat());
        let (out, seen, _) = play(watch(ProviderKind::OpenAi, true), &split(&text, &cuts), Closing::Ended);
        prop_assert_eq!(out, line_end([CHAT, DONE].concat()));
        prop_assert_eq!(seen.usage.unwrap().output_tokens, 4);
    }

    /// A stream that breaks off ends between two events, and is known to be cut.
    #[test]
    fn a_broken_answer_ends_between_two_events(at in any::<prop::sample::Index>()) {
        let text = MESSAGES.split_once("event: message_delta").unwrap().0;
        let cut = at.index(text.len());
        let (out, _, end) = play(watch(ProviderKind::Anthropic, false), &[&text.as_bytes()[..cut]], Closing::Broken("reset".into()));
        prop_assert!(text.starts_with(&out) && (out.is_empty() || out.ends_with("\n\n")), "{out}");
        prop_assert!(matches!(end, Some(PassEnd::Cut(ProviderError::Truncated { .. }, _))), "{end:?}");
    }
}

#[test]
fn a_comment_is_handed_on_at_once_and_an_event_when_it_is_whole() {
    let mut watch = watch(ProviderKind::OpenAi, false);
    let mut take =
        |text: &'static str| String::from_utf8(watch.take_in(&Bytes::from_static(text.as_bytes())).to_vec()).unwrap();
    assert_eq!(take(": wait"), ": wait");
    assert_eq!(take("ing\n"), "ing\n");
    assert_eq!(take("\ndata: {\"choices\":"), "\n");
    assert_eq!(take("[]}"), "");
    assert_eq!(take("\n\n: x"), "data: {\"choices\":[]}\n\n: x");
}

#[test]
fn a_large_event_is_handed_on_as_it_comes_and_takes_no_memory() {
    let mut watch = watch(ProviderKind::OpenAiResponses, false);
    let begin = format!("data: {{\"type\":\"x\",\"b64\":\"{}", "A".repeat(MAX_HELD));
    assert_eq!(watch.take_in(&begin.clone().into()).len(), begin.len());
    let more = Bytes::from_static(b"AAAA");
    assert_eq!(watch.take_in(&more), more);
    assert_eq!(watch.take_in(&Bytes::from_static(b"\"}\n\ndata: {")), "\"}\n\n");
    // One that is too large for anybody makes it blind, and still goes on.
    let piece = Bytes::from("A".repeat(1 << 20));
    for _ in 0..8 {
        assert!(!watch.take_in(&piece).is_empty());
    }
    assert!(watch.held.len() <= MAX_HELD);
    watch.finish(Closing::Ended);
    assert!(matches!(watch.take_end(), Some(PassEnd::Done(StopReason::Other))));
}

#[test]
fn an_answer_of_responses_that_breaks_off_names_its_id_and_the_next_number() {
    let (out, _, end) =
        play(watch(ProviderKind::OpenAiResponses, false), &[RESPONSES.as_bytes(), b"event: resp"], Closing::Ended);
    assert_eq!(out, RESPONSES);
    let Some(PassEnd::Cut(_, mark)) = end else { panic!("{end:?}") };
    assert_eq!(mark, Mark { id: Some("resp_9".into()), next: 2 });
}

#[test]
fn what_is_odd_here_goes_on_and_what_the_provider_says_of_itself_counts() {
    let odd = "data: {\"choices\": nonsense}\n\ndata: [DONE]\n\n";
    let (out, _, end) = play(watch(ProviderKind::OpenAi, false), &[odd.as_bytes()], Closing::Ended);
    assert_eq!(out, odd);
    assert!(matches!(end, Some(PassEnd::Done(StopReason::Other))), "{end:?}");
    let failed = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let (out, _, end) = play(watch(ProviderKind::Anthropic, false), &[failed.as_bytes()], Closing::Ended);
    assert_eq!(out, failed);
    assert!(matches!(end, Some(PassEnd::Failed(ProviderError::Reported { .. }))), "{end:?}");
}

#[test]
fn an_end_without_its_last_line_end_is_one() {
    let text = [CHAT, USAGE, "data: [DONE]"].concat();
    let (out, _, end) = play(watch(ProviderKind::OpenAi, true), &[text.as_bytes()], Closing::Ended);
    assert_eq!(out, [CHAT, "data: [DONE]"].concat());
    assert!(matches!(end, Some(PassEnd::Done(StopReason::EndTurn))), "{end:?}");
}
