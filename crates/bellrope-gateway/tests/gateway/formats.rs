//! What goes out and what comes back when everybody keeps to the format.

use bellrope_gateway::{
    ChatRequest, Chunk, HttpProvider, Provider, ProviderConfig, ProviderKind, Secret, StopReason, ToolCall,
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::fake::{Fake, KEY, ask, pieces, soon};
use crate::for_each_format;
use crate::script::{Format, whole};

for_each_format! {
    async fn a_whole_answer_arrives_as_reasoning_text_usage_and_done(format: Format) {
        let answer = format.script().reasoning("hm").text("Hel").text("lo").stop("stop").end();
        let fake = Fake::streaming([&answer]).await;
        let expected: Vec<_> = [Chunk::reasoning("hm")].into_iter().chain(whole(&["Hel", "lo"])).collect();
        assert_eq!(pieces(&fake.provider(format)).await, expected);
    }

    async fn a_request_has_path_key_and_body_of_its_format(format: Format) {
        let fake = Fake::streaming([&format.answer("a")]).await;
        pieces(&fake.provider(format)).await;
        let request = &fake.requests()[0];
        assert!(request.head.starts_with(&format!("POST {} HTTP/1.1\r\n", format.path())), "{}", request.head);
        assert!(request.head.contains("accept-encoding: identity\r\n"), "{}", request.head);
        let key = match format {
            Format::ChatCompletions | Format::Responses => format!("authorization: Bearer {KEY}\r\n"),
            Format::Messages => format!("anthropic-version: 2023-06-01\r\nx-api-key: {KEY}\r\n"),
        };
        assert!(request.head.contains(&key), "{}", request.head);
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let expected = match format {
            Format::ChatCompletions => json!({
                "model": "fake-model", "messages": [{"role": "user", "content": "Hello"}],
                "stream": true, "stream_options": {"include_usage": true},
            }),
            Format::Responses => json!({
                "model": "fake-model", "stream": true, "store": false,
                "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
            }),
            Format::Messages => json!({
                "model": "fake-model", "stream": true, "max_tokens": 8192,
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            }),
        };
        assert_eq!(body, expected);
    }

    async fn calls_of_tools_arrive_with_the_reason_to_stop(format: Format) {
        let answer = format.script().text("I look.").tool(0, "c1", "ls").arguments(0, "{\"path\"")
            .arguments(0, ":\"/\"}").stop("tools").end();
        let fake = Fake::streaming([&answer]).await;
        let response = soon(fake.provider(format).chat(ChatRequest::user("Hello"))).await.unwrap();
        let call = ToolCall { id: "c1".into(), name: "ls".into(), arguments: "{\"path\":\"/\"}".into(), ..ToolCall::default() };
        assert_eq!((response.text.as_str(), response.tool_calls), ("I look.", vec![call]));
        assert_eq!((response.stop_reason, response.model.as_deref()), (StopReason::ToolUse, Some("fake-model")));
    }

    async fn the_results_of_tools_go_back_with_the_calls_before_them(format: Format) {
        let fake = Fake::streaming([&format.answer("a")]).await;
        let request: ChatRequest = serde_json::from_value(json!({
            "messages": [
                {"role": "user", "content": "What is here?"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "ls", "input": {"p": 1}}]},
                {"role": "tool", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "main.rs"}]},
            ],
            "tools": [{"name": "ls"}],
        })).unwrap();
        let answer: Vec<_> = soon(fake.provider(format).chat_stream(request).collect()).await;
        assert!(answer.iter().all(Result::is_ok), "{answer:?}");
        let body: Value = serde_json::from_str(&fake.requests()[0].body).unwrap();
        match format {
            Format::ChatCompletions => {
                assert_eq!(body["messages"][1]["tool_calls"][0]["function"]["arguments"], "{\"p\":1}");
                assert_eq!(body["messages"][2], json!({"role": "tool", "tool_call_id": "c1", "content": "main.rs"}));
                assert_eq!(body["tools"][0]["function"]["name"], "ls");
            }
            Format::Responses => {
                assert_eq!(body["input"][1]["arguments"], "{\"p\":1}");
                let result = json!({"type": "function_call_output", "call_id": "c1", "output": "main.rs"});
                assert_eq!(body["input"][2], result);
                assert_eq!(body["tools"][0]["name"], "ls");
            }
            Format::Messages => {
                assert_eq!(body["messages"][1]["content"][0]["input"], json!({"p": 1}));
                let result = json!({"type": "tool_result", "tool_use_id": "c1", "content": "main.rs"});
                assert_eq!(body["messages"][2]["content"][0], result);
                assert_eq!(body["tools"][0]["input_schema"]["type"], "object");
            }
        }
    }

    async fn models_and_health_come_from_the_list_of_models(format: Format) {
        let body = r#"{"object":"list","data":[{"id":"m1","object":"model","owned_by":"me"},{"id":"m2"}]}"#;
        let fake = Fake::replying("200 OK", "content-type: application/json\r\n", body).await;
        let models = soon(fake.provider(format).models()).await.unwrap();
        let found: Vec<_> = models.iter().map(|model| (model.id.as_str(), model.owner.as_deref())).collect();
        assert_eq!(found, [("m1", Some("me")), ("m2", None)]);
        let health = soon(fake.provider(format).health()).await;
        assert!(health.healthy && health.error.is_none());
        let requests = fake.requests();
        assert_eq!(requests.len(), 2, "one for the models, one for the health");
        assert!(requests.iter().all(|request| request.head.starts_with("GET /v1/models ")));
    }
}

#[tokio::test]
async fn azure_has_its_own_header_and_names_the_deployment_in_the_address() {
    let fake = Fake::streaming([&Format::ChatCompletions.answer("a")]).await;
    let config = ProviderConfig {
        kind: Some(ProviderKind::Azure),
        base_url: fake.url().replace("/v1", ""),
        api_key: Some(Secret::new(KEY)),
        model: Some("gpt/../5?x#y".to_owned()),
        ..ProviderConfig::default()
    };
    let provider = HttpProvider::new(config).unwrap();
    assert_eq!(ask(&provider).await.as_deref(), Ok("a"));
    let head = &fake.requests()[0].head;
    let path = "/openai/deployments/gpt%2F..%2F5%3Fx%23y/chat/completions?api-version=2024-10-21";
    assert!(head.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{head}");
    assert!(head.contains(&format!("api-key: {KEY}\r\n")) && !head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn a_model_that_the_caller_names_cannot_lead_a_request_elsewhere() {
    let fake = Fake::replying("404 Not Found", "", "").await;
    let config = ProviderConfig {
        kind: Some(ProviderKind::Azure),
        base_url: fake.url().replace("/v1", ""),
        api_key: Some(Secret::new(KEY)),
        ..ProviderConfig::default()
    };
    let provider = HttpProvider::new(config).unwrap();
    for (sent_before, model) in ["..", ".", "../../admin", "%2e%2e"].into_iter().enumerate() {
        let request = ChatRequest { model: Some(model.to_owned()), ..ChatRequest::user("Hello") };
        assert_eq!(soon(provider.chat(request)).await.unwrap_err().code(), "not_found", "{model}");
        assert_eq!(fake.requests().len(), sent_before + 1, "{model} was sent once");
    }
    for request in fake.requests() {
        assert!(request.head.starts_with("POST /openai/deployments/"), "{}", request.head);
        assert!(request.head.contains("/chat/completions?"), "{}", request.head);
    }
}
