//! What of an answer is named because it cannot be shown.

use super::super::{chat_completions, messages, responses};
use super::told;

// Fault 75.
#[test]
fn what_is_not_shown_is_named_once() {
    let notes = told::<chat_completions::Translator>(
        r#"{"choices":[{"delta":{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}],"audio":{"id":"x"},"annotations":[]}}]}
           {"choices":[{"delta":{"audio":{"data":"eA=="}},"finish_reason":"bored"}]}
           [DONE]"#,
    )
    .1;
    let named = |what: &str| format!("`{what}` of the answer was left out: it cannot be shown");
    assert_eq!(notes, [named("audio"), named("image_url"), "the reason to stop, `bored`, is not known".to_owned()]);
    let notes = told::<messages::Translator>(
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","name":"web","input":{}}}
           {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}
           {"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{"url":"x"}}}
           {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a"}}
           {"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
    )
    .1;
    assert_eq!(notes, [named("server_tool_use"), named("citations_delta")]);
    let notes = told::<responses::Translator>(
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"web_search_call","id":"w"}}
           {"type":"response.output_text.delta","delta":"a"}
           {"type":"response.completed"}"#,
    )
    .1;
    assert_eq!(notes, [named("web_search_call")]);
    let flood: String =
        (0..1000).map(|at| format!("{{\"choices\":[{{\"delta\":{{\"content\":\"a\",\"x{at}\":1}}}}]}}\n")).collect();
    assert!(told::<chat_completions::Translator>(&flood).1.len() <= 16);
}
