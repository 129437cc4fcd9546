//! The tools of a request and the choice among them, as every format takes them.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::ids::is_plain_name;
use super::said::invalid;
use crate::error::{Excerpt, ProviderError};
use crate::message::{ChatRequest, Tool, ToolChoice};
use crate::notes::Notes;

/// The tools of a request.
#[derive(Debug, Default)]
pub(super) struct Tools<'a> {
    pub(super) offered: Vec<Offered<'a>>,
    /// A tool that it names is offered; without tools there is none.
    pub(super) choice: Option<&'a ToolChoice>,
    /// Whether several may be called at once. Never there without tools.
    pub(super) parallel: Option<bool>,
}

/// A tool with a schema that is one.
#[derive(Debug)]
pub(super) struct Offered<'a> {
    pub(super) tool: &'a Tool,
    /// An object's.
    pub(super) schema: Value,
}

/// The tools of a request. `longest_name`: the most letters, digits, `_` and `-` of a name; absent for any name.
pub(super) fn tools<'a>(
    request: &'a ChatRequest,
    longest_name: Option<usize>,
    notes: &mut Notes,
) -> Result<Tools<'a>, ProviderError> {
    let mut names = HashSet::new();
    let mut offered = Vec::with_capacity(request.tools.len());
    for (at, tool) in request.tools.iter().enumerate() {
        let name = Excerpt::new(&tool.name);
        if tool.name.is_empty() {
            return Err(invalid(&format!("tools[{at}].name is empty")));
        }
        if let Some(longest) = longest_name.filter(|longest| !is_plain_name(&tool.name, *longest)) {
            let allowed = format!("at most {longest} letters, digits, `_` and `-`");
            return Err(invalid(&format!("tools[{at}].name `{name}` cannot be used; this provider takes {allowed}")));
        }
        if !names.insert(&*tool.name) {
            if request.tools[..at].contains(tool) {
                notes.add(&format!("`tools` offers `{name}` twice; it was sent once"));
                continue;
            }
            return Err(invalid(&format!("tools[{at}].name `{name}` is that of another tool as well")));
        }
        let schema = schema(&tool.parameters).ok_or_else(|| {
            invalid(&format!("tools[{at}].parameters (of `{name}`) must be the JSON schema of an object"))
        })?;
        offered.push(Offered { tool, schema });
    }
    let choice = choice(request, &names, notes)?;
    let parallel = request.parallel_tool_calls.filter(|_| !offered.is_empty());
    Ok(Tools { offered, choice, parallel })
}

fn choice<'a>(
    request: &'a ChatRequest,
    names: &HashSet<&str>,
    notes: &mut Notes,
) -> Result<Option<&'a ToolChoice>, ProviderError> {
    match &request.tool_choice {
        // Every format refuses a choice among no tools.
        Some(choice) if names.is_empty() => {
            if matches!(choice, ToolChoice::Required | ToolChoice::Tool { .. }) {
                notes.left_out("`tool_choice`", "there are no `tools`");
            }
            Ok(None)
        }
        Some(ToolChoice::Tool { name }) if !names.contains(&**name) => {
            let name = Excerpt::new(name);
            Err(invalid(&format!("tool_choice names `{name}`, which is none of `tools`")))
        }
        choice => Ok(choice.as_ref()),
    }
}

/// A schema of an object, whatever way people write that a tool takes nothing. `None` for a schema of something else.
fn schema(parameters: &Value) -> Option<Value> {
    let mut schema = match parameters {
        Value::Null | Value::Bool(true) => Map::new(),
        Value::Object(schema) => schema.clone(),
        _ => return None,
    };
    let is_object = |kind: &Value| *kind == "object";
    match schema.get("type") {
        Some(kind) if is_object(kind) => {}
        Some(Value::Array(kinds)) if !kinds.iter().any(is_object) => return None,
        None | Some(Value::Null | Value::Array(_)) => {
            schema.insert("type".to_owned(), "object".into());
            schema.entry("properties").or_insert_with(|| json!({}));
        }
        Some(_) => return None,
    }
    Some(schema.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(request: Value) -> (Result<String, String>, usize) {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        let Value::Object(fields) = request else { panic!("a request is an object") };
        body.as_object_mut().unwrap().extend(fields);
        let request: ChatRequest = serde_json::from_value(body).unwrap();
        let mut notes = Notes::default();
        let told = |tools: Tools<'_>| {
            let schemas: Vec<_> = tools.offered.iter().map(|offered| offered.schema.to_string()).collect();
            format!("{} {:?}", schemas.join(" "), tools.choice)
        };
        let outcome = tools(&request, Some(8), &mut notes).map(told).map_err(|error| error.to_string());
        (outcome, notes.into_vec().len())
    }

    // Fault 74.
    #[test]
    fn a_tool_without_parameters_takes_an_object_however_that_is_written() {
        // The order of the fields is that of the build's maps.
        let plain = format!("{} None", json!({"type": "object", "properties": {}}));
        for parameters in
            [json!(null), json!({}), json!(true), json!({"type": null}), json!({"type": ["null", "object"]})]
        {
            let tools = json!({"tools": [{"name": "f", "parameters": parameters}]});
            assert_eq!(of(tools), (Ok(plain.clone()), 0), "{parameters}");
        }
        assert_eq!(of(json!({"tools": [{"name": "f"}], "tool_choice": null})), (Ok(plain), 0));
        assert_eq!(of(json!({"tools": null})), (Ok(" None".to_owned()), 0));
        for parameters in [json!("x"), json!([]), json!(false), json!({"type": "string"}), json!({"type": ["null"]})] {
            let fault = of(json!({"tools": [{"name": "f", "parameters": parameters}]})).0.unwrap_err();
            assert!(fault.contains("tools[0].parameters (of `f`)"), "{fault}");
        }
    }

    // Fault 74.
    #[test]
    fn a_choice_among_no_tools_is_left_out_and_one_of_a_tool_that_is_not_there_refused() {
        for (choice, notes) in [(json!("auto"), 0), (json!("none"), 0), (json!("required"), 1)] {
            assert_eq!(of(json!({"tools": [], "tool_choice": choice})), (Ok(" None".to_owned()), notes));
        }
        assert_eq!(of(json!({"tool_choice": {"tool": {"name": "f"}}})), (Ok(" None".to_owned()), 1));
        for (request, words) in [
            (json!({"tools": [{"name": "f"}], "tool_choice": {"tool": {"name": "g"}}}), "tool_choice names `g`"),
            (json!({"tools": [{"name": "a.b"}]}), "tools[0].name `a.b` cannot be used"),
            (json!({"tools": [{"name": "much_too_long"}]}), "at most 8 letters"),
            (json!({"tools": [{"name": ""}]}), "tools[0].name is empty"),
            (json!({"tools": [{"name": "f"}, {"name": "f", "description": "d"}]}), "tools[1].name `f`"),
        ] {
            let fault = of(request).0.unwrap_err();
            assert!(fault.contains(words), "{fault}");
        }
        assert_eq!(of(json!({"tools": [{"name": "f"}, {"name": "f"}]})).1, 1, "the same tool twice is no fault");
    }
}
