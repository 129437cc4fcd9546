//! What a provider needs before anything is sent, and what it does without.

use bellrope_gateway::{ChatRequest, Gateway, GatewaySettings, HttpProvider, ProviderConfig, ProviderKind, Secret};

use crate::fake::{Fake, KEY, ask, soon};
use crate::script::Format;

#[tokio::test]
async fn a_hosted_provider_needs_a_key_and_a_model_before_anything_is_sent() {
    for (name, title, prefix) in [
        ("openai", "OpenAI", "OPENAI"),
        ("openai-responses", "OpenAI", "OPENAI"),
        ("anthropic", "Anthropic", "ANTHROPIC"),
        ("openrouter", "OpenRouter", "OPENROUTER"),
        ("xai", "xAI", "XAI"),
        ("groq", "Groq", "GROQ"),
    ] {
        let error = ask(&HttpProvider::named(name, ProviderConfig::default()).unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{title} needs a key; set {prefix}_API_KEY"));
        assert_eq!(error.code(), "not_configured");
        let config = ProviderConfig { api_key: Some(Secret::new(KEY)), ..ProviderConfig::default() };
        let error = ask(&HttpProvider::named(name, config).unwrap()).await.unwrap_err();
        assert_eq!(error.fix(), Some(format!("name a model in the request, or set {prefix}_MODEL").as_str()));
    }
}

#[tokio::test]
async fn a_key_is_sent_without_what_people_put_around_it() {
    let fake = Fake::streaming([&Format::ChatCompletions.answer("a")]).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("key");
    for written in ["\"sk-not-a-real-key-000\"\n", "\u{feff}Bearer sk-not-a-real-key-000\r\n"] {
        std::fs::write(&file, written).unwrap();
        let from_file =
            ProviderConfig { api_key_file: Some(file.clone()), base_url: fake.url(), ..ProviderConfig::default() };
        let api_key = Some(Secret::new(written));
        let from_variable = ProviderConfig { api_key, base_url: fake.url(), ..ProviderConfig::default() };
        for config in [from_file, from_variable] {
            ask(&HttpProvider::named("openai", config).unwrap()).await.unwrap();
            let head = fake.requests().pop().unwrap().head;
            assert!(head.contains("authorization: Bearer sk-not-a-real-key-000\r\n"), "{head}");
        }
    }
    std::fs::write(&file, "sk-secret-1\nsk-secret-2\n").unwrap();
    let config = ProviderConfig { api_key_file: Some(file.clone()), ..ProviderConfig::default() };
    let error = HttpProvider::named("openai", config).unwrap_err().to_string();
    let expected = format!("gateway.providers.openai.api_key_file: cannot read {}: several lines", file.display());
    assert!(error.starts_with(&expected) && !error.contains("sk-secret"), "{error}");
}

#[tokio::test]
async fn another_server_needs_neither_where_its_format_does_not() {
    for format in [Format::ChatCompletions, Format::Responses] {
        let fake = Fake::streaming([&format.answer("a")]).await;
        let config = ProviderConfig { kind: Some(format.kind()), base_url: fake.url(), ..ProviderConfig::default() };
        assert_eq!(ask(&HttpProvider::new(config).unwrap()).await.as_deref(), Ok("a"));
        let request = &fake.requests()[0];
        assert!(!request.head.contains("authorization"), "{}", request.head);
        assert!(!request.body.contains("\"model\""), "{}", request.body);
    }
}

#[tokio::test]
async fn a_provider_of_ones_own_is_named_in_its_errors_by_its_own_settings() {
    let kind = Some(ProviderKind::Azure);
    let config = ProviderConfig { kind, base_url: "http://127.0.0.1:1".to_owned(), ..ProviderConfig::default() };
    let error = ask(&HttpProvider::named("work", config.clone()).unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "`work` needs a key; set gateway.providers.work.api_key");
    let config = ProviderConfig { api_key_variable: Some("WORK_KEY".to_owned()), ..config };
    let error = ask(&HttpProvider::named("work", config.clone()).unwrap()).await.unwrap_err();
    assert_eq!(error.fix(), Some("set WORK_KEY"));
    let config = ProviderConfig { api_key: Some(Secret::new(KEY)), max_retries: 0, ..config };
    let provider = HttpProvider::named("work", config).unwrap();
    let error = ask(&provider).await.unwrap_err();
    assert_eq!(error.fix(), Some("name a model in the request, or set gateway.providers.work.model"));
}

#[tokio::test]
async fn every_instance_of_a_configuration_is_asked_at_its_own_address_with_its_own_key() {
    let (first, second) = (
        Fake::streaming([&Format::ChatCompletions.answer("first")]).await,
        Fake::streaming([&Format::Messages.answer("second")]).await,
    );
    let json = serde_json::json!({
        "provider": "one",
        "providers": {
            "one": {"kind": "openai", "base_url": first.url(), "api_key": "${FIRST_KEY}"},
            "two": {"kind": "anthropic", "base_url": second.url(), "api_key": "${SECOND_KEY}", "model": "m"},
        },
    });
    let settings: GatewaySettings = serde_json::from_value(json).unwrap();
    let gateway = Gateway::from_settings_and_vars(settings, |name| match name {
        "FIRST_KEY" => Some("sk-first".to_owned()),
        "SECOND_KEY" => Some("sk-second".to_owned()),
        "OPENAI_API_KEY" => Some("sk-private".to_owned()),
        _ => None,
    })
    .unwrap();
    for (provider, text) in [(None, "first"), (Some("two"), "second"), (Some("one"), "first")] {
        let request = ChatRequest { provider: provider.map(str::to_owned), ..ChatRequest::user("Hello") };
        assert_eq!(soon(gateway.chat(request)).await.unwrap().text, text);
    }
    assert!(first.requests().iter().all(|request| request.head.contains("authorization: Bearer sk-first\r\n")));
    assert!(second.requests().iter().all(|request| request.head.contains("x-api-key: sk-second\r\n")));
}
