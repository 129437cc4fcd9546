use super::*;
use crate::inbound::fault::ErrorForm;
use crate::message::{Content, Message, Part, Role, ToolChoice};

fn of(body: &Value) -> Result<Turn, String> {
    let providers = ["openai".to_owned()];
    read(&serde_json::to_vec(body).unwrap(), &providers)
        .map_err(|fault| format!("{} {}", fault.status, String::from_utf8(fault.body(ErrorForm::OpenAi)).unwrap()))
}

fn parts(message: &Message) -> &[Part] {
    let Content::Parts(parts) = &message.content else { panic!("{message:?}") };
    parts
}

#[test]
fn a_whole_request_is_taken_over() {
    let Turn { chat, stream, echo, .. } = of(&json!({
        "model": "openai/gpt-5", "instructions": "Be brief.", "stream": true, "store": false,
        "input": [
            {"role": "developer", "content": "Use tools."},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            ]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "QUJD"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{\"at\":1}"},
            {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "no JSON"},
            {"type": "function_call_output", "call_id": "c1", "output": "a bell"},
            {"type": "function_call_output", "call_id": "c2", "output": [
                {"type": "input_text", "text": "a shed"}, {"type": "input_image", "image_url": "https://host/a.png"},
            ]},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}, "strict": true}],
        "tool_choice": "required", "parallel_tool_calls": false, "temperature": 0.5, "top_p": 0.9,
        "max_output_tokens": 9, "reasoning": {"effort": "low"}, "user": "u", "metadata": {"a": "b"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": true}}, "service_tier": "auto",
        "include": ["reasoning.encrypted_content"], "previous_response_id": null, "background": false,
    }))
    .unwrap();
    assert_eq!((chat.notes, stream, &*echo.model), (Vec::new(), true, "openai/gpt-5"));
    assert_eq!((chat.provider.as_deref(), chat.model.as_deref()), (Some("openai"), Some("gpt-5")));
    assert_eq!(chat.system.as_deref(), Some("Be brief."));
    let [developer, asked, said, results, more] = &chat.messages[..] else { panic!("{:?}", chat.messages) };
    assert_eq!(developer, &Message::new(Role::System, "Use tools."));
    let image =
        Part::Image { url: "data:image/png;base64,AA==".into(), detail: Some("low".into()), cache_control: None };
    assert_eq!((asked.role, parts(asked)), (Role::User, &[Part::text("What is it?"), image][..]));
    let expected = [
        Part::Reasoning { text: "hm".into(), details: Some(json!({"encrypted_content": "QUJD", "id": "rs_1"})) },
        Part::text("I look."),
        Part::tool_use("c1", "look", "{\"at\":1}".into()),
        Part::tool_use("c2", "look", "no JSON".into()),
    ];
    assert_eq!((said.role, parts(said)), (Role::Assistant, &expected[..]));
    let shed = Part::ToolResult {
        tool_use_id: "c2".into(),
        content: "a shed".into(),
        images: vec!["https://host/a.png".into()],
        is_error: false,
        cache_control: None,
    };
    assert_eq!((results.role, parts(results)), (Role::Tool, &[Part::tool_result("c1", "a bell"), shed][..]));
    assert_eq!(more, &Message::new(Role::User, "And now?"));
    assert_eq!((&*chat.tools[0].name, chat.tools[0].strict), ("look", Some(true)));
    assert_eq!((chat.tool_choice, chat.parallel_tool_calls), (Some(ToolChoice::Required), Some(false)));
    assert_eq!((chat.temperature, chat.top_p, chat.max_tokens), (Some(0.5), Some(0.9), Some(9)));
    assert_eq!((chat.reasoning_effort.as_deref(), chat.user.as_deref()), (Some("low"), Some("u")));
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": true}});
    assert_eq!(chat.response_format, Some(schema));
    assert_eq!((&chat.metadata["a"], chat.service_tier.as_deref()), (&json!("b"), Some("auto")));
}

#[test]
fn what_tools_write_in_odd_ways_is_read_as_they_mean_it() {
    let chat = of(&json!({"input": "Hi"})).unwrap().chat;
    assert_eq!(chat.messages, [Message::new(Role::User, "Hi")]);
    let chat = of(&json!({"input": [
        {"role": "user", "content": "Hi"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]},
        {"type": "reasoning", "id": "rs_3", "summary": []},
        {"type": "reasoning", "id": format!("{OWN}1", OWN = super::super::echo::OWN_REASONING), "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": {"a": 1}},
        {"type": "function_call_output", "call_id": "c", "output": null},
        {"type": "message", "role": "assistant", "content": []},
    ]}))
    .unwrap()
    .chat;
    let [_, said, result] = &chat.messages[..] else { panic!("{:?}", chat.messages) };
    let expected = [
        Part::Reasoning { text: "so".into(), details: None },
        Part::Reasoning { text: String::new(), details: Some(json!({"encrypted_content": "x"})) },
        Part::tool_use("c", "f", json!({"a": 1})),
    ];
    assert_eq!(parts(said), expected);
    assert_eq!(parts(result), [Part::tool_result("c", "")]);
}

#[test]
fn a_tool_that_takes_a_text_is_offered_as_one_that_takes_an_object_with_it() {
    let Turn { chat, names, .. } = of(&json!({
        "input": [
            {"role": "user", "content": "Hi"},
            {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
        ],
        "tools": [{"type": "custom", "name": "apply_patch", "description": "Patches.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}}],
        "tool_choice": {"type": "custom", "name": "apply_patch"},
    }))
    .unwrap();
    let tool = &chat.tools[0];
    assert_eq!(tool.parameters["required"], json!(["input"]));
    let description = tool.description.as_deref().unwrap();
    assert!(description.starts_with("Patches.") && description.ends_with("(lark):\nstart: x"), "{description}");
    assert!(names.called("apply_patch").is_custom);
    assert_eq!(chat.tool_choice, Some(ToolChoice::Tool { name: "apply_patch".into() }));
    assert_eq!(parts(&chat.messages[1]), [Part::tool_use("c", "apply_patch", json!({"input": "*** Begin"}))]);
    assert_eq!(parts(&chat.messages[2]), [Part::tool_result("c", "done")]);
}

#[test]
fn a_tool_in_a_namespace_is_found_again_and_no_two_have_one_name() {
    let space = json!({"type": "namespace", "name": "files", "tools": [
        {"type": "function", "name": "read", "parameters": {}}, {"type": "web_search"},
    ]});
    let Turn { chat, names, .. } = of(&json!({
        "input": [
            {"role": "user", "content": "Hi"},
            {"type": "function_call", "call_id": "c", "name": "read", "namespace": "files", "arguments": "{}"},
        ],
        "tools": [space, {"type": "namespace", "name": "mcp__", "tools": [{"type": "function", "name": "a"}]}],
        "tool_choice": {"type": "allowed_tools", "mode": "required",
            "tools": [{"type": "function", "name": "read", "namespace": "files"}]},
    }))
    .unwrap();
    assert_eq!(chat.tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), ["files__read"]);
    assert_eq!(chat.tool_choice, Some(ToolChoice::Required));
    let called = names.called("files__read");
    assert_eq!((&*called.name, called.namespace.as_deref()), ("read", Some("files")));
    assert_eq!(names.called("mcp__a").namespace.as_deref(), Some("mcp__"));
    assert_eq!(parts(&chat.messages[1]), [Part::tool_use("c", "files__read", "{}".into())]);
    let clash = json!({"input": "Hi", "tools": [space, {"type": "function", "name": "files__read"}]});
    assert!(of(&clash).unwrap_err().contains("two tools would be called `files__read`"));
}

// Row 12.
#[test]
fn a_tool_whose_name_with_its_namespace_is_none_for_providers_has_one_that_is_and_is_found_again() {
    for (space, name) in [("x".repeat(40), "y".repeat(40)), ("mcp.git hub".to_owned(), "list issues".to_owned())] {
        let tool = json!({"type": "function", "name": name});
        let Turn { chat, names, .. } = of(&json!({
            "input": [
                {"role": "user", "content": "Hi"},
                {"type": "function_call", "call_id": "c", "name": name, "namespace": space, "arguments": "{}"},
            ],
            "tools": [{"type": "namespace", "name": space, "tools": [tool, {"type": "function", "name": format!("{name}.")}]}],
            "tool_choice": {"type": "function", "name": name, "namespace": space},
        }))
        .unwrap();
        let [seen, other] = [0, 1].map(|at| chat.tools[at].name.clone());
        assert_ne!(seen, other);
        assert!(seen.len() <= 64 && seen.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{seen}");
        assert_eq!(parts(&chat.messages[1]), [Part::tool_use("c", &seen, "{}".into())]);
        assert_eq!(chat.tool_choice, Some(ToolChoice::Tool { name: seen.clone() }));
        let called = names.called(&seen);
        assert_eq!((&*called.name, called.namespace.as_deref()), (&*name, Some(&*space)));
    }
}

// Row 21.
#[test]
fn a_request_to_compact_a_conversation_is_refused_by_name() {
    let asked = json!({"input": [{"role": "user", "content": "Hi"}, {"type": "compaction_trigger"}]});
    assert!(of(&asked).unwrap_err().contains("not compacted here"));
}

#[test]
fn what_would_run_at_openais_servers_is_left_out_and_noted_unless_it_is_demanded() {
    let mut request = json!({
        "input": [
            {"role": "user", "content": "Hi"},
            {"type": "web_search_call", "id": "ws", "status": "completed"},
        ],
        "tools": [{"type": "web_search"}, {"type": "function", "name": "f"}],
        "store": true, "truncation": "auto", "prompt_cache_key": "k", "text": {"verbosity": "low"},
        "reasoning": {"effort": "none", "summary": "auto"}, "client_metadata": {"a": "b"},
    });
    let chat = of(&request).unwrap().chat;
    assert_eq!((chat.tools.len(), chat.messages.len(), chat.reasoning_effort.as_deref()), (1, 1, Some("none")));
    let notes = chat.notes.join("; ");
    for name in [
        "a tool of type \"web_search\"",
        "web_search_call",
        "`truncation`",
        "`prompt_cache_key`",
        "`text.verbosity`",
        "`reasoning.summary`",
        "`client_metadata`",
    ] {
        assert!(notes.contains(name), "{name} in {notes}");
    }
    request["tool_choice"] = json!({"type": "web_search"});
    assert!(of(&request).unwrap_err().contains("web_search"));
    let hosted = |mode: &str| json!({"type": "allowed_tools", "mode": mode, "tools": [{"type": "web_search"}]});
    request["tool_choice"] = hosted("required");
    assert!(of(&request).unwrap_err().contains("demands a call"));
    request["tool_choice"] = hosted("auto");
    assert!(of(&request).unwrap().chat.tools.is_empty());
    request["tools"] = json!([{"type": "web_search"}]);
    request["tool_choice"] = json!("required");
    assert!(of(&request).unwrap_err().contains("demands a call"));
    request["tool_choice"] = json!("auto");
    assert!(of(&request).is_ok());
}

#[test]
fn what_would_need_a_kept_response_is_answered_as_openai_does() {
    for (field, value, words) in [
        ("conversation", json!("conv_1"), "404 "),
        (
            "input",
            json!([{"type": "item_reference", "id": "i"}]),
            "404 {\"error\":{\"message\":\"Item with id 'i' not found.",
        ),
    ] {
        let mut request = json!({"input": "Hi"});
        request[field] = value;
        let fault = of(&request).unwrap_err();
        assert!(fault.contains(words), "{fault}");
    }
    let fault = of(&json!({"input": "Hi", "background": true, "store": false})).unwrap_err();
    assert!(fault.contains("background needs a response that is kept"), "{fault}");
}

#[test]
fn what_is_kept_only_if_it_is_asked_for_is_said_in_the_response() {
    for (request, kept) in [
        (json!({"input": "Hi"}), (false, false, None)),
        (json!({"input": "Hi", "store": false}), (false, false, None)),
        (json!({"input": "Hi", "store": true, "previous_response_id": ""}), (true, false, None)),
        (json!({"input": "Hi", "background": true}), (true, true, None)),
        (json!({"input": "Hi", "previous_response_id": "resp_1"}), (false, false, Some("resp_1"))),
    ] {
        let echo = read(&serde_json::to_vec(&request).unwrap(), &[]).unwrap().echo;
        assert_eq!((echo.store, echo.background, echo.previous.as_deref()), kept, "{request}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    for (request, words) in [
        (json!({}), "there is no input"),
        (json!({"input": []}), "there is no input"),
        (json!({"input": 7}), "a string or a list"),
        (json!({"input": [{"role": "ghost", "content": "x"}]}), "there is no role"),
        (json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}), "input_file"),
        (json!({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}), "image_url"),
        (json!({"input": [{"type": "function_call", "call_id": "c"}]}), "lacks its name"),
        (json!({"input": "Hi", "tools": [{"type": "function"}]}), "lacks its name"),
        (json!({"input": "Hi", "tool_choice": "maybe"}), "none of auto"),
        (json!({"input": "Hi", "tool_choice": {"type": "function", "name": "f"}}), "none of the tools"),
        (json!({"input": "Hi", "text": {"format": "json"}}), "text.format"),
        (json!({"input": "Hi", "temperature": "warm"}), "temperature: invalid value"),
    ] {
        let fault = of(&request).unwrap_err();
        assert!(fault.starts_with("400 ") && fault.contains(words), "{request}: {fault}");
    }
}

// Row 15.
#[test]
fn the_output_of_a_call_may_be_json_of_its_own() {
    for (output, text) in [
        (json!({"ok": true}), r#"{"ok":true}"#),
        (json!(7), "7"),
        (json!(false), "false"),
        (json!(null), ""),
        (json!("so"), "so"),
        (json!({"type": "input_text", "text": "one"}), "one"),
        (json!(["so", null, {"type": "input_text", "text": "it is"}]), "so\nit is"),
    ] {
        let asked = json!({"input": ["Hi", null, {"type": "function_call", "call_id": "a", "name": "f", "arguments": {}},
            {"type": "function_call_output", "call_id": "a", "output": output}]});
        let chat = of(&asked).unwrap().chat;
        assert!(chat.notes.is_empty(), "{:?}", chat.notes);
        let written = serde_json::to_value(&chat.messages).unwrap();
        assert_eq!(
            (&written[0]["content"], &written[2]["content"][0]["content"]),
            (&json!("Hi"), &json!(text)),
            "{written}"
        );
    }
}
