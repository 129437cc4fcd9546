//! The models of all providers, in the form of OpenAI or of Anthropic.

use bellrope_gateway::{ModelInfo, ModelList, ProviderFault, inbound::ErrorForm};
use serde::Serialize;

/// The code of the error of a provider that lacks what it needs to be asked.
const NO_KEY: &str = "not_configured";

/// When a model was made, for tools that want to know: providers do not say.
const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";

/// All of them.
/// `wants_catalog`: the tool is one that reads a catalog beside the list, and takes a list without one for broken. What such a
/// catalog says of each model is not known here; of a model that is not in it, the tool goes by what it knows itself.
pub(super) fn list(list: &ModelList, form: ErrorForm, wants_catalog: bool) -> serde_json::Result<Vec<u8>> {
    let models = &list.models;
    match form {
        ErrorForm::OpenAi => serde_json::to_vec(&OpenAiList {
            object: "list",
            data: models.iter().map(OpenAi::from).collect(),
            models: wants_catalog.then_some([]),
        }),
        ErrorForm::Anthropic => serde_json::to_vec(&AnthropicList {
            data: models.iter().map(Anthropic::from).collect(),
            has_more: false,
            first_id: models.first().map(id),
            last_id: models.last().map(id),
        }),
    }
}

/// The one of this name, as the list has it or as its provider calls it. `None` if there is none.
pub(super) fn one(list: &ModelList, name: &str, form: ErrorForm) -> Option<serde_json::Result<Vec<u8>>> {
    let found = list.models.iter().find(|model| id(model) == name);
    let found = found.or_else(|| list.models.iter().find(|model| model.id == name))?;
    Some(match form {
        ErrorForm::OpenAi => serde_json::to_vec(&OpenAi::from(found)),
        ErrorForm::Anthropic => serde_json::to_vec(&Anthropic::from(found)),
    })
}

/// What is to be said of a list: whose models are missing. Of a provider without a key, which nobody asks, the start of the server says it.
pub(super) fn faults(list: &ModelList) -> Vec<String> {
    list.faults.iter().filter(|fault| fault.error.code != NO_KEY).map(fault).collect()
}

fn fault(fault: &ProviderFault) -> String {
    format!("the models of `{}` are not known: {}", fault.provider, fault.error.message)
}

/// The provider that would be asked for a model of this name, if that could not list its models, so that there may be one; and
/// what is to be said of that. `known`: the names of all providers, and that of the default one.
pub(super) fn unlisted<'a>(
    list: &'a ModelList,
    name: &str,
    (known, default): (&[String], &str),
) -> Option<(&'a str, String)> {
    let head = name.split_once('/').filter(|(_, model)| !model.is_empty()).map(|(head, _)| head);
    let asked = head.filter(|head| known.iter().any(|known| known == head)).unwrap_or(default);
    let found = list.faults.iter().find(|fault| fault.provider == asked)?;
    // One without a key answers nothing.
    let may_answer = found.error.code != NO_KEY && name != "default" && !known.iter().any(|known| known == name);
    may_answer.then(|| (found.provider.as_str(), fault(found)))
}

/// What stands for a provider's own model, as the name `default` does: under that name.
pub(super) fn stand_in(name: &str, provider: &str, form: ErrorForm) -> serde_json::Result<Vec<u8>> {
    let (id, display_name, created_at) = (name.to_owned(), name.to_owned(), UNKNOWN_TIME);
    match form {
        ErrorForm::OpenAi => serde_json::to_vec(&OpenAi { id, object: "model", created: 0, owned_by: provider }),
        ErrorForm::Anthropic => serde_json::to_vec(&Anthropic { r#type: "model", id, display_name, created_at }),
    }
}

/// The name by which a tool asks for a model.
fn id(model: &ModelInfo) -> String {
    format!("{}/{}", model.provider, model.id)
}

#[derive(Serialize)]
struct OpenAiList<'a> {
    object: &'static str,
    data: Vec<OpenAi<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<[(); 0]>,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

impl<'a> From<&'a ModelInfo> for OpenAi<'a> {
    fn from(model: &'a ModelInfo) -> Self {
        let owned_by = model.owner.as_deref().unwrap_or(&model.provider);
        Self { id: id(model), object: "model", created: 0, owned_by }
    }
}

#[derive(Serialize)]
struct AnthropicList {
    data: Vec<Anthropic>,
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

#[derive(Serialize)]
struct Anthropic {
    r#type: &'static str,
    id: String,
    display_name: String,
    created_at: &'static str,
}

impl From<&ModelInfo> for Anthropic {
    fn from(model: &ModelInfo) -> Self {
        Self { r#type: "model", id: id(model), display_name: model.id.clone(), created_at: UNKNOWN_TIME }
    }
}

#[cfg(test)]
mod tests {
    use bellrope_gateway::ErrorInfo;

    use super::*;

    #[test]
    fn a_model_of_a_provider_that_lists_none_may_be_there() {
        let fault = |provider: &str, code: &str| {
            let error = ErrorInfo { code: code.into(), message: "gone".into(), retryable: false, not_sent: false };
            ProviderFault { provider: provider.into(), error }
        };
        let faults = vec![fault("mine", "not_found"), fault("keyless", "not_configured")];
        let list = ModelList { version: 1, models: Vec::new(), faults };
        let known = ["keyless", "mine", "open"].map(str::to_owned);
        for (name, default, expected) in [
            ("mine/x", "open", Some("mine")),
            ("mine/x/y", "open", Some("mine")),
            ("x", "mine", Some("mine")),
            ("some/x", "mine", Some("mine")),
            ("mine/", "open", None),
            ("mine", "mine", None),
            ("default", "mine", None),
            ("open/x", "mine", None),
            ("x", "open", None),
            ("keyless/x", "open", None),
        ] {
            let found = unlisted(&list, name, (&known, default));
            assert_eq!(found.map(|(provider, _)| provider), expected, "{name} {default}");
        }
        let notes = super::faults(&list);
        assert_eq!(notes, ["the models of `mine` are not known: gone"]);
    }
}
