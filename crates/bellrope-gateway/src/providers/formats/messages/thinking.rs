//! What Anthropic's messages demand of a request whose model is to think first.

use serde_json::Value;

use crate::message::ChatRequest;
use crate::notes::Notes;

/// The lowest `top_p` that is taken beside thinking.
const LEAST_TOP_P: f64 = 0.95;
/// The fewest tokens that are taken for thoughts.
const LEAST_BUDGET: u32 = 1_024;
/// Tokens for the answer where the request names a number for the thoughts alone, which are part of the whole.
const ANSWER_TOKENS: u64 = 8_192;

/// The `thinking` that is sent. `goes_on_unthought`: the model is to go on after calls before which it did not think, as far
/// as the conversation shows, which is refused.
pub(super) fn thinking(request: &ChatRequest, goes_on_unthought: bool, notes: &mut Notes) -> Option<Value> {
    let thinking = request.thinking.clone().filter(Value::is_object)?;
    if goes_on_unthought && is_on(&thinking) {
        notes.left_out(
            "`thinking`",
            "Anthropic's messages take it after calls only where the model's thoughts before these, with their signature, are \
             in the conversation",
        );
        return None;
    }
    match (budget(Some(&thinking)), request.max_tokens.filter(|most| *most > 0)) {
        (Some(budget), Some(most)) if budget >= u64::from(most) => shorter(thinking, most, notes),
        _ => Some(thinking),
    }
}

/// Thoughts that fit into so many tokens, with an answer. The format counts both together, and refuses a request whose thoughts
/// alone may take all.
fn shorter(mut thinking: Value, most: u32, notes: &mut Notes) -> Option<Value> {
    let shorter = (most / 2).max(LEAST_BUDGET);
    if shorter >= most {
        notes.left_out("`thinking`", &format!("it takes at least {LEAST_BUDGET} tokens, and `max_tokens` is {most}"));
        return None;
    }
    notes.add(&format!("`budget_tokens` of `thinking` was sent as {shorter}, as `max_tokens` is {most}"));
    thinking["budget_tokens"] = shorter.into();
    Some(thinking)
}

/// Whether the model thinks.
pub(super) fn is_on(thinking: &Value) -> bool {
    thinking["type"] != "disabled"
}

/// How many tokens the thoughts may take, if the model thinks and a number is given.
fn budget(thinking: Option<&Value>) -> Option<u64> {
    thinking.filter(|thinking| is_on(thinking)).and_then(|thinking| thinking["budget_tokens"].as_u64())
}

/// The most tokens of an answer, with thoughts. `usual`: where the request names no number, and the thoughts alone are to be
/// shorter. A number that it names is sent as it is: to raise it is not for us.
pub(super) fn max_tokens(thinking: Option<&Value>, asked: Option<u32>, usual: u32) -> u64 {
    match (budget(thinking), asked) {
        (Some(budget), None) if budget >= u64::from(usual) => budget.saturating_add(ANSWER_TOKENS),
        _ => asked.unwrap_or(usual).into(),
    }
}

/// What of `temperature`, `top_p` and `top_k` is sent beside thinking. What is left out is noted.
pub(super) fn sampling(
    (temperature, top_p, top_k): (Option<f64>, Option<f64>, Option<u32>),
    notes: &mut Notes,
) -> (Option<f64>, Option<f64>, Option<u32>) {
    const REASON: &str = "Anthropic's messages do not take it beside `thinking`";
    // A temperature of 1 is what is used without one.
    if temperature.is_some_and(|temperature| temperature < 1.0) {
        notes.left_out("`temperature`", REASON);
    }
    if top_k.is_some() {
        notes.left_out("`top_k`", REASON);
    }
    let near = top_p.filter(|share| *share >= LEAST_TOP_P);
    if near != top_p {
        notes.left_out("`top_p`", REASON);
    }
    (None, near, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::request::body;
    use super::*;

    /// What is sent for this, and how many notes there are; or what is refused.
    fn sent(fields: &Value) -> Result<(Value, usize), String> {
        let mut request = json!({"messages": [{"role": "user", "content": "Hi"}]});
        let more = fields.as_object().unwrap().clone();
        request.as_object_mut().unwrap().extend(more);
        let mut notes = Notes::default();
        let bytes = body(&serde_json::from_value(request).unwrap(), Some("claude-x"), &mut notes);
        let bytes = bytes.map_err(|error| error.to_string())?;
        Ok((serde_json::from_slice(&bytes).unwrap(), notes.into_vec().len()))
    }

    fn thinks(budget: u64) -> Value {
        json!({"type": "enabled", "budget_tokens": budget})
    }

    // Fault 74.
    #[test]
    fn what_is_refused_beside_thinking_is_left_out_and_noted() {
        let asked = json!({"thinking": thinks(2_000), "temperature": 0.2, "top_p": 0.5, "top_k": 7});
        let (body, notes) = sent(&asked).unwrap();
        assert!(["temperature", "top_p", "top_k"].iter().all(|field| body.get(field).is_none()), "{body}");
        assert_eq!((&body["thinking"], notes), (&thinks(2_000), 3));
        let (body, notes) = sent(&json!({"thinking": thinks(2_000), "temperature": 1.0, "top_p": 0.97})).unwrap();
        assert_eq!((body.get("temperature"), &body["top_p"], notes), (None, &json!(0.97), 0));
        let off = json!({"thinking": {"type": "disabled"}, "temperature": 0.2, "top_k": 7});
        let (body, notes) = sent(&off).unwrap();
        assert_eq!((&body["temperature"], &body["top_k"], notes), (&json!(0.2), &json!(7), 0));
    }

    #[test]
    fn thoughts_leave_room_for_an_answer_where_the_most_tokens_are_no_more_than_theirs() {
        for (budget, asked, sent_budget, noted) in [
            (2_000, 2_001, Some(2_000), 0),
            (4_000, 4_000, Some(2_000), 1),
            (31_999, 8_000, Some(4_000), 1),
            (2_000, 1_500, Some(1_024), 1),
            (2_000, 1_024, None, 1),
            (2_000, 100, None, 1),
        ] {
            let (body, notes) = sent(&json!({"thinking": thinks(budget), "max_tokens": asked})).unwrap();
            let found = body.get("thinking").map(|thinking| thinking["budget_tokens"].as_u64().unwrap());
            assert_eq!((found, notes), (sent_budget, noted), "{budget} of {asked}");
            assert_eq!(body["max_tokens"], asked, "what is asked for is sent");
        }
    }

    // Fault 74.
    #[test]
    fn thoughts_leave_room_for_an_answer_where_nobody_names_a_number() {
        for (budget, asked, most) in
            [(2_000, Some(3_000), 3_000), (2_000, Some(100), 100), (2_000, None, 32_000), (40_000, None, 48_192)]
        {
            let (body, _) = sent(&json!({"thinking": thinks(budget), "max_tokens": asked})).unwrap();
            assert_eq!(body["max_tokens"], most);
        }
    }

    // Fault 74.
    #[test]
    fn after_calls_of_which_the_thoughts_are_not_known_the_model_goes_on_without() {
        let loop_of = |thoughts: &[Value]| {
            let call = json!({"type": "tool_use", "id": "c", "name": "f", "input": {}});
            let content: Vec<_> = thoughts.iter().cloned().chain([call]).collect();
            json!({"thinking": thinks(2_000), "messages": [
                {"role": "user", "content": "Go."},
                {"role": "assistant", "content": content},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c", "content": "", "is_error": true},
                ]},
            ], "tools": [{"name": "f"}], "tool_choice": "required"})
        };
        let (body, notes) = sent(&loop_of(&[])).unwrap();
        assert_eq!((body.get("thinking"), notes), (None, 1));
        assert_eq!(body["tool_choice"], json!({"type": "any"}));
        let failed = &body["messages"][2]["content"][0];
        assert!(
            failed["is_error"] == true && failed["content"].as_str().is_some_and(|words| !words.is_empty()),
            "{failed}"
        );
        let mut known = loop_of(&[]);
        known["messages"][2]["content"] = json!("Never mind.");
        assert!(sent(&known).unwrap().0.get("thinking").is_none(), "the call has a result all the same");
    }

    // Fault 74.
    #[test]
    fn a_picture_that_is_refused_becomes_words() {
        let picture = |kind: &str| {
            let url = format!("data:{kind};base64,AA==");
            let content = json!([{"type": "image", "url": url}]);
            let (body, notes) = sent(&json!({"messages": [{"role": "user", "content": content}]})).unwrap();
            (body["messages"][0]["content"][0]["type"].as_str().unwrap().to_owned(), notes)
        };
        for kind in ["image/jpg", "image/png", "image/gif", "image/webp"] {
            assert_eq!(picture(kind), ("image".to_owned(), 0), "{kind}");
        }
        for kind in ["image/bmp", "image/svg+xml", "application/pdf", ""] {
            assert_eq!(picture(kind), ("text".to_owned(), 1), "{kind}");
        }
    }
}
