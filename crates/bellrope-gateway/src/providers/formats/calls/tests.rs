use proptest::prelude::*;

use super::*;
use crate::message::ToolCallDelta;

/// The calls that come of pieces: id, name and arguments, in the order in which they began. Checks on the way that each
/// call has id and name in its first piece alone.
fn calls(pieces: Vec<CallPiece>) -> Vec<(String, String, String)> {
    in_lists(pieces.into_iter().map(|piece| vec![piece]).collect())
}

/// As [`calls`], of pieces some of which stand in one list.
fn in_lists(lists: Vec<Vec<CallPiece>>) -> Vec<(String, String, String)> {
    let mut calls = Calls::default();
    let mut out = VecDeque::new();
    for list in lists {
        calls.begin_list();
        for piece in list {
            calls.take(piece, &mut out).unwrap();
        }
    }
    calls.finish(AnswerHash::default(), &mut out);
    let mut found: Vec<(u32, (String, String, String))> = Vec::new();
    for chunk in out {
        let Chunk::ToolCall(ToolCallDelta { index, id, name, arguments }) = chunk else { panic!("{chunk:?}") };
        let known = found.iter_mut().find(|(known, _)| *known == index);
        match (known, id, name) {
            (Some((_, call)), None, None) => call.2.push_str(&arguments),
            (None, Some(id), Some(name)) => found.push((index, (id, name, arguments))),
            other => panic!("{other:?}"),
        }
    }
    assert!(found.is_sorted_by_key(|(index, _)| *index), "calls begin in order");
    found.into_iter().map(|(_, call)| call).collect()
}

fn piece(place: Place, id: &str, name: &str, arguments: &str) -> CallPiece {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let arguments = Arguments::More(arguments.to_owned().into());
    CallPiece { place, id: some(id), name: some(name), arguments, ..CallPiece::default() }
}

fn texts(calls: &[(String, String, String)]) -> Vec<[&str; 3]> {
    calls.iter().map(|(id, name, arguments)| [id.as_str(), name, arguments]).collect()
}

// Fault 71.
#[test]
fn ids_names_and_indices_that_are_odd_give_the_calls_that_were_meant() {
    let (zero, one, none) = (Place::Index(0), Place::Index(1), Place::InList(0));
    let a = r#"{"path":"a"}"#;
    let b = r#"{"path":"b"}"#;
    for (what, pieces, expected) in [
        (
            "one index, two ids",
            vec![(&zero, "t1", "read", a), (&zero, "t2", "read", b)],
            vec![["t1", "read", a], ["t2", "read", b]],
        ),
        (
            "two ids that take turns at one index",
            vec![
                (&zero, "t1", "read", "{\"a\""),
                (&zero, "t2", "ls", "{\"b\""),
                (&zero, "t1", "", ":1}"),
                (&zero, "t2", "", ":2}"),
            ],
            vec![["t1", "read", "{\"a\":1}"], ["t2", "ls", "{\"b\":2}"]],
        ),
        (
            "id and name in every piece",
            vec![(&zero, "t1", "read", "{\"pa"), (&zero, "t1", "read", "th\":1}")],
            vec![["t1", "read", "{\"path\":1}"]],
        ),
        (
            "the same id at another index",
            vec![(&zero, "t1", "read", "{\"pa"), (&one, "t1", "", "th\":1}")],
            vec![["t1", "read", "{\"path\":1}"]],
        ),
        (
            "a name in pieces",
            vec![(&zero, "t1", "re", ""), (&zero, "", "ad", ""), (&zero, "", "", a)],
            vec![["t1", "read", a]],
        ),
        (
            "a name that grows",
            vec![(&zero, "t1", "re", ""), (&zero, "t1", "read", ""), (&zero, "", "", a)],
            vec![["t1", "read", a]],
        ),
        (
            "an id in pieces",
            vec![(&zero, "t", "read", ""), (&zero, "1", "", ""), (&zero, "", "", a)],
            vec![["t1", "read", a]],
        ),
        ("a late id", vec![(&zero, "", "read", "{\"path\""), (&zero, "t1", "", ":\"a\"}")], vec![["t1", "read", a]]),
        ("a late name", vec![(&zero, "t1", "", "{\"path\""), (&zero, "", "read", ":\"a\"}")], vec![["t1", "read", a]]),
        (
            "an id of its own for every piece",
            vec![(&zero, "t1", "read", ""), (&zero, "x2", "", "{\"path\""), (&zero, "x3", "", ":\"a\"}")],
            vec![["t1", "read", a]],
        ),
        (
            "no index",
            vec![
                (&none, "t1", "read", "{\"path\""),
                (&none, "", "", ":\"a\"}"),
                (&none, "t2", "ls", ""),
                (&none, "", "", b),
            ],
            vec![["t1", "read", a], ["t2", "ls", b]],
        ),
        ("the arguments once more", vec![(&zero, "t1", "read", a), (&zero, "t1", "read", a)], vec![["t1", "read", a]]),
        (
            "all arguments so far with each piece",
            vec![(&zero, "t1", "read", "{\"pa"), (&zero, "t1", "read", "{\"path\":\"a"), (&zero, "t1", "read", a)],
            vec![["t1", "read", a]],
        ),
        (
            "an object in an object that begins alike",
            vec![(&zero, "t1", "read", "{\"a\":"), (&zero, "t1", "read", "{\"a\":1}}")],
            vec![["t1", "read", "{\"a\":{\"a\":1}}"]],
        ),
        ("an empty object ahead", vec![(&zero, "t1", "read", "{}"), (&zero, "", "", a)], vec![["t1", "read", a]]),
        ("no arguments", vec![(&zero, "t1", "now", "")], vec![["t1", "now", "{}"]]),
        ("null for arguments", vec![(&zero, "t1", "now", "null")], vec![["t1", "now", "{}"]]),
        ("no name at all", vec![(&zero, "t1", "", a), (&one, "t2", "ls", b)], vec![["t2", "ls", b]]),
    ] {
        let pieces = pieces.into_iter().map(|(place, id, name, text)| piece(place.clone(), id, name, text)).collect();
        let found = calls(pieces);
        assert_eq!(texts(&found), expected, "{what}");
    }
}

/// What servers of the three formats send of two calls with one id, whole and in pieces.
#[test]
fn two_calls_with_one_id_are_two_and_each_is_made_once() {
    let (a, b) = (r#"{"a":0}"#, r#"{"a":1}"#);
    for (first, second, first_arguments) in
        [("look", "read", "{}"), ("look", "look", a), ("look", "read", a), ("look", "look", "{\"b\":[]}")]
    {
        let begins = |at, name: &str| CallPiece { is_named: true, ..piece(Place::Index(at), "t1", name, "") };
        let more = |at, text: &str| piece(Place::Index(at), "", "", text);
        let whole = |place, id: &str, name: &str, text: &str| CallPiece {
            is_named: true,
            spare_id: Some(format!("f{name}")),
            arguments: Arguments::Whole(text.to_owned()),
            ..piece(place, id, name, "")
        };
        let (zero, one) = (Place::Index(0), Place::Index(1));
        let is_done = |at, text: &str| whole(Place::Index(at), "", "", text);
        let chat = vec![piece(zero.clone(), "t1", first, first_arguments), piece(one.clone(), "t1", second, b)];
        let messages = vec![begins(0, first), more(0, first_arguments), begins(1, second), more(1, b)];
        let in_turns = vec![begins(0, first), begins(1, second), more(1, b), more(0, first_arguments)];
        let mut responses = Vec::new();
        for (at, name, text) in [(0, first, first_arguments), (1, second, b)] {
            responses.extend([begins(at, name), more(at, text), is_done(at, text)]);
            responses.push(whole(Place::Index(at), "t1", name, text));
        }
        responses.push(whole(zero.clone(), "t1", first, first_arguments));
        responses.push(whole(one.clone(), "t1", second, b));
        for (what, pieces) in [("chat", chat), ("messages", messages), ("turns", in_turns), ("responses", responses)] {
            // Until it is over nothing tells calls of one name and one id apart that take turns.
            if what == "turns" && first == second {
                continue;
            }
            let found = calls(pieces);
            let found: Vec<_> = found.iter().map(|(id, name, text)| (id == "t1", &**name, &**text)).collect();
            assert_eq!(found, [(true, first, first_arguments), (false, second, b)], "{what} {first} {second}");
        }
    }
}

#[test]
fn a_whole_call_that_comes_once_more_under_its_id_is_one_wherever_it_stands() {
    let (zero, one, two) = (Place::Index(0), Place::Index(1), Place::Index(2));
    let (item, latest) = (Place::Item("i".into()), Place::Latest);
    let (a, b) = (r#"{"path":"a"}"#, r#"{"path":"b"}"#);
    let once = vec![["t1", "read", a]];
    for (what, pieces, expected) in [
        ("whole", vec![(&zero, "t1", "read", a), (&one, "t1", "read", a)], once.clone()),
        ("whole, at an item", vec![(&latest, "t1", "read", a), (&item, "t1", "read", a)], once.clone()),
        ("three times", vec![(&zero, "t1", "read", a), (&one, "t1", "read", a), (&two, "t1", "read", a)], once.clone()),
        (
            "in pieces",
            vec![
                (&zero, "t1", "read", "{\"path"),
                (&zero, "", "", "\":\"a\"}"),
                (&one, "t1", "read", ""),
                (&one, "", "", "{\"pa"),
                (&one, "", "", "th\":\"a\"}"),
            ],
            once.clone(),
        ),
        (
            "in pieces, at the same index",
            vec![(&zero, "t1", "read", a), (&zero, "t1", "read", "{\"pa"), (&zero, "", "", "th\":\"a\"}")],
            once.clone(),
        ),
        (
            "in pieces without a name",
            vec![(&zero, "t1", "read", a), (&zero, "", "", "{\"pa"), (&zero, "", "", "th\":\"a\"}")],
            once.clone(),
        ),
        ("its head alone", vec![(&zero, "t1", "read", a), (&one, "t1", "read", "")], once.clone()),
        ("up to where it was cut", vec![(&zero, "t1", "read", a), (&one, "t1", "read", "{\"path\":")], once.clone()),
        (
            "before another one",
            vec![(&zero, "t1", "read", a), (&one, "t1", "read", a), (&two, "t2", "read", a)],
            vec![["t1", "read", a], ["t2", "read", a]],
        ),
        (
            "before another one, which it does not hold up for ever",
            vec![(&zero, "t1", "read", a), (&one, "t1", "read", "{"), (&two, "t2", "read", a)],
            vec![["t1", "read", a], ["t2", "read", a]],
        ),
        ("without arguments", vec![(&zero, "t1", "now", "{}"), (&one, "t1", "now", "{}")], vec![["t1", "now", "{}"]]),
        (
            "ids tell them apart",
            vec![(&zero, "t1", "read", a), (&one, "t2", "read", a)],
            vec![["t1", "read", a], ["t2", "read", a]],
        ),
    ] {
        let pieces = pieces.into_iter().map(|(place, id, name, text)| piece(place.clone(), id, name, text)).collect();
        let found = calls(pieces);
        assert_eq!(texts(&found), expected, "{what}");
    }
    // In very many pieces, each byte of which is looked at once.
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 18));
    let mut pieces = vec![piece(zero.clone(), "t1", "read", &long), piece(one.clone(), "t1", "read", "")];
    pieces
        .extend(long.as_bytes().chunks(4).map(|bytes| piece(one.clone(), "", "", std::str::from_utf8(bytes).unwrap())));
    assert_eq!(calls(pieces).len(), 1);
    // Other arguments are another call, also where that is seen late.
    for cut in 0..b.len() {
        let pieces = vec![
            piece(zero.clone(), "t1", "read", a),
            piece(one.clone(), "t1", "read", &b[..cut]),
            piece(one.clone(), "", "", &b[cut..]),
        ];
        let found = calls(pieces);
        let found: Vec<_> = found.iter().map(|(id, _, text)| (id == "t1", &**text)).collect();
        assert_eq!(found, [(true, a), (false, b)], "{cut}");
    }
}

#[test]
fn the_entries_of_one_list_are_calls_of_their_own_and_what_comes_later_repeats_them() {
    let a = r#"{"a":1}"#;
    let at = |index: u64| Place::Index(index);
    let in_list = |at: usize| Place::InList(at);
    for (what, ids, places) in [
        ("no ids", ["", ""], [in_list(0), in_list(1)]),
        ("no ids at one index", ["", ""], [at(0), at(0)]),
        ("one id", ["t1", "t1"], [in_list(0), in_list(1)]),
        ("one id at two indices", ["t1", "t1"], [at(0), at(1)]),
        ("one id at one index", ["t1", "t1"], [at(0), at(0)]),
        ("one id and none", ["t1", ""], [in_list(0), in_list(1)]),
    ] {
        for arguments in ["{}", a] {
            let list = || (0..2).map(|at| piece(places[at].clone(), ids[at], "roll", arguments)).collect::<Vec<_>>();
            let found = in_lists(vec![list()]);
            let texts: Vec<_> = found.iter().map(|(_, name, text)| (&**name, &**text)).collect();
            assert_eq!(texts, [("roll", arguments); 2], "{what}");
            assert_ne!(found[0].0, found[1].0, "{what}");
            // The same list once more, as servers send it at the end, in which places may be others.
            if places[0] != places[1] {
                assert_eq!(in_lists(vec![list(), list()]), found, "{what}, again");
            }
        }
    }
    // Several pieces of one call in a list are that call.
    for (first, second) in [("", a), (a, ""), ("{\"a\"", ":1}")] {
        let found = in_lists(vec![[first, second].map(|text| piece(at(0), "t1", "read", text)).into()]);
        assert_eq!(texts(&found), [["t1", "read", a]], "{first} {second}");
    }
    let nameless = vec![piece(at(0), "t1", "read", "{\"a\""), piece(at(0), "", "", ":1}")];
    assert_eq!(texts(&in_lists(vec![nameless])), [["t1", "read", a]]);
}

#[test]
fn what_repeats_a_call_and_is_left_out_is_told() {
    let left_out = |pieces: Vec<CallPiece>| {
        let (mut calls, mut out) = (Calls::default(), VecDeque::new());
        for piece in pieces {
            calls.begin_list();
            calls.take(piece, &mut out).unwrap();
        }
        calls.finish(AnswerHash::default(), &mut out)
    };
    let (zero, one) = (Place::Index(0), Place::Index(1));
    let first = || piece(zero.clone(), "t1", "read", "{\"a\":1}");
    assert_eq!(left_out(vec![first()]), LeftOut::default());
    assert_eq!(left_out(vec![first(), first()]), LeftOut::default(), "all of it once more, as servers do at the end");
    for again in ["{\"a\":1}", "{\"a", ""] {
        let left_out = left_out(vec![first(), piece(one.clone(), "t1", "read", again)]);
        assert_eq!(left_out, LeftOut { repeated: true, nameless: false }, "{again}");
    }
    assert!(left_out(vec![piece(zero.clone(), "t1", "", "{}")]).nameless);
}

// Fault 71.
#[test]
fn a_call_without_an_id_gets_one_that_every_format_takes_and_that_stays_the_same() {
    let nameless = |pieces: &[(u64, &str, &str)]| {
        calls(pieces.iter().map(|(at, name, text)| piece(Place::Index(*at), "", name, text)).collect())
    };
    let once = nameless(&[(0, "read", "{\"a\":1}"), (1, "read", "{\"a\":1}")]);
    let in_pieces = nameless(&[(0, "read", "{\"a"), (0, "", "\":1}"), (1, "read", "{\"a\":1}")]);
    assert_eq!(once, in_pieces);
    assert_ne!(once[0].0, once[1].0);
    for (id, ..) in &once {
        assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{id}");
    }
    let item = CallPiece { spare_id: Some("fc_1".into()), ..piece(Place::Index(0), "", "read", "{\"a\":1}") };
    assert_eq!(texts(&calls(vec![item])), [["fc_1", "read", "{\"a\":1}"]]);
}

#[test]
fn calls_of_one_name_without_id_and_index_are_several_once_their_arguments_are_whole() {
    let piece = |text: &str| piece(Place::InList(0), "", "read", text);
    let found = calls(vec![piece("{\"a\":1}"), piece("{\"a\":2}"), piece("{\"a\":"), piece("3}")]);
    let arguments: Vec<_> = found.iter().map(|(_, _, arguments)| arguments.as_str()).collect();
    assert_eq!(arguments, ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]);
}

// Fault 71.
#[test]
fn arguments_that_are_replaced_forget_what_was_repeated() {
    let more = |name: &str, text: &str| piece(Place::Index(0), "", name, text);
    let whole = CallPiece { arguments: Arguments::Whole("{\"b\":1}".to_owned()), ..more("", "") };
    let found =
        calls(vec![more("", "{\"aaaaaaaa\":1}"), more("", "{\"aaaaaa"), whole, more("", "x"), more("read", "")]);
    assert_eq!(found.len(), 1);
    assert!(found[0].2.starts_with("{\"b\":1}"), "{found:?}");
}

// Fault 71.
#[test]
fn a_hostile_provider_meets_a_bound_in_number_and_in_bytes() {
    let mut out = VecDeque::new();
    let mut calls = Calls::default();
    let large = "x".repeat(1 << 20);
    let refused = (0..=8).find_map(|_| calls.take(piece(Place::Index(0), "t", "n", &large), &mut out).err());
    assert_eq!(refused.unwrap().code(), "answer_too_large");
    let mut calls = Calls::default();
    let refused = (0..10_000).find_map(|at| calls.take(piece(Place::Index(at), "", "n", ""), &mut out).err());
    assert_eq!(refused.unwrap().code(), "malformed");
    let mut calls = Calls::default();
    let refused = (0..10_000).find_map(|at| calls.pass_over(Place::Index(at)).err());
    assert_eq!(refused.unwrap().code(), "malformed");
}

/// How a server sends its calls.
#[derive(Debug, Clone, Copy)]
struct Habit {
    repeats: bool,
    has_index: bool,
    has_id: bool,
}

proptest! {
    /// However the arguments are cut and the pieces of several calls are mixed, the calls are the same.
    #[test]
    fn every_cut_and_every_order_of_pieces_gives_the_same_calls(
        arguments in proptest::collection::vec("\\{\"[a-z\\[\\]]{0,3}\":(\"[a-z{}]{0,4}\"|\\[1\\]|\\{\"x\":2\\})\\}", 1..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..64),
        (repeats, has_index, has_id) in any::<(bool, bool, bool)>(),
    ) {
        // Something has to tell mixed calls apart.
        let habit = Habit { repeats, has_index, has_id };
        let is_mixed = habit.has_index || habit.has_id && habit.repeats;
        let mut queues: Vec<VecDeque<CallPiece>> = Vec::new();
        for (number, text) in arguments.iter().enumerate() {
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([text.len()]).collect();
            ends.sort_unstable();
            let mut from = 0;
            let mut queue = VecDeque::new();
            for to in ends {
                let says_all = from == 0 && queue.is_empty() || habit.repeats;
                let id = if says_all && habit.has_id { format!("t{number}") } else { String::new() };
                let name = if says_all { format!("tool{number}") } else { String::new() };
                let place = if habit.has_index { Place::Index(7 * number as u64) } else { Place::InList(0) };
                queue.push_back(piece(place, &id, &name, &text[from..to]));
                from = to;
            }
            queues.push(queue);
        }
        let mut pieces = Vec::new();
        let mut order = order.into_iter();
        while queues.iter().any(|queue| !queue.is_empty()) {
            let left: Vec<_> = (0..queues.len()).filter(|&at| !queues[at].is_empty()).collect();
            let at = order.next().filter(|_| is_mixed).map_or(left[0], |pick| left[pick.index(left.len())]);
            pieces.extend(queues[at].pop_front());
        }
        let found = calls(pieces);
        let mut found: Vec<_> = found.into_iter().map(|(id, name, text)| (name, id, text)).collect();
        found.sort();
        prop_assert_eq!(found.len(), arguments.len());
        for (number, ((name, id, text), expected)) in found.iter().zip(&arguments).enumerate() {
            prop_assert_eq!(name, &format!("tool{number}"));
            prop_assert_eq!(text, expected);
            let sent = format!("t{number}");
            prop_assert!(!habit.has_id || *id == sent);
        }
    }
}
