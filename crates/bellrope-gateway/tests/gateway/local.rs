//! What is done for models on this machine: thoughts told apart, templates for filling in, a default of `max_tokens`.

use bellrope_gateway::{
    ChatRequest, CompletionRequest, Gateway, HttpProvider, ProviderConfig, ProviderKind, providers::fill::Fill,
};
use std::sync::Arc;

use crate::fake::{Fake, soon};
use crate::script::Format;

fn gateway(fake: &Fake, change: impl FnOnce(ProviderConfig) -> ProviderConfig) -> Gateway {
    let config = ProviderConfig { kind: Some(ProviderKind::OpenAi), base_url: fake.url(), ..ProviderConfig::default() };
    Gateway::new(Arc::new(HttpProvider::named("llamacpp", change(config)).unwrap()))
}

fn body(fake: &Fake) -> serde_json::Value {
    serde_json::from_str(&fake.requests().pop().unwrap().body).unwrap()
}

#[tokio::test]
async fn thoughts_of_a_model_on_this_machine_are_told_apart_unless_the_settings_say_otherwise() {
    let fake = Fake::streaming([&*Format::ChatCompletions.answer("<think>They knock.</think> Ding.")]).await;
    let answer = soon(gateway(&fake, |config| config).chat(ChatRequest::user("hi"))).await.unwrap();
    assert_eq!((&*answer.reasoning, &*answer.text), ("They knock.", "Ding."));
    let as_it_is = gateway(&fake, |config| ProviderConfig { think_tags: Some(false), ..config });
    let answer = soon(as_it_is.chat(ChatRequest::user("hi"))).await.unwrap();
    assert!(answer.reasoning.is_empty() && answer.text.starts_with("<think>"), "{answer:?}");
}

#[tokio::test]
async fn a_suffix_is_sent_in_the_models_template_and_its_marks_end_the_answer() {
    let fake = Fake::streaming([&*Format::ChatCompletions.answer("x: u8<|fim_pad|>nonsense")]).await;
    let request =
        CompletionRequest { suffix: Some(") {}".into()), stop: vec!["\n".into()], ..CompletionRequest::new("fn a(") };
    let asked = CompletionRequest { model: Some("qwen2.5-coder".into()), ..request.clone() };
    let answer = soon(gateway(&fake, |config| config).complete(asked)).await.unwrap();
    assert_eq!(answer.text, "x: u8");
    let sent = body(&fake);
    assert_eq!(sent["prompt"], "<|fim_prefix|>fn a(<|fim_suffix|>) {}<|fim_middle|>");
    assert_eq!((sent.get("suffix"), sent["stop"].as_array().unwrap().len()), (None, 4));
    let server =
        gateway(&fake, |config| ProviderConfig { fill: Some(Fill::Server), model: Some("qwen".into()), ..config });
    soon(server.complete(request)).await.unwrap();
    assert_eq!((&body(&fake)["prompt"], &body(&fake)["suffix"]), (&"fn a(".into(), &") {}".into()));
}

#[tokio::test]
async fn a_default_of_max_tokens_holds_for_requests_that_say_nothing_of_it() {
    let fake = Fake::streaming([&*Format::ChatCompletions.answer("a")]).await;
    let gateway = gateway(&fake, |config| ProviderConfig { max_tokens: Some(77), ..config });
    for (asked, sent) in [(None, 77), (Some(0), 77), (Some(5), 5)] {
        soon(gateway.chat(ChatRequest { max_tokens: asked, ..ChatRequest::user("hi") })).await.unwrap();
        assert_eq!(body(&fake)["max_tokens"], sent);
    }
    let config = ProviderConfig { max_tokens: Some(0), ..ProviderConfig::default() };
    let error = HttpProvider::named("llamacpp", config).unwrap_err().to_string();
    assert!(error.starts_with("gateway.providers.llamacpp.max_tokens is 0"), "{error}");
}
