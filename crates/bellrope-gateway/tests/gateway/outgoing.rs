//! What a request becomes in each format: a row a field, the body as the provider's server reads it, and what is told
//! with the answer.

use bellrope_gateway::{ChatRequest, HttpProvider, Provider, ProviderConfig, ProviderKind, Secret};
use serde_json::{Value, json};

use crate::fake::{Fake, KEY, soon};
use crate::script::Format;

const ALL: [Format; 3] = [Format::ChatCompletions, Format::Responses, Format::Messages];

/// What one request came to.
struct Sent {
    body: Value,
    notes: Vec<String>,
}

/// A provider's server, and its client.
struct Upstream {
    fake: Fake,
    provider: HttpProvider,
}

impl Upstream {
    async fn start(format: Format, kind: ProviderKind) -> Self {
        let fake = Fake::streaming([&format.answer("a")]).await;
        let config = ProviderConfig {
            kind: Some(kind),
            base_url: if kind == ProviderKind::Azure { fake.url().replace("/v1", "") } else { fake.url() },
            api_key: Some(Secret::new(KEY)),
            ..fake.config(format)
        };
        let provider = HttpProvider::new(config).unwrap();
        Self { fake, provider }
    }

    async fn of(format: Format) -> Self {
        Self::start(format, format.kind()).await
    }

    /// Sends a request with these fields beside one message, unless they bring their own.
    async fn send(&self, fields: &Value) -> Result<Sent, String> {
        let mut request = json!({"messages": [{"role": "user", "content": "Hi"}]});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let request: ChatRequest = serde_json::from_value(request).map_err(|error| error.to_string())?;
        let response = soon(self.provider.chat(request)).await.map_err(|error| error.to_string())?;
        let body = serde_json::from_str(&self.fake.requests().last().unwrap().body).unwrap();
        Ok(Sent { body, notes: response.notes })
    }
}

/// The part of a body that holds the conversation.
fn conversation(format: Format, body: &Value) -> &Value {
    &body[if format == Format::Responses { "input" } else { "messages" }]
}

/// One row: fields of a request; then, for each format, the fields of the body that they become, or the word of an
/// error; and the words of notes.
struct Row {
    fields: Value,
    becomes: [Value; 3],
    notes: [&'static [&'static str]; 3],
}

fn rows() -> Vec<Row> {
    let row = |fields, chat, responses, messages, notes| Row { fields, becomes: [chat, responses, messages], notes };
    let none: [&[&str]; 3] = [&[], &[], &[]];
    let tool = json!([{"name": "f"}]);
    let schema = json!({"type": "object", "properties": {}});
    let named = json!({"name": "n", "schema": schema, "strict": true});
    vec![
        row(json!({"top_p": 0.5}), json!({"top_p": 0.5}), json!({"top_p": 0.5}), json!({"top_p": 0.5}), none),
        row(json!({"top_p": 1.5}), json!("top_p"), json!("top_p"), json!("top_p"), none),
        row(
            json!({"temperature": 1.7}),
            json!({"temperature": 1.7}),
            json!({"temperature": 1.7}),
            json!({"temperature": 1.0}),
            [&[], &[], &["temperature 1.7"]],
        ),
        row(json!({"temperature": -1}), json!("temperature"), json!("temperature"), json!("temperature"), none),
        row(
            json!({"temperature": "0.5", "top_p": 0.5}),
            json!({"temperature": 0.5, "top_p": 0.5}),
            json!({"temperature": 0.5, "top_p": 0.5}),
            json!({"temperature": 0.5, "top_p": null}),
            [&[], &[], &["`top_p`"]],
        ),
        row(
            json!({"max_tokens": -1}),
            json!({"max_tokens": null}),
            json!({"max_output_tokens": null}),
            json!({"max_tokens": 8192}),
            none,
        ),
        row(
            json!({"max_tokens": 100.0}),
            json!({"max_tokens": 100}),
            json!({"max_output_tokens": 100}),
            json!({"max_tokens": 100}),
            none,
        ),
        row(json!({"stop": "END"}), json!({"stop": ["END"]}), json!("stop"), json!({"stop_sequences": ["END"]}), none),
        row(json!({"stop": []}), json!({"stop": null}), json!({}), json!({"stop_sequences": null}), none),
        row(json!({"stop": ["\n"]}), json!({"stop": ["\n"]}), json!("stop"), json!("stop"), none),
        row(
            json!({"seed": 7, "logit_bias": {"5": 1}, "presence_penalty": 1, "frequency_penalty": 0.5, "top_k": 3}),
            json!({
                "seed": 7, "logit_bias": {"5": 1}, "presence_penalty": 1.0, "frequency_penalty": 0.5, "top_k": 3,
            }),
            json!({"seed": null, "logit_bias": null, "presence_penalty": null, "frequency_penalty": null, "top_k": null}),
            json!({"seed": null, "logit_bias": null, "presence_penalty": null, "frequency_penalty": null, "top_k": 3}),
            [
                &[],
                &["`seed`", "`presence_penalty`", "`frequency_penalty`", "`logit_bias`", "`top_k`"],
                &["`seed`", "`presence_penalty`", "`frequency_penalty`", "`logit_bias`"],
            ],
        ),
        row(
            json!({"user": "u", "metadata": {"a": "b"}}),
            json!({"user": "u", "metadata": {"a": "b"}}),
            json!({"user": "u", "metadata": {"a": "b"}}),
            json!({"metadata": {"user_id": "u"}, "user": null}),
            [&[], &[], &["`metadata`"]],
        ),
        row(
            json!({"reasoning_effort": "low"}),
            json!({"reasoning_effort": "low"}),
            json!({"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]}),
            json!({"reasoning_effort": null}),
            [&[], &[], &["`reasoning_effort`"]],
        ),
        row(
            json!({"service_tier": "flex"}),
            json!({"service_tier": "flex"}),
            json!({"service_tier": "flex"}),
            json!({"service_tier": null}),
            [&[], &[], &["`service_tier`"]],
        ),
        row(
            json!({"parallel_tool_calls": false, "tools": tool}),
            json!({"parallel_tool_calls": false}),
            json!({"parallel_tool_calls": false}),
            json!({"tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
            none,
        ),
        row(
            json!({"parallel_tool_calls": true}),
            json!({"parallel_tool_calls": null}),
            json!({"parallel_tool_calls": null}),
            json!({"tool_choice": null}),
            none,
        ),
        row(
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": {"type": "json_object"}}),
            json!({"text": {"format": {"type": "json_object"}}}),
            json!("response_format"),
            none,
        ),
        row(
            json!({"response_format": {"type": "json_schema", "json_schema": named}}),
            json!({"response_format": {"type": "json_schema", "json_schema": named}}),
            json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}}}),
            json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
            none,
        ),
        row(
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            json!({"thinking": null, "reasoning_effort": null}),
            json!({"thinking": null, "reasoning": null}),
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            [&["`thinking`"], &["`thinking`"], &[]],
        ),
        row(
            json!({"metadata": {"user_id": "u"}}),
            json!({"metadata": null}),
            json!({"metadata": null}),
            json!({"metadata": {"user_id": "u"}}),
            [&["`metadata.user_id`"], &["`metadata.user_id`"], &[]],
        ),
        row(
            json!({"response_format": {"type": "text"}}),
            json!({"response_format": null}),
            json!({"text": null}),
            json!({"response_format": null}),
            none,
        ),
        row(
            json!({"tools": [], "tool_choice": "auto"}),
            json!({"tools": null, "tool_choice": null}),
            json!({"tools": null, "tool_choice": null}),
            json!({"tools": null, "tool_choice": null}),
            none,
        ),
        row(
            json!({"tools": tool, "tool_choice": {"tool": {"name": "g"}}}),
            json!("tool_choice"),
            json!("tool_choice"),
            json!("tool_choice"),
            none,
        ),
        row(
            json!({"tools": [{"name": "f", "parameters": null, "strict": true, "cache_control": {"type": "ephemeral"}}]}),
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": true}}]}),
            json!({"tools": [{"type": "function", "name": "f", "parameters": schema, "strict": true}]}),
            json!({"tools": [{"name": "f", "input_schema": schema, "cache_control": {"type": "ephemeral"}}]}),
            [&["`cache_control`"], &["`cache_control`"], &["`tools.strict`"]],
        ),
        row(
            json!({"system": ""}),
            json!({"messages": [{"role": "user", "content": "Hi"}]}),
            json!({"instructions": null}),
            json!({"system": null}),
            none,
        ),
    ]
}

// Faults 74, 75.
#[tokio::test]
async fn each_field_goes_to_the_provider_in_its_format_or_is_named() {
    for (at, format) in ALL.into_iter().enumerate() {
        let upstream = Upstream::of(format).await;
        for Row { fields, becomes, notes } in rows() {
            let place = format!("{format:?}, {fields}");
            match (upstream.send(&fields).await, &becomes[at]) {
                (Err(error), Value::String(word)) => assert!(error.contains(word.as_str()), "{place}: {error}"),
                (Ok(sent), Value::Object(expected)) => {
                    for (name, value) in expected {
                        let found = sent.body.get(name).unwrap_or(&Value::Null);
                        assert_eq!(found, value, "{place}: {name}");
                    }
                    let names = notes[at].len() == sent.notes.len()
                        && notes[at].iter().zip(&sent.notes).all(|(word, note)| note.contains(word));
                    assert!(names, "{place}: {:?}", sent.notes);
                }
                (outcome, _) => panic!("{place}: {:?}", outcome.map(|sent| sent.body)),
            }
        }
    }
}

// Fault 74.
#[tokio::test]
async fn openai_itself_and_azure_get_no_field_that_they_refuse() {
    let upstream = Upstream::start(Format::ChatCompletions, ProviderKind::Azure).await;
    let long = "x".repeat(41);
    let fields = json!({
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [
                {"type": "reasoning", "text": "hm"},
                {"type": "tool_use", "id": long, "name": "a.b", "extra_content": {"google": {}}},
            ]},
            {"role": "tool", "content": [{"type": "tool_result", "tool_use_id": long, "content": "4"}]},
        ],
        "temperature": 3, "max_tokens": 9, "metadata": {"a": "b"}, "top_k": 3,
    });
    let sent = upstream.send(&fields).await.unwrap();
    let id = &sent.body["messages"][1]["tool_calls"][0]["id"];
    assert!(id.as_str().unwrap().len() <= 40);
    let name = &sent.body["messages"][1]["tool_calls"][0]["function"]["name"];
    assert!(name.as_str().unwrap().starts_with("a_b-"), "{name}");
    let expected = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}},
        ]},
        {"role": "tool", "content": "4", "tool_call_id": id},
    ]);
    assert_eq!(sent.body["messages"], expected);
    let body = sent.body.as_object().unwrap();
    assert_eq!((&body["temperature"], &body["max_completion_tokens"]), (&json!(2.0), &json!(9)));
    assert!(["metadata", "top_k", "max_tokens"].iter().all(|name| !body.contains_key(*name)), "{body:?}");
    assert_eq!(sent.notes.len(), 5, "{:?}", sent.notes);
    // The fifth ends the answer here.
    let sent = upstream.send(&json!({"stop": ["a", "b", "c", "d", "e"]})).await.unwrap();
    assert_eq!(sent.body["stop"], json!(["a", "b", "c", "d"]));
    let sent = upstream.send(&json!({"tools": [{"name": "a.b"}]})).await.unwrap();
    let name = &sent.body["tools"][0]["function"]["name"];
    assert!(name.as_str().unwrap().starts_with("a_b-"), "{name}");
}

/// A conversation with one call of a tool.
fn called(call: &Value, result: &Value) -> Value {
    let mut use_ = json!({"type": "tool_use", "id": "t1", "name": "f", "input": {}});
    use_.as_object_mut().unwrap().extend(call.as_object().unwrap().clone());
    let mut answer = json!({"type": "tool_result", "tool_use_id": use_["id"], "content": "4"});
    answer.as_object_mut().unwrap().extend(result.as_object().unwrap().clone());
    json!({
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [use_]},
            {"role": "tool", "content": [answer]},
        ],
        "tools": [{"name": "f"}],
    })
}

/// The id of the call and that of the result, the arguments, and the result, as a body has them.
fn call_in(format: Format, body: &Value) -> [Value; 4] {
    let turns = conversation(format, body);
    match format {
        Format::ChatCompletions => {
            let (call, result) = (&turns[1]["tool_calls"][0], &turns[2]);
            [&call["id"], &result["tool_call_id"], &call["function"]["arguments"], &result["content"]]
        }
        Format::Responses => [&turns[1]["call_id"], &turns[2]["call_id"], &turns[1]["arguments"], &turns[2]["output"]],
        Format::Messages => {
            let (call, result) = (&turns[1]["content"][0], &turns[2]["content"][0]);
            [&call["id"], &result["tool_use_id"], &call["input"], &result["content"]]
        }
    }
    .map(Value::clone)
}

// Fault 74.
#[tokio::test]
async fn ids_arguments_and_results_of_calls_are_what_each_format_takes() {
    let picture = "data:image/png;base64,AA==";
    for format in ALL {
        let upstream = Upstream::of(format).await;
        for id in ["t1", "functions.f:0", "", "ü", &"y".repeat(100)] {
            let sent = upstream.send(&called(&json!({"id": id}), &json!({}))).await.unwrap();
            let [of_call, of_result, ..] = call_in(format, &sent.body);
            assert_eq!(of_call, of_result, "{format:?}");
            let made = of_call.as_str().unwrap();
            assert!(!made.is_empty() && made.len() <= 64);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            assert!(format != Format::Messages || made.chars().all(is_plain), "{made}");
        }
        for (input, text, object) in [
            (json!(null), "{}", json!({})),
            (json!(""), "{}", json!({})),
            (json!("{\"a\":"), "{\"a\":", json!({"text": "{\"a\":"})),
            (json!("{\"a\": 1}"), "{\"a\": 1}", json!({"a": 1})),
            (json!([1]), "[1]", json!({"value": [1]})),
        ] {
            let sent = upstream.send(&called(&json!({"input": input}), &json!({}))).await.unwrap();
            let expected = if format == Format::Messages { object } else { text.into() };
            assert_eq!(call_in(format, &sent.body)[2], expected, "{format:?}");
        }
        let sent = upstream.send(&called(&json!({}), &json!({"content": "seen", "images": [picture]}))).await.unwrap();
        let (expected, notes) = match format {
            // Row 9: the picture follows all results of the turn, and is no text of theirs.
            Format::ChatCompletions => (json!("seen\n(A picture stood here; it comes after the results.)"), 1),
            Format::Responses => {
                let image = json!({"type": "input_image", "image_url": picture});
                (json!([{"type": "input_text", "text": "seen"}, image]), 0)
            }
            Format::Messages => {
                let source = json!({"type": "base64", "media_type": "image/png", "data": "AA=="});
                (json!([{"type": "text", "text": "seen"}, {"type": "image", "source": source}]), 0)
            }
        };
        assert_eq!((&call_in(format, &sent.body)[3], sent.notes.len()), (&expected, notes), "{format:?}");
    }
}

// Fault 74.
#[tokio::test]
async fn what_the_model_thought_and_signed_goes_back_where_the_format_has_a_place() {
    let google = json!({"google": {"thought_signature": "QUJD"}});
    let thought = |details: Value| json!({"type": "reasoning", "text": "I look first.", "details": details});
    let asked = |details: Value| {
        let mut request = called(&json!({"extra_content": google}), &json!({}));
        request["messages"][1]["content"].as_array_mut().unwrap().insert(0, thought(details));
        request
    };
    let upstream = Upstream::of(Format::ChatCompletions).await;
    let sent = upstream.send(&asked(json!(null))).await.unwrap();
    let said = &sent.body["messages"][1];
    assert_eq!(
        (&said["reasoning_content"], &said["tool_calls"][0]["extra_content"]),
        (&json!("I look first."), &google)
    );
    assert!(sent.notes.is_empty(), "{:?}", sent.notes);
    let config = ProviderConfig { message_extras: Some(false), ..upstream.fake.config(Format::ChatCompletions) };
    let upstream = Upstream { provider: HttpProvider::new(config).unwrap(), ..upstream };
    let sent = upstream.send(&asked(json!(null))).await.unwrap();
    let said = &sent.body["messages"][1];
    assert!(said.get("reasoning_content").is_none() && said["tool_calls"][0].get("extra_content").is_none());
    assert_eq!(sent.notes.len(), 2, "{:?}", sent.notes);

    let upstream = Upstream::of(Format::Messages).await;
    let sent = upstream.send(&asked(json!({"signature": "c2ln"}))).await.unwrap();
    let expected = json!({"type": "thinking", "thinking": "I look first.", "signature": "c2ln"});
    assert_eq!(sent.body["messages"][1]["content"][0], expected);
    let sent = upstream.send(&asked(json!({"data": "AA"}))).await.unwrap();
    assert_eq!(sent.body["messages"][1]["content"][0], json!({"type": "redacted_thinking", "data": "AA"}));
    let sent = upstream.send(&asked(json!(null))).await.unwrap();
    assert_eq!(sent.body["messages"][1]["content"][0]["type"], "tool_use");
    assert_eq!(sent.notes.len(), 2, "{:?}", sent.notes);

    let upstream = Upstream::of(Format::Responses).await;
    let sent = upstream.send(&asked(json!({"id": "rs_1", "encrypted_content": "AA"}))).await.unwrap();
    let expected = json!({
        "type": "reasoning", "id": "rs_1", "encrypted_content": "AA",
        "summary": [{"type": "summary_text", "text": "I look first."}],
    });
    assert_eq!((&sent.body["input"][1], &sent.body["include"]), (&expected, &json!(["reasoning.encrypted_content"])));
}

// Fault 74.
#[tokio::test]
async fn anthropics_turns_begin_with_the_user_alternate_and_hold_no_blank_text() {
    let upstream = Upstream::of(Format::Messages).await;
    let turns = |messages: Value| {
        let upstream = &upstream;
        async move {
            let sent = upstream.send(&json!({ "messages": messages })).await.unwrap();
            let turn = |turn: &Value| {
                let kinds = turn["content"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|block| block["text"].as_str().or_else(|| block["type"].as_str()).unwrap().to_owned());
                format!("{}: {}", turn["role"].as_str().unwrap(), kinds.collect::<Vec<_>>().join(", "))
            };
            let turns: Vec<_> = sent.body["messages"].as_array().unwrap().iter().map(turn).collect();
            (turns.join(" | "), sent.body, sent.notes.len())
        }
    };
    let user = |text: &str| json!({"role": "user", "content": text});
    let assistant = |text: &str| json!({"role": "assistant", "content": text});
    let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]});
    let result = json!({"role": "tool", "content": [{"type": "tool_result", "tool_use_id": "a", "content": " "}]});
    for (messages, expected, notes) in [
        (json!([user("hi"), assistant("\n\n"), user("go on")]), "user: hi, go on", 0),
        (json!([user("hi"), assistant("a"), assistant("b ")]), "user: hi | assistant: a, b", 0),
        (
            json!([assistant("a"), user("b")]),
            "user: (The beginning of the conversation is not shown.) | assistant: a | user: b",
            1,
        ),
        (json!([user("q"), call, user("r"), result]), "user: q | assistant: tool_use | user: tool_result, r", 0),
        (json!([user("q"), call, user("r")]), "user: q | assistant: tool_use | user: tool_result, r", 1),
        (json!([user("q"), result]), "user: q, The result of a call of a tool:  ", 1),
    ] {
        let (found, body, found_notes) = turns(messages.clone()).await;
        assert_eq!((found.as_str(), found_notes), (expected, notes), "{messages}");
        // A conversation with calls needs tools, even where none may be called.
        let has_calls = expected.contains("tool_use");
        assert_eq!((body.get("tools").is_some(), body["tool_choice"]["type"] == "none"), (has_calls, has_calls));
    }
    for messages in [json!([user(" ")]), json!([{"role": "system", "content": "alone"}])] {
        let error = upstream.send(&json!({ "messages": messages })).await.err().unwrap();
        assert!(error.contains("messages has no message"), "{error}");
    }
    let cached = json!([{"role": "user", "content": [
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
        {"type": "image", "url": "data:image/jpg;name=a;base64,AA==", "detail": "high"},
    ]}]);
    let (_, body, notes) = turns(cached).await;
    let blocks = &body["messages"][0]["content"];
    assert_eq!(blocks[0]["cache_control"], json!({"type": "ephemeral"}));
    assert_eq!((&blocks[1]["source"]["media_type"], notes), (&json!("image/jpeg"), 1));
}

#[tokio::test]
async fn a_server_is_sent_the_headers_of_its_settings_and_no_field_that_they_switch_off() {
    let upstream = Upstream::of(Format::ChatCompletions).await;
    let headers = [("x-team".to_owned(), "bell".to_owned())].into();
    let config = ProviderConfig { stream_options: false, headers, ..upstream.fake.config(Format::ChatCompletions) };
    let upstream = Upstream { provider: HttpProvider::new(config).unwrap(), ..upstream };
    let sent = upstream.send(&json!({})).await.unwrap();
    assert!(sent.body.get("stream_options").is_none() && sent.body["stream"] == true);
    let head = &upstream.fake.requests()[0].head;
    assert!(head.contains("x-team: bell\r\n") && head.contains(KEY), "{head}");
}
