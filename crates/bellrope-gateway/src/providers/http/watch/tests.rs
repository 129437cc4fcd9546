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
    watch_choices(kind, hides_usage, 1)
}

fn watch_choices(kind: ProviderKind, hides_usage: bool, choices: u32) -> Watch {
    Watch::new(kind.format().translator(None), hides_usage, kind == ProviderKind::OpenAiResponses, choices)
}

/// What is handed on of a stream that comes in these pieces and then ends, what was seen, and how it ended.
fn play(mut watch: Watch, pieces: &[&[u8]], closing: Closing) -> (String, Seen, Option<PassEnd>) {
    let (mut out, mut seen, mut end) = (Vec::new(), Seen::default(), None);
    let mut note = |watch: &mut Watch, bytes: Bytes| {
        out.extend_from_slice(&bytes);
        let Seen { pieces, said_bytes, usage, is_final, stop } = watch.take_seen();
        seen.pieces += pieces;
        seen.said_bytes += said_bytes;
        if usage.is_some() {
            (seen.usage, seen.is_final) = (usage, is_final);
        }
        seen.stop = stop.or(seen.stop);
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
    // One that is too large for anybody goes on as well.
    let piece = Bytes::from("A".repeat(1 << 20));
    for _ in 0..8 {
        assert!(!watch.take_in(&piece).is_empty());
    }
    assert!(watch.held.len() <= MAX_HELD);
    assert_eq!(watch.finish(Closing::Ended), "\n\n", "its end has not come");
    assert!(is_cut(watch.take_end().as_ref()));
}

/// Pieces of an event of responses, and the event after which the answer is over.
#[test]
fn what_comes_behind_or_within_a_huge_event_counts() {
    let picture = "A".repeat(6 << 20);
    let usage = "\"usage\":{\"input_tokens\":7,\"output_tokens\":2}";
    let part = format!("data: {{\"type\":\"response.image_generation_call.partial_image\",\"b64\":\"{picture}\"}}\n\n");
    let text = format!("data: {{\"type\":\"response.output_text.delta\",\"delta\":\"{picture}\"}}\n\n");
    let numbers = format!("data: {{\"type\":\"response.later\",\"list\":[{}1]}}\n\n", "1,".repeat(3 << 20));
    let end = |output: &str| {
        format!(
            "data: {{\"type\":\"response.completed\",\"response\":{{\"status\":\"completed\",\"output\":[{output}],{usage}}}}}\n\n"
        )
    };
    let whole = end(&format!("{{\"type\":\"image_generation_call\",\"id\":\"i\",\"result\":\"{picture}\"}}"));
    for (huge, said, last) in [
        (&part, 4, end("")),
        (&text, 4 + picture.len(), end("")),
        (&numbers, numbers.len(), end("")),
        (&String::new(), 4, whole),
    ] {
        let stream = [RESPONSES, huge, &last].concat();
        let pieces: Vec<&[u8]> = stream.as_bytes().chunks(200_000).collect();
        let (out, seen, end) = play(watch(ProviderKind::OpenAiResponses, false), &pieces, Closing::Ended);
        assert!(out == stream && matches!(end, Some(PassEnd::Done(StopReason::EndTurn))), "{end:?}");
        assert_eq!(seen.usage.map(|usage| (usage.input_tokens, usage.output_tokens)), Some((7, 2)));
        assert!(seen.said_bytes.abs_diff(said) < 100 && seen.is_final, "{} of {said}", seen.said_bytes);
    }
    // What it says of its end may have been in the event that nobody could read.
    let stream = [RESPONSES, &numbers].concat();
    let (_, _, end) = play(watch(ProviderKind::OpenAiResponses, false), &[stream.as_bytes()], Closing::Ended);
    assert!(matches!(end, Some(PassEnd::Done(StopReason::Other))), "{end:?}");
}

#[test]
fn what_comes_behind_an_event_that_means_nothing_here_counts() {
    let stream = ["data: {\"choices\": nonsense}\n\n", CHAT, USAGE, DONE].concat();
    let (out, seen, end) = play(watch(ProviderKind::OpenAi, false), &[stream.as_bytes()], Closing::Ended);
    assert!(out == stream && matches!(end, Some(PassEnd::Done(StopReason::EndTurn))), "{end:?}");
    assert_eq!(seen.usage.map(|usage| (usage.input_tokens, usage.output_tokens)), Some((3, 4)));
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

fn is_cut(end: Option<&PassEnd>) -> bool {
    matches!(end, Some(PassEnd::Cut(ProviderError::Truncated { .. }, _)))
}

#[test]
fn a_message_that_ends_before_its_last_event_is_cut_however_much_of_it_came() {
    let (all_but_the_end, _) = MESSAGES.split_once("event: message_stop").unwrap();
    for closing in [Closing::Ended, Closing::Broken("reset".into())] {
        let (out, seen, end) = play(watch(ProviderKind::Anthropic, false), &[all_but_the_end.as_bytes()], closing);
        assert_eq!((out.as_str(), is_cut(end.as_ref())), (all_but_the_end, true), "{end:?}");
        assert_eq!(seen.usage.map(|usage| (usage.input_tokens, usage.output_tokens)), Some((3, 4)));
    }
}

#[test]
fn an_answer_of_several_choices_is_whole_when_each_of_them_is() {
    let choice = |index: u32, more: &str| format!("data: {{\"choices\":[{{\"index\":{index},{more}}}]}}\n\n");
    let begun = [choice(0, "\"delta\":{\"content\":\"a\"}"), choice(1, "\"delta\":{\"content\":\"b\"}")].concat();
    let [first, second] = [0, 1].map(|index| choice(index, "\"delta\":{},\"finish_reason\":\"stop\""));
    for (text, choices, is_whole) in [
        ([&*begun, &*first].concat(), 2, false),
        ([&*begun, &*first, &*second].concat(), 2, true),
        ([&*begun, &*first, DONE].concat(), 2, true),
        (first.clone(), 2, false),
        (first.clone(), 1, true),
        ([&*begun, &*first].concat(), 1, false),
    ] {
        let (out, _, end) =
            play(watch_choices(ProviderKind::OpenAi, false, choices), &[text.as_bytes()], Closing::Ended);
        assert_eq!((&out, !is_cut(end.as_ref())), (&text, is_whole), "{choices}: {end:?}");
    }
    let (_, _, end) = play(watch(ProviderKind::OpenAi, false), &[CHAT.as_bytes()], Closing::Broken("reset".into()));
    assert!(is_cut(end.as_ref()), "its last bytes are missing: {end:?}");
}

#[test]
fn half_an_event_is_never_handed_on() {
    for (kind, whole, is_whole) in [
        (ProviderKind::OpenAi, CHAT.to_owned(), false),
        (ProviderKind::OpenAi, [CHAT, DONE].concat(), true),
        (ProviderKind::Anthropic, MESSAGES.to_owned(), true),
        (ProviderKind::OpenAi, format!("data: {{\"choices\": nonsense}}\n\n{CHAT}"), false),
    ] {
        for half in ["data: {\"choices\":[],\"usa", "dat", "event: message_de", "data: [DON"] {
            let text = [&*whole, half].concat();
            let (out, _, end) = play(watch(kind, false), &[text.as_bytes()], Closing::Ended);
            assert_eq!((&out, !is_cut(end.as_ref())), (&whole, is_whole), "{half}: {end:?}");
        }
    }
    // A large one is whole without its line end.
    let padding = "A".repeat(MAX_HELD);
    let last = format!(
        "data: {{\"type\":\"response.completed\",\"pad\":\"{padding}\",\"response\":{{\"status\":\"completed\"}}}}"
    );
    let text = [RESPONSES, &last].concat();
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(MAX_HELD + 100).collect();
    let (out, _, end) = play(watch(ProviderKind::OpenAiResponses, false), &pieces, Closing::Ended);
    assert!(out == text && matches!(end, Some(PassEnd::Done(StopReason::EndTurn))), "{end:?}");
    // Of a large event a part was handed on: the word for its end does not stand within it.
    let large = format!("data: {{\"type\":\"x\",\"b64\":\"{}", "A".repeat(MAX_HELD));
    let (out, _, end) = play(watch(ProviderKind::OpenAiResponses, false), &[large.as_bytes()], Closing::Ended);
    assert_eq!((out, is_cut(end.as_ref())), (large + "\n\n", true));
}

#[test]
fn what_an_answer_took_until_it_was_cut_or_failed_is_seen() {
    let used = |seen: Seen| seen.usage.map(|usage| (usage.input_tokens, usage.output_tokens));
    let (begun, _) = MESSAGES.split_once("event: content_block_stop").unwrap();
    let (_, seen, end) = play(watch(ProviderKind::Anthropic, false), &[begun.as_bytes()], Closing::Ended);
    assert_eq!((seen.is_final, used(seen), is_cut(end.as_ref())), (false, Some((3, 1)), true));
    for (word, status) in [("failed", "failed"), ("incomplete", "incomplete")] {
        let last = format!(
            "data: {{\"type\":\"response.{word}\",\"response\":{{\"status\":\"{status}\",\
             \"usage\":{{\"input_tokens\":7,\"output_tokens\":2}}}}}}\n\n"
        );
        let (_, seen, end) =
            play(watch(ProviderKind::OpenAiResponses, false), &[RESPONSES.as_bytes(), last.as_bytes()], Closing::Ended);
        assert_eq!((seen.is_final, used(seen)), (true, Some((7, 2))), "{word}: {end:?}");
    }
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Full\"},\
                 \"usage\":{\"input_tokens\":3,\"output_tokens\":2}}\n\n";
    let text = [begun, error].concat();
    let (_, seen, end) = play(watch(ProviderKind::Anthropic, false), &[text.as_bytes()], Closing::Ended);
    assert!(matches!(end, Some(PassEnd::Failed(_))), "{end:?}");
    assert_eq!((seen.is_final, used(seen)), (true, Some((3, 2))));
    // What it took comes behind the word that it failed.
    let failed = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"error\"}]}\n\n";
    let text = [failed, USAGE, DONE].concat();
    let (out, seen, end) = play(watch(ProviderKind::OpenAi, true), &[text.as_bytes()], Closing::Ended);
    assert!(out == [failed, DONE].concat() && matches!(end, Some(PassEnd::Failed(_))), "{out} {end:?}");
    assert_eq!((seen.is_final, used(seen)), (true, Some((3, 4))));
}

#[test]
fn text_of_a_kind_that_is_not_known_counts() {
    for (kind, event) in [
        (
            ProviderKind::OpenAiResponses,
            r#"{"type":"response.custom_tool_call_input.delta","item_id":"i","delta":"0123456789"}"#,
        ),
        (
            ProviderKind::OpenAiResponses,
            r#"{"type":"response.later.delta","delta":{"type":"x","id":"y","code":"0123456789"}}"#,
        ),
        (
            ProviderKind::Anthropic,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"later_delta","later":"0123456789"}}"#,
        ),
        (ProviderKind::OpenAi, r#"{"choices":[{"index":0,"delta":{"later":{"data":"0123456789"}}}]}"#),
        (
            ProviderKind::OpenAi,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"custom","custom":{"input":"0123456789"}}]}}]}"#,
        ),
    ] {
        let (_, seen, _) = play(watch(kind, false), &[format!("data: {event}\n\n").as_bytes()], Closing::Ended);
        assert_eq!((seen.pieces, seen.said_bytes), (1, 10), "{event}");
    }
}

#[test]
fn an_event_with_more_than_usage_is_not_taken_out() {
    let event = |more: &str| format!(r#"{{"id":"c","object":"o","choices":[],"usage":{{"total_tokens":1}}{more}}}"#);
    for (more, is_alone) in [
        ("", true),
        (r#","system_fingerprint":"f","timings":{"n":1},"error":null,"citations":[]"#, true),
        (r#","error":{"message":"x"}"#, false),
        (r#","citations":["u"]"#, false),
    ] {
        assert_eq!(says_usage_alone(&event(more)), is_alone, "{more}");
    }
    for data in
        [r#"{"choices":[{"index":0}],"usage":{}}"#, r#"{"choices":[],"usage":null}"#, r#"{"choices":[]}"#, "[DONE]"]
    {
        assert!(!says_usage_alone(data), "{data}");
    }
}
