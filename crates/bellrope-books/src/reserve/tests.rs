use proptest::prelude::*;

use super::*;
use crate::calendar::DAY;
use crate::price::{Price, Prices};

const NOW: i64 = 20_000 * DAY + 1_000;

fn budgets(rows: &[Budget]) -> Budgets {
    let mut budgets = Budgets::default();
    budgets.replace(rows, "USD", 80);
    budgets
}

fn tokens(limit: u64) -> Budget {
    Budget { tokens: Some(limit), ..Budget::named("b", Window::Day) }
}

/// A million tokens of any model cost so much, in both directions.
fn prices(price: f64) -> Prices {
    let row = serde_json::json!({"provider": "*", "model": "*", "input": price, "output": price});
    Prices::new(&[serde_json::from_value::<Price>(row).unwrap()], "USD")
}

fn want<'a>(asker: &'a Asker, input: u64, output: u64, rate: Option<&'a TokenPrice>) -> Want<'a> {
    Want { asker, provider: "p", model: Some("m"), input, most_input: input, output, is_open: false, rate }
}

fn held(reserved: Reserved) -> Hold {
    match reserved {
        Reserved::Held { hold, max_output: None, .. } => hold,
        other => panic!("{other:?}"),
    }
}

fn refused(reserved: Reserved) -> Denial {
    match reserved {
        Reserved::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn took(tokens: u64) -> Sum {
    Sum { tokens, ..Sum::default() }
}

#[test]
fn a_budget_that_only_warns_changes_nothing() {
    let asker = Asker::default();
    let of = |row: Budget, spent: u64| {
        let mut budgets = budgets(&[row]);
        let hold = held(budgets.reserve(NOW, &want(&asker, 1, 1, None)));
        budgets.settle(hold, took(spent), true);
        let open = Want { is_open: true, ..want(&asker, 10, 4_096, None) };
        match budgets.reserve(NOW, &open) {
            Reserved::Held { max_output, binds, .. } => (max_output, binds),
            other => panic!("{other:?}"),
        }
    };
    let warns = |row: Budget| Budget { action: Some(Action::Warn), ..row };
    let requests = Budget { requests: Some(9), ..Budget::named("b", Window::Day) };
    assert_eq!(of(warns(tokens(1_000)), 5_000), (None, false), "though it is spent");
    assert_eq!(of(warns(requests.clone()), 5), (None, false));
    assert_eq!(of(requests, 5), (None, false), "it goes by no length");
    assert_eq!(of(tokens(1_000_000), 5), (None, true));
    assert_eq!(of(tokens(5_000), 5), (Some(4_096), true));
}

// Row 59: check and spend race.
#[test]
fn sixteen_at_once_cannot_overrun_a_budget_together() {
    let (mut budgets, asker) = (budgets(&[tokens(1_000)]), Asker::default());
    let mut holds = Vec::new();
    let mut away = 0;
    for _ in 0..16 {
        match budgets.reserve(NOW, &want(&asker, 10, 100, None)) {
            Reserved::Held { hold, max_output: None, .. } => holds.push(hold),
            Reserved::Refused(refusal) => {
                assert_eq!(refusal.retry_after, HELD, "what is held comes back soon");
                away += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((holds.len(), away), (9, 7));
    holds.into_iter().for_each(|hold| budgets.settle(hold, took(110), true));
    assert_eq!(budgets.held(), Sum::default());
    let refusal = refused(budgets.reserve(NOW, &want(&asker, 10, 100, None)));
    assert_eq!(refusal.retry_after, Duration::from_millis((DAY - 1_000) as u64));
    let expected = "990 of 1000 tokens are spent (this request has about 10, an answer needs 100), and this day ends at \
                    2024-10-05 00:00 UTC";
    assert_eq!(refusal.reason, expected);
    held(budgets.reserve(NOW + DAY, &want(&asker, 10, 100, None)));
}

// Row 59: the worst case blocks though nothing is spent.
#[test]
fn a_request_that_may_take_more_than_is_left_gets_what_is_left_when_nobody_else_is_at_work() {
    let (mut budgets, asker) = (budgets(&[tokens(1_000)]), Asker::default());
    let Reserved::Held { hold, max_output: Some(most), notices, .. } =
        budgets.reserve(NOW, &want(&asker, 100, 64_000, None))
    else {
        panic!("it is refused at zero spend")
    };
    assert_eq!((most, &*notices[0]), (900, "the answer has at most 900 tokens: a budget has no more left"));
    assert_eq!(refused(budgets.reserve(NOW, &want(&asker, 1, 1, None))).retry_after, HELD);
    budgets.settle(hold, took(150), true);
    held(budgets.reserve(NOW, &want(&asker, 10, 800, None)));
}

// Row 59: an answer whose length nobody says.
#[test]
fn of_an_answer_without_a_bound_the_longest_is_held_or_it_is_bounded_by_what_is_reserved() {
    let (mut budgets, asker, prices) = (budgets(&[tokens(300_000)]), Asker::default(), prices(10.0));
    let open = Want { is_open: true, ..want(&asker, 10, 4_096, None) };
    let bounded = |budgets: &mut Budgets| match budgets.reserve(NOW, &open) {
        Reserved::Held { max_output, notices, .. } => Some((max_output, notices)),
        _ => None,
    };
    let sent: Vec<_> = std::iter::from_fn(|| bounded(&mut budgets)).collect();
    let notice =
        "the answer has at most 4096 tokens: a budget has no room for the longest, and the request names no number";
    assert_eq!(sent[..1], [(None, vec![])]);
    assert_eq!(sent[1..], vec![(Some(4_096), vec![notice.to_owned()]); 41], "all of them together are within it");

    let longest = LONGEST_OUTPUT + OTHERS * 4_096 + 10;
    let cost = |cost| Budget { cost: Some(cost), ..Budget::named("money", Window::Day) };
    let warn = Budget { action: Some(Action::Warn), ..tokens(50_000) };
    let requests = Budget { requests: Some(5), ..Budget::named("count", Window::Day) };
    for (rows, expected) in [
        (vec![tokens(longest)], None),
        (vec![tokens(longest - 1)], Some(4_096)),
        (vec![cost(2.0)], None),
        (vec![cost(1.9)], Some(4_096)),
        (vec![tokens(longest), cost(1.9)], Some(4_096)),
        (vec![warn], None),
        (vec![requests], None),
    ] {
        let mut budgets = self::budgets(&rows);
        let want = Want { rate: prices.of("p", Some("m"), NOW), ..open };
        let reserved = budgets.reserve(NOW, &want);
        assert!(
            matches!(reserved, Reserved::Held { max_output, .. } if max_output == expected),
            "{rows:?}: {reserved:?}"
        );
    }
}

#[test]
fn what_a_request_may_have_itself_is_held_and_what_it_is_likely_to_have_decides_whether_it_fits() {
    let asker = Asker::default();
    let dense = Want { most_input: 15_000, ..want(&asker, 5_000, 10, None) };
    let mut budgets = budgets(&[tokens(50_000)]);
    let holds: Vec<_> = (0..3).map(|_| held(budgets.reserve(NOW, &dense))).collect();
    assert!(budgets.held().tokens <= 50_000, "all of them together are within it");
    let denial = refused(budgets.reserve(NOW, &dense));
    assert_eq!(denial.retry_after, HELD, "{denial:?}");
    holds.into_iter().for_each(|hold| budgets.settle(hold, took(14_000), true));
    // Of the 8,000 that are left it is likely to leave some: alone it may take them.
    let hold = held(budgets.reserve(NOW, &dense));
    budgets.settle(hold, took(5_000), true);
    assert!(refused(budgets.reserve(NOW, &dense)).retry_after > HELD, "not even what is likely fits");

    let prices = prices(1.0);
    let money = Budget { cost: Some(1.0), ..Budget::named("money", Window::Day) };
    let rate = prices.of("p", Some("m"), NOW);
    let dense = Want { most_input: 400_000, ..want(&asker, 1, 0, rate) };
    let mut budgets = self::budgets(&[money]);
    let sent = (0..16).filter(|_| matches!(budgets.reserve(NOW, &dense), Reserved::Held { .. })).count();
    assert_eq!(sent, 2, "a third might take more than there is");
}

#[test]
fn what_was_not_sent_takes_nothing_and_what_was_cancelled_takes_what_came() {
    let requests = Budget { requests: Some(2), ..tokens(1_000) };
    let (mut budgets, asker) = (budgets(&[requests]), Asker::default());
    for _ in 0..5 {
        let hold = held(budgets.reserve(NOW, &want(&asker, 10, 100, None)));
        budgets.settle(hold, Sum::default(), false);
    }
    let hold = held(budgets.reserve(NOW, &want(&asker, 10, 100, None)));
    budgets.settle(hold, took(40), true);
    assert_eq!(budgets.shown(NOW), [("b".to_owned(), "40 of 1000 tokens, 1 of 2 requests are spent".to_owned())]);
    let hold = held(budgets.reserve(NOW, &want(&asker, 10, 100, None)));
    budgets.settle(hold, took(40), true);
    assert!(refused(budgets.reserve(NOW, &want(&asker, 10, 100, None))).reason.starts_with("2 of 2 requests are made"));
}

#[test]
fn money_counts_where_the_price_is_known_and_tokens_count_always() {
    let cost = Budget { cost: Some(1.0), ..Budget::named("money", Window::Month) };
    let (mut budgets, asker, prices) = (budgets(&[cost, tokens(500_000)]), Asker::default(), prices(10.0));
    let rate = prices.of("p", Some("m"), NOW);
    // 100,000 tokens cost 1.00.
    let Reserved::Held { hold, max_output: Some(most), .. } = budgets.reserve(NOW, &want(&asker, 1_000, 200_000, rate))
    else {
        panic!()
    };
    assert!((98_900..=99_000).contains(&most), "{most}");
    budgets.settle(hold, Sum { micros: 999_000, tokens: 99_900, ..Sum::default() }, true);
    let refusal = refused(budgets.reserve(NOW, &want(&asker, 1_000, 200_000, rate)));
    assert!(
        refusal.reason.starts_with("0.999 of 1.00 USD are spent (this request costs at least 0.01256), and this month"),
        "{refusal:?}"
    );
    // One whose price is not known.
    let hold = held(budgets.reserve(NOW, &want(&asker, 1_000, 200_000, None)));
    budgets.settle(hold, took(400_100), true);
    assert_eq!(refused(budgets.reserve(NOW, &want(&asker, 1, 1, None))).budget, "b");
}

#[test]
fn a_token_has_its_budget_and_no_name_that_a_program_gives_itself_takes_of_it() {
    let codex = Budget::parse("codex", "100tokens/hour").unwrap();
    let each = Budget { token: Some("*".into()), ..Budget { name: "each".into(), ..tokens(1_000) } };
    let client = Budget { client: Some("zed".into()), ..Budget { name: "zed".into(), ..tokens(50) } };
    let mut budgets = budgets(&[codex, each, client]);
    let token = |name| Asker::new(AskerKind::Token, name, "/v1/responses");
    let take = |budgets: &mut Budgets, asker: &Asker, count| {
        let hold = held(budgets.reserve(NOW, &want(asker, count, 0, None)));
        budgets.settle(hold, took(count), true);
    };
    take(&mut budgets, &token("codex"), 100);
    assert_eq!(refused(budgets.reserve(NOW, &want(&token("codex"), 1, 0, None))).budget, "codex: 100tokens/hour");
    let liar = Asker::new(AskerKind::Program, "codex", "/v1/responses");
    take(&mut budgets, &liar, 1_000_000);
    take(&mut budgets, &token("other"), 1_000);
    assert_eq!(refused(budgets.reserve(NOW, &want(&token("other"), 1, 0, None))).budget, "each");
    take(&mut budgets, &token("third"), 1_000);
    take(&mut budgets, &Asker::new(AskerKind::Process, "zed", "ai.chat"), 50);
    let zed = Asker::new(AskerKind::Process, "zed", "ai.chat");
    assert_eq!(refused(budgets.reserve(NOW, &want(&zed, 1, 0, None))).budget, "zed");
}

#[test]
fn a_budget_warns_before_its_end_and_may_do_no_more_than_that() {
    let warn = Budget { action: Some(Action::Warn), ..tokens(100) };
    let (mut budgets, asker) = (budgets(&[warn]), Asker::default());
    let notices = |budgets: &mut Budgets, count| {
        let Reserved::Held { hold, max_output: None, notices, .. } =
            budgets.reserve(NOW, &want(&asker, count, 0, None))
        else {
            panic!()
        };
        budgets.settle(hold, took(count), true);
        notices
    };
    assert!(notices(&mut budgets, 80).is_empty());
    assert_eq!(notices(&mut budgets, 900), ["of the budget `b` 80 of 100 tokens are spent until 2024-10-05 00:00 UTC"]);
    assert_eq!(notices(&mut budgets, 1).len(), 1);
}

#[test]
fn a_budget_may_send_requests_on_to_another_model_and_never_refuses_that_one() {
    let cheap = Budget { model: Some("ollama/llama3.2".into()), ..tokens(100) };
    let (mut budgets, asker) = (budgets(&[cheap]), Asker::default());
    let hold = held(budgets.reserve(NOW, &want(&asker, 100, 0, None)));
    budgets.settle(hold, took(100), true);
    let Reserved::Instead { model, notice } = budgets.reserve(NOW, &want(&asker, 10, 0, None)) else { panic!() };
    assert_eq!(model, "ollama/llama3.2");
    assert!(notice.starts_with("asked ollama/llama3.2 instead: of the budget `b` 100 of 100 tokens"), "{notice}");
    let there = Want { provider: "ollama", model: Some("llama3.2"), ..want(&asker, 10, 0, None) };
    held(budgets.reserve(NOW, &there));
}

#[test]
fn a_clock_that_is_set_back_gives_nothing_again_and_one_that_was_far_off_blocks_nobody() {
    let (mut budgets, asker) = (budgets(&[tokens(100)]), Asker::default());
    let hold = held(budgets.reserve(NOW, &want(&asker, 100, 0, None)));
    budgets.settle(hold, took(100), true);
    for earlier in [1_000, 2_000, DAY / 2] {
        refused(budgets.reserve(NOW - earlier, &want(&asker, 1, 0, None)));
    }
    // It was years ahead, and is right now.
    held(budgets.reserve(NOW - 400 * DAY, &want(&asker, 1, 0, None)));
}

#[test]
fn what_is_under_way_when_its_window_ends_counts_in_neither_twice() {
    let (mut budgets, asker) = (budgets(&[tokens(100)]), Asker::default());
    let old = held(budgets.reserve(NOW, &want(&asker, 100, 0, None)));
    let new = held(budgets.reserve(NOW + DAY, &want(&asker, 60, 0, None)));
    budgets.settle(old, took(100), true);
    budgets.settle(new, took(60), true);
    assert_eq!(budgets.shown(NOW + DAY)[0].1, "60 of 100 tokens are spent");
    assert_eq!(budgets.held(), Sum::default());
}

#[test]
fn what_others_spent_counts_and_a_change_of_the_settings_forgets_nothing() {
    let (mut budgets, asker) = (budgets(&[tokens(100)]), Asker::default());
    let hold = held(budgets.reserve(NOW, &want(&asker, 30, 0, None)));
    budgets.settle(hold, took(30), true);
    let questions = budgets.questions(NOW);
    budgets.others_spent(&questions[0], vec![(String::new(), took(60))]);
    budgets.replace(&[tokens(95)], "USD", 80);
    assert!(refused(budgets.reserve(NOW, &want(&asker, 6, 0, None))).reason.starts_with("90 of 95 tokens"));
    held(budgets.reserve(NOW, &want(&asker, 5, 0, None)));
}

#[test]
fn the_budget_of_a_token_is_read_or_refused_in_words() {
    let day = Budget::parse("t", "5USD/day").unwrap();
    assert_eq!((day.cost, day.currency.as_deref(), day.window), (Some(5.0), Some("USD"), Window::Day));
    assert_eq!(Budget::parse("t", "60requests/minute").unwrap().requests, Some(60));
    for wrong in ["", "5", "5/year", "USD/day", "1.5tokens/day", "5usd/day", "-5USD/day", "5.5.5USD/day", "5/day"] {
        assert!(Budget::parse("t", wrong).unwrap_err().contains("5USD/day"), "{wrong}");
    }
    let error = Budget::parse("t", "1000/day").unwrap_err();
    assert!(error.contains("1000tokens/day, 1000requests/day, or money") && error.contains("1000USD/day"), "{error}");
    for wrong in ["0tokens/day", "0requests/day"] {
        assert!(Budget::parse("t", wrong).unwrap_err().contains("is 0, which would refuse every request"), "{wrong}");
    }
    assert_eq!(Budget::parse("t", "0USD/day").unwrap().cost, Some(0.0), "what costs nothing may be asked for");
}

#[test]
fn names_without_end_share_what_is_left() {
    let each = Budget { client: Some("*".into()), ..tokens(10) };
    let mut budgets = budgets(&[each]);
    for number in 0..2 * MAX_COUNTERS {
        let asker = Asker::new(AskerKind::Program, &number.to_string(), "");
        let _ = budgets.reserve(NOW, &want(&asker, 1, 0, None));
        assert!(budgets.counters.len() <= MAX_COUNTERS + 1);
    }
}

proptest! {
    /// Whatever order requests begin and end in, they never take more than the budget if none takes more than it may.
    #[test]
    fn no_order_of_requests_overruns_a_budget(
        steps in prop::collection::vec((0u64..50, 0u64..500, 0u64..=100, any::<bool>(), any::<bool>()), 1..200),
        limit in prop_oneof![Just(2_000), 100_000u64..1_000_000],
    ) {
        let money = limit as f64 * 7.5e-6;
        let (mut budgets, asker, prices) = (
            budgets(&[tokens(limit), Budget { cost: Some(money), ..Budget::named("money", Window::Day) }]),
            Asker::default(),
            prices(10.0),
        );
        let rate = prices.of("p", Some("m"), NOW).unwrap();
        let (mut under_way, mut total, mut spent) = (Vec::new(), 0, 0);
        for (input, output, percent, is_open, ends) in steps {
            // Nothing but the model bounds an answer of which nobody says how long it may be.
            let longest = if is_open { LONGEST_OUTPUT } else { output };
            let want = Want { is_open, ..want(&asker, input, output, Some(rate)) };
            if let Reserved::Held { hold, max_output, .. } = budgets.reserve(NOW, &want) {
                under_way.push((hold, input, max_output.unwrap_or(longest) * percent / 100));
            }
            if ends && let Some((hold, input, output)) = under_way.pop() {
                let cost = rate.cost(&Usage { input_tokens: input, output_tokens: output, ..Usage::default() }).micros;
                (total, spent) = (total + input + output, spent + cost);
                budgets.settle(hold, Sum { micros: cost, tokens: input + output, ..Sum::default() }, true);
            }
        }
        for (hold, input, output) in under_way {
            let cost = rate.cost(&Usage { input_tokens: input, output_tokens: output, ..Usage::default() }).micros;
            (total, spent) = (total + input + output, spent + cost);
            budgets.settle(hold, Sum { micros: cost, tokens: input + output, ..Sum::default() }, true);
        }
        prop_assert!(total <= limit && spent <= micros(money), "{total} tokens, {spent} micros");
        prop_assert_eq!(budgets.held(), Sum::default());
    }
}
