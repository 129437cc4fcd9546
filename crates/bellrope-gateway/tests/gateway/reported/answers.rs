//! What providers send. The words are ours.

use serde_json::Value;

use super::InEach;
use crate::tools::Said;

/// A reported answer.
pub(crate) struct ReportedAnswer {
    /// Its row in `docs/reported.md`.
    pub(crate) row: &'static str,
    /// As events, one a line; nothing where a format cannot have it.
    pub(crate) events: InEach,
    /// As a whole answer, in place of a stream too.
    pub(crate) document: InEach,
    pub(crate) becomes: Becomes,
}

/// What a tool is to be told.
pub(crate) enum Becomes {
    /// Text, after this reasoning.
    Text(&'static str, &'static str),
    /// Calls: the id, nothing where it is made; the name; the arguments.
    Calls(&'static [(&'static str, &'static str, &'static str)]),
    /// Its end is an error, with these words.
    Fails(&'static str),
}

impl Becomes {
    pub(crate) fn check(&self, place: &str, said: &Said) {
        match self {
            Self::Text(text, reasoning) => {
                assert_eq!((&*said.text, &*said.reasoning, said.calls.len()), (*text, *reasoning, 0), "{place}");
            }
            Self::Calls(calls) => {
                assert_eq!(said.calls.len(), calls.len(), "{place}: {said:?}");
                for ((id, name, arguments), (known, expected, wanted)) in said.calls.iter().zip(*calls) {
                    assert!(if known.is_empty() { !id.is_empty() } else { id == known }, "{place}: {said:?}");
                    let wanted: Value = serde_json::from_str(wanted).unwrap();
                    assert_eq!((&**name, arguments), (*expected, &wanted), "{place}");
                }
                assert!(["tool_calls", "completed", "tool_use"].contains(&said.reason()), "{place}: {said:?}");
            }
            Self::Fails(words) => panic!("{place}: {said:?} where {words:?} was to come"),
        }
    }
}

const ONE_CALL: &[(&str, &str, &str)] = &[("t1", "read", r#"{"path":"a"}"#)];

pub(crate) const ANSWERS: &[ReportedAnswer] = &[
    ReportedAnswer {
        row: "02 an empty reason, then the end of the connection",
        events: [
            r#"{"choices":[{"index":0,"delta":{"content":"The bridge opens at"},"finish_reason":""}]}"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"The bridge opens at"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"The bridge opens at"}}
               {"type":"message_delta","delta":{"stop_reason":""}}"#,
        ],
        document: ["", "", ""],
        becomes: Becomes::Fails("broke off before its end"),
    },
    ReportedAnswer {
        row: "02 the same in the middle of a call",
        events: [
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"look","arguments":"{\"at\":"}}]},"finish_reason":""}]}"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"t1","name":"look"}}
               {"type":"response.function_call_arguments.delta","output_index":0,"delta":"{\"at\":"}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t1","name":"look","input":{}}}
               {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"at\":"}}
               {"type":"message_delta","delta":{"stop_reason":""}}"#,
        ],
        document: ["", "", ""],
        becomes: Becomes::Fails("broke off before its end"),
    },
    ReportedAnswer {
        row: "03 a reason or a status that means failure",
        events: [
            r#"{"choices":[{"index":0,"delta":{"content":"The bridge"},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}
               [DONE]"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"The bridge"}
               {"type":"response.completed","response":{"status":"failed","error":{"code":"server_error","message":"the answer stopped"}}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"The bridge"}}
               {"type":"message_delta","delta":{"stop_reason":"error"}}
               {"type":"message_stop"}"#,
        ],
        document: [
            r#"{"choices":[{"index":0,"message":{"content":"The bridge"},"finish_reason":"error"}]}"#,
            r#"{"object":"response","status":"failed","error":{"code":"server_error","message":"the answer stopped"},"output":[]}"#,
            r#"{"type":"message","content":[{"type":"text","text":"The bridge"}],"stop_reason":"error"}"#,
        ],
        becomes: Becomes::Fails("the answer stopped"),
    },
    ReportedAnswer {
        row: "04 content as a list of parts, with thoughts among them",
        events: [
            r#"{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Two twos."}]}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"Four."}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}
               [DONE]"#,
            r#"{"type":"response.reasoning_text.delta","output_index":0,"delta":"Two twos."}
               {"type":"response.output_text.delta","output_index":1,"delta":"Four."}
               {"type":"response.completed","response":{"status":"completed"}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"Two twos."}}
               {"type":"content_block_start","index":1,"content_block":{"type":"text","text":"Four."}}
               {"type":"message_delta","delta":{"stop_reason":"end_turn"}}
               {"type":"message_stop"}"#,
        ],
        document: [
            r#"{"choices":[{"index":0,"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Two twos."}]},{"type":"text","text":"Four."}]},"finish_reason":"stop"}]}"#,
            r#"{"object":"response","status":"completed","output":[{"type":"reasoning","content":[{"type":"reasoning_text","text":"Two twos."}]},{"type":"message","content":[{"type":"output_text","text":"Four."}]}]}"#,
            r#"{"type":"message","content":[{"type":"thinking","thinking":"Two twos."},{"type":"text","text":"Four."}],"stop_reason":"end_turn"}"#,
        ],
        becomes: Becomes::Text("Four.", "Two twos."),
    },
    ReportedAnswer {
        row: "05 half a surrogate pair",
        events: [
            r#"{"choices":[{"index":0,"delta":{"content":"cut \ud83d here"}}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}
               [DONE]"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"cut \ud83d here"}
               {"type":"response.completed","response":{"status":"completed"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"cut \ud83d here"}}
               {"type":"message_delta","delta":{"stop_reason":"end_turn"}}
               {"type":"message_stop"}"#,
        ],
        document: [
            r#"{"choices":[{"index":0,"message":{"content":"cut \ud83d here"},"finish_reason":"stop"}]}"#,
            r#"{"object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"cut \ud83d here"}]}]}"#,
            r#"{"type":"message","content":[{"type":"text","text":"cut \ud83d here"}],"stop_reason":"end_turn"}"#,
        ],
        becomes: Becomes::Text("cut \u{fffd} here", ""),
    },
    ReportedAnswer {
        row: "05 a surrogate pair over two pieces",
        events: [
            r#"{"choices":[{"index":0,"delta":{"content":"bell \ud83d"}}]}
               {"choices":[{"index":0,"delta":{"content":"\udd14 rings"}}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}
               [DONE]"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"bell \ud83d"}
               {"type":"response.output_text.delta","output_index":0,"delta":"\udd14 rings"}
               {"type":"response.completed","response":{"status":"completed"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"bell \ud83d"}}
               {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\udd14 rings"}}
               {"type":"message_delta","delta":{"stop_reason":"end_turn"}}
               {"type":"message_stop"}"#,
        ],
        document: ["", "", ""],
        becomes: Becomes::Text("bell 🔔 rings", ""),
    },
    ReportedAnswer {
        row: "06 an index that is used again",
        events: [
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"read","arguments":"{\"path\":\"a\"}"}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t2","type":"function","function":{"name":"read","arguments":"{\"path\":\"b\"}"}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}
               [DONE]"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"t1","name":"read","arguments":"{\"path\":\"a\"}"}}
               {"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"t2","name":"read","arguments":"{\"path\":\"b\"}"}}
               {"type":"response.completed","response":{"status":"completed"}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t1","name":"read","input":{"path":"a"}}}
               {"type":"content_block_stop","index":0}
               {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t2","name":"read","input":{"path":"b"}}}
               {"type":"content_block_stop","index":0}
               {"type":"message_delta","delta":{"stop_reason":"tool_use"}}
               {"type":"message_stop"}"#,
        ],
        document: ["", "", ""],
        becomes: Becomes::Calls(&[("t1", "read", r#"{"path":"a"}"#), ("t2", "read", r#"{"path":"b"}"#)]),
    },
    ReportedAnswer {
        row: "07 id and name in every piece",
        events: [
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"read","arguments":"{\"pa"}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"read","arguments":"th\":\"a\"}"}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}
               [DONE]"#,
            "",
            "",
        ],
        document: ["", "", ""],
        becomes: Becomes::Calls(ONE_CALL),
    },
    ReportedAnswer {
        row: "08 a call without an id",
        events: [
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"type":"function","function":{"name":"read","arguments":"{}"}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}
               [DONE]"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","name":"read","arguments":"{}"}}
               {"type":"response.completed","response":{"status":"completed"}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"read","input":{}}}
               {"type":"content_block_stop","index":0}
               {"type":"message_delta","delta":{"stop_reason":"tool_use"}}
               {"type":"message_stop"}"#,
        ],
        document: [
            r#"{"choices":[{"index":0,"message":{"tool_calls":[{"type":"function","function":{"name":"read","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
            r#"{"object":"response","status":"completed","output":[{"type":"function_call","name":"read","arguments":"{}"}]}"#,
            r#"{"type":"message","content":[{"type":"tool_use","name":"read","input":{}}],"stop_reason":"tool_use"}"#,
        ],
        becomes: Becomes::Calls(&[("", "read", "{}")]),
    },
    ReportedAnswer {
        row: "09 a call without arguments",
        events: [
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"now","arguments":""}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}
               [DONE]"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"t1","name":"now","arguments":""}}
               {"type":"response.completed","response":{"status":"completed"}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t1","name":"now","input":""}}
               {"type":"content_block_stop","index":0}
               {"type":"message_delta","delta":{"stop_reason":"tool_use"}}
               {"type":"message_stop"}"#,
        ],
        document: [
            r#"{"choices":[{"index":0,"message":{"tool_calls":[{"id":"t1","type":"function","function":{"name":"now","arguments":""}}]},"finish_reason":"tool_calls"}]}"#,
            r#"{"object":"response","status":"completed","output":[{"type":"function_call","call_id":"t1","name":"now","arguments":""}]}"#,
            r#"{"type":"message","content":[{"type":"tool_use","id":"t1","name":"now","input":""}],"stop_reason":"tool_use"}"#,
        ],
        becomes: Becomes::Calls(&[("t1", "now", "{}")]),
    },
    ReportedAnswer {
        row: "10 calls, and a reason that speaks of none",
        events: [
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"ls","arguments":"{}"}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}
               [DONE]"#,
            "",
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t1","name":"ls","input":{}}}
               {"type":"content_block_stop","index":0}
               {"type":"message_delta","delta":{"stop_reason":"end_turn"}}
               {"type":"message_stop"}"#,
        ],
        document: [
            r#"{"choices":[{"index":0,"message":{"tool_calls":[{"id":"t1","type":"function","function":{"name":"ls","arguments":"{}"}}]},"finish_reason":"stop"}]}"#,
            "",
            r#"{"type":"message","content":[{"type":"tool_use","id":"t1","name":"ls","input":{}}],"stop_reason":"end_turn"}"#,
        ],
        becomes: Becomes::Calls(&[("t1", "ls", "{}")]),
    },
    ReportedAnswer {
        row: "11 an error under other names, with success",
        events: [r#"{"choices":null,"error_type":"BadRequestError","error_message":"the context is too long"}
               [DONE]"#; 3],
        document: [r#"{"choices":null,"error_type":"BadRequestError","error_message":"the context is too long"}"#; 3],
        becomes: Becomes::Fails("the context is too long"),
    },
    ReportedAnswer {
        row: "12 `message` in place of `delta`",
        events: [
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Four."},"finish_reason":"stop"}]}
               [DONE]"#,
            r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Four."}]}]}}"#,
            r#"{"type":"message_start","message":{"content":[{"type":"text","text":"Four."}],"stop_reason":"end_turn"}}
               {"type":"message_stop"}"#,
        ],
        document: ["", "", ""],
        becomes: Becomes::Text("Four.", ""),
    },
    ReportedAnswer {
        row: "14 an odd side field in the last event",
        events: [
            r#"{"choices":[{"index":0,"delta":{"content":"Four."},"finish_reason":"stop"}]}
               {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"cost":{"total_cost":0.06}}}
               [DONE]"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"Four."}
               {"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":[5],"output_tokens":2,"cost":{"total_cost":0.06}}}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Four."}}
               {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":"2","cost":{"total_cost":0.06}}}
               {"type":"message_stop"}"#,
        ],
        document: [
            r#"{"choices":[{"index":0,"message":{"content":"Four."},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"cost":{"total_cost":0.06}}}"#,
            r#"{"object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Four."}]}],"usage":{"input_tokens":[5],"cost":{}}}"#,
            r#"{"type":"message","content":[{"type":"text","text":"Four."}],"stop_reason":"end_turn","usage":[{"cost":{}}]}"#,
        ],
        becomes: Becomes::Text("Four.", ""),
    },
    ReportedAnswer {
        row: "15 a negative index",
        events: [
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":-1,"id":"t1","type":"function","function":{"name":"read","arguments":"{\"path\":\"a\"}"}}]},"finish_reason":null}]}
               {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}
               [DONE]"#,
            r#"{"type":"response.output_item.added","output_index":-1,"item":{"type":"function_call","call_id":"t1","name":"read"}}
               {"type":"response.function_call_arguments.delta","output_index":-1,"delta":"{\"path\":\"a\"}"}
               {"type":"response.completed","response":{"status":"completed"}}"#,
            r#"{"type":"content_block_start","index":-1,"content_block":{"type":"tool_use","id":"t1","name":"read","input":{}}}
               {"type":"content_block_delta","index":-1,"delta":{"type":"input_json_delta","partial_json":"{\"path\":\"a\"}"}}
               {"type":"content_block_stop","index":-1}
               {"type":"message_delta","delta":{"stop_reason":"tool_use"}}
               {"type":"message_stop"}"#,
        ],
        document: ["", "", ""],
        becomes: Becomes::Calls(ONE_CALL),
    },
    ReportedAnswer {
        row: "17 an error as a document, with success",
        events: ["", "", ""],
        document: [r#"{"error":{"message":"too many requests for now","code":429}}"#; 3],
        becomes: Becomes::Fails("too many requests for now"),
    },
    ReportedAnswer {
        row: "18 a whole answer in place of a stream",
        events: ["", "", ""],
        document: [
            r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Four."},"finish_reason":"stop"}]}"#,
            r#"{"id":"x","object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Four."}]}]}"#,
            r#"{"id":"x","type":"message","role":"assistant","content":[{"type":"text","text":"Four."}],"stop_reason":"end_turn"}"#,
        ],
        becomes: Becomes::Text("Four.", ""),
    },
    ReportedAnswer {
        row: "an answer cut at its limit that is called whole",
        events: [
            "",
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"The bridge"}
               {"type":"response.completed","response":{"status":"in_progress"}}"#,
            "",
        ],
        document: ["", "", ""],
        becomes: Becomes::Fails("broke off before its end"),
    },
];
