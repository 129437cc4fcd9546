//! Answers in a list, where a document is one answer.

use super::super::{chat_completions, messages, responses};
use super::read;

const CHAT: &str = r#"{"choices":[{"message":{"content":"Four."},"finish_reason":"stop"}]}"#;
const RESPONSE: &str = r#"{"object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Four."}]}]}"#;
const MESSAGE: &str = r#"{"type":"message","content":[{"type":"text","text":"Four."}],"stop_reason":"end_turn"}"#;

#[test]
fn a_list_of_an_answer_is_that_answer() {
    for around in [["[", "]"], ["[ null,\n", ",[]]"]] {
        let listed = |answer: &str| around.join(answer);
        assert_eq!(read::<chat_completions::Translator>(&listed(CHAT)), "text Four. | done end_turn");
        assert_eq!(read::<responses::Translator>(&listed(RESPONSE)), "text Four. | done end_turn");
        assert_eq!(read::<messages::Translator>(&listed(MESSAGE)), "text Four. | done end_turn");
    }
}

#[test]
fn a_list_of_what_a_stream_would_send_is_read_as_the_stream() {
    let chat = r#"[{"choices":[{"index":0,"delta":{"content":"Fo"}}]},{"choices":[{"index":0,"delta":{"content":"ur."},"finish_reason":"length"}]},{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}]"#;
    assert_eq!(read::<chat_completions::Translator>(chat), "text Four. | usage 1/2 | done max_tokens");
    let response = format!(
        r#"[{{"type":"response.output_text.delta","output_index":0,"delta":"Four."}},{{"type":"response.completed","response":{RESPONSE}}}]"#
    );
    assert_eq!(read::<responses::Translator>(&response), "text Four. | done end_turn");
    let start = r#"{"type":"message_start","message":{"content":[]}},{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Four."}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}},{"type":"message_stop"}"#;
    assert_eq!(read::<messages::Translator>(&format!("[{start},{end}]")), "text Four. | done end_turn");
}

#[test]
fn a_fault_in_a_list_is_a_fault() {
    let fault = r#"[{"error":{"code":429,"message":"slow down"}}]"#;
    for read in [read::<chat_completions::Translator>, read::<responses::Translator>, read::<messages::Translator>] {
        let read = read(fault);
        assert!(read.starts_with("error ") && read.contains("slow down"), "{read}");
    }
    let late = format!("[{CHAT},{}]", &fault[1..fault.len() - 1]);
    assert!(read::<chat_completions::Translator>(&late).contains("slow down"));
}
