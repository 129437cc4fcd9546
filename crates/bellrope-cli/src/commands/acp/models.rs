//! The models to choose from, as an option of a session.

use agent_client_protocol_schema::v1::{SessionConfigOption, SessionConfigOptionCategory, SessionConfigSelectOption};
use bellrope_gateway::{ChatRequest, ModelInfo};

/// The option's id.
pub(super) const OPTION: &str = "model";
/// The choice that leaves it to the server, or to how the agent was started.
pub(super) const DEFAULT: &str = "default";
/// The most models that are offered.
const MAX_MODELS: usize = 1000;

/// The option, with the choice that stands. None where there is nothing to choose.
pub(super) fn option(models: &[ModelInfo], chosen: &str) -> Option<SessionConfigOption> {
    if models.is_empty() {
        return None;
    }
    let mut choices =
        vec![SessionConfigSelectOption::new(DEFAULT, "Default").description("As the server is set up".to_owned())];
    for model in models.iter().take(MAX_MODELS) {
        let choice = SessionConfigSelectOption::new(value(model), model.id.clone());
        choices.push(choice.description(format!("from {}", model.provider)));
    }
    if !choices.iter().any(|choice| *choice.value.0 == *chosen) {
        choices.push(SessionConfigSelectOption::new(chosen.to_owned(), chosen.to_owned()));
    }
    let option = SessionConfigOption::select(OPTION, "Model", chosen.to_owned(), choices);
    Some(option.category(SessionConfigOptionCategory::Model))
}

/// The choice that a request stands for.
pub(super) fn chosen(request: &ChatRequest) -> String {
    match (&request.provider, &request.model) {
        (Some(provider), Some(model)) => format!("{provider}/{model}"),
        _ => DEFAULT.to_owned(),
    }
}

/// Makes `request` ask the model that was chosen, which has to be on offer; `default` is how requests ask if nothing is
/// chosen. Where the models cannot be listed, any is taken.
pub(super) fn choose(
    request: &mut ChatRequest,
    choice: &str,
    default: &ChatRequest,
    models: &[ModelInfo],
) -> Result<(), String> {
    if choice == DEFAULT {
        (request.provider, request.model) = (default.provider.clone(), default.model.clone());
        return Ok(());
    }
    let Some((provider, model)) = choice.split_once('/') else {
        return Err(format!("there is no model {choice:?}; choose one as PROVIDER/MODEL"));
    };
    let is_offered = models.is_empty() || models.iter().any(|model| value(model) == choice);
    if !is_offered && chosen(request) != choice && chosen(default) != choice {
        return Err(format!("there is no model {choice:?} on offer; choose one that the option `{OPTION}` lists"));
    }
    (request.provider, request.model) = (Some(provider.to_owned()), Some(model.to_owned()));
    Ok(())
}

fn value(model: &ModelInfo) -> String {
    format!("{}/{}", model.provider, model.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_names_provider_and_model_and_the_default_takes_it_back() {
        let default = ChatRequest { model: Some("m".into()), ..ChatRequest::default() };
        let mut request = default.clone();
        assert_eq!(chosen(&request), DEFAULT);
        choose(&mut request, "openai/meta/llama", &default, &[]).unwrap();
        assert_eq!((request.provider.as_deref(), request.model.as_deref()), (Some("openai"), Some("meta/llama")));
        assert_eq!(chosen(&request), "openai/meta/llama");
        choose(&mut request, DEFAULT, &default, &[]).unwrap();
        assert_eq!((request.provider, request.model.as_deref()), (None, Some("m")));
        assert!(choose(&mut default.clone(), "llama", &default, &[]).is_err());
    }

    #[test]
    fn a_model_that_is_in_no_option_cannot_be_chosen() {
        let models = [ModelInfo { id: "m".into(), provider: "p".into(), owner: None }];
        let default = ChatRequest { provider: Some("p".into()), model: Some("mine".into()), ..ChatRequest::default() };
        let mut request = default.clone();
        for (choice, is_taken) in [("p/m", true), ("p/none", false), ("p/mine", true), (DEFAULT, true), ("q/m", false)]
        {
            assert_eq!(choose(&mut request, choice, &default, &models).is_ok(), is_taken, "{choice}");
        }
        assert_eq!(request.model.as_deref(), Some("mine"));
    }

    #[test]
    fn what_was_chosen_is_among_the_choices_even_if_nobody_offers_it() {
        assert_eq!(option(&[], DEFAULT), None);
        let model = ModelInfo { id: "m".into(), provider: "p".into(), owner: None };
        let json = serde_json::to_value(option(&[model], "p/other").unwrap()).unwrap();
        let values: Vec<_> = json["options"].as_array().unwrap().iter().map(|choice| &choice["value"]).collect();
        assert_eq!(values, ["default", "p/m", "p/other"]);
        assert_eq!((&json["currentValue"], &json["category"]), (&"p/other".into(), &"model".into()));
    }
}
