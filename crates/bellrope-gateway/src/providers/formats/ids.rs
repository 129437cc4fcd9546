//! The ids of calls and the names of called tools, as a format takes them.

use std::borrow::Cow;
use std::collections::HashSet;

use super::said::Call;

/// What a format, or a server, takes of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallRules {
    /// The most bytes of an id.
    pub(super) longest_id: usize,
    /// Whether ids consist of letters, digits, `_` and `-`.
    pub(super) plain_ids: bool,
    /// Whether no two calls of a conversation may have the same id. Else no two of a turn.
    pub(super) unique_ids: bool,
    /// The most characters of a tool's name, of letters, digits, `_` and `-`. Absent for any name.
    pub(super) longest_name: Option<usize>,
}

/// Gives calls, turn by turn, ids and names that the rules allow. One that is allowed stays as it is; the same history
/// gets the same ids every time. A call's result needs no other change: it stands with its call.
pub(super) fn fit<'c, 'a: 'c>(turns: impl Iterator<Item = &'c mut [Call<'a>]>, rules: CallRules) {
    let mut turns: Vec<_> = turns.collect();
    for calls in &mut turns {
        calls.iter_mut().for_each(|call| fit_name(call, rules.longest_name));
    }
    if rules.unique_ids {
        fit_ids(&mut turns, rules);
    } else {
        turns.iter_mut().for_each(|calls| fit_ids(std::slice::from_mut(calls), rules));
    }
}

/// Makes the ids of these calls differ from each other.
fn fit_ids(turns: &mut [&mut [Call<'_>]], rules: CallRules) {
    let mut taken = HashSet::new();
    let mut others = Vec::new();
    // Those that may stay are first, so that none of them clashes with one that is made here.
    for (turn, calls) in turns.iter().enumerate() {
        for (at, call) in calls.iter().enumerate() {
            if !is_allowed(&call.id, rules) || !taken.insert(call.id.to_string()) {
                others.push((turn, at));
            }
        }
    }
    let mut number = 0_usize;
    for (turn, at) in others {
        let call = &mut turns[turn][at];
        // Room for `_` and any number.
        let stem: String = call.id.chars().map(plain).take(rules.longest_id - 21).collect();
        let stem = if stem.is_empty() { "call" } else { &*stem };
        let plain_copy = (stem.len() == call.id.chars().count()).then(|| stem.to_owned());
        let mut id = plain_copy.filter(|stem| !taken.contains(stem));
        while id.is_none() {
            number += 1;
            id = Some(format!("{stem}_{number}")).filter(|id| !taken.contains(id));
        }
        let id = id.unwrap_or_default();
        taken.insert(id.clone());
        call.id = Cow::Owned(id);
    }
}

fn is_allowed(id: &str, rules: CallRules) -> bool {
    let is_fit = |c: char| if rules.plain_ids { is_plain(c) } else { !c.is_control() };
    !id.is_empty() && id.len() <= rules.longest_id && id.chars().all(is_fit)
}

fn fit_name(call: &mut Call<'_>, longest: Option<usize>) {
    if call.name.is_empty() {
        call.name = Cow::Borrowed("unnamed");
    }
    if let Some(longest) = longest.filter(|longest| !is_plain_name(&call.name, *longest)) {
        call.name = Cow::Owned(call.name.chars().map(plain).take(longest).collect());
    }
}

/// Whether a name consists of at most so many letters, digits, `_` and `-`.
pub(super) fn is_plain_name(name: &str, longest: usize) -> bool {
    !name.is_empty() && name.len() <= longest && name.chars().all(is_plain)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn plain(c: char) -> char {
    if is_plain(c) { c } else { '_' }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PLAIN: CallRules = CallRules { longest_id: 40, plain_ids: true, unique_ids: true, longest_name: Some(8) };

    fn fitted(turns: &[&[&str]], rules: CallRules) -> Vec<String> {
        let owned: Vec<Vec<String>> = turns.iter().map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()).collect();
        let mut calls: Vec<Vec<Call<'_>>> = owned
            .iter()
            .map(|ids| {
                ids.iter()
                    .map(|id| Call {
                        id: id.into(),
                        name: "a.b".into(),
                        input: &Value::Null,
                        extra: None,
                        output: None,
                    })
                    .collect()
            })
            .collect();
        fit(calls.iter_mut().map(|calls| &mut calls[..]), rules);
        calls.into_iter().flatten().map(|call| call.id.into_owned()).collect()
    }

    // Fault 74.
    #[test]
    fn an_id_that_is_allowed_stays_and_any_other_gets_one_that_nobody_has() {
        let long = "y".repeat(200);
        let ids: &[&[&str]] = &[&["functions.f:0", "functions_f_0", ""], &["a", "a", "ü", &long], &["a"]];
        let expected =
            ["functions_f_0_1", "functions_f_0", "call_2", "a", "a_3", "_", &format!("{}_4", &long[..19]), "a_5"];
        assert_eq!(fitted(ids, PLAIN), expected);
        let rules = CallRules { plain_ids: false, unique_ids: false, ..PLAIN };
        let expected =
            ["functions.f:0", "functions_f_0", "call_1", "a", "a_1", "ü", &format!("{}_2", &long[..19]), "a"];
        assert_eq!(fitted(ids, rules), expected);
    }

    #[test]
    fn the_name_of_a_called_tool_is_made_plain_where_that_is_wanted() {
        for (name, longest, expected) in
            [("", None, "unnamed"), ("a.b", None, "a.b"), ("a.b", Some(8), "a_b"), ("abcdefghij", Some(8), "abcdefgh")]
        {
            let mut call = Call { id: "".into(), name: name.into(), input: &Value::Null, extra: None, output: None };
            fit_name(&mut call, longest);
            assert_eq!(call.name, expected);
        }
    }
}
