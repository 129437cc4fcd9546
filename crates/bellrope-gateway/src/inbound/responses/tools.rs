//! The tools of a request in the form of OpenAI's responses: functions, tools that take a text, and both in namespaces.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ids::plain;
use crate::inbound::fault::Fault;
use crate::inbound::wire::Told;
use crate::json;
use crate::message::{Tool, ToolChoice, lenient};

/// What stands between a namespace and a name.
const BETWEEN: &str = "__";

/// What the caller calls the tools that it is asked to run, by the names that the model sees.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(HashMap<String, Called>);

/// A tool as the caller calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    /// Whether it takes a text in place of an object.
    pub(super) is_custom: bool,
}

impl Called {
    /// What the model calls it.
    pub(super) fn seen(&self) -> String {
        self.namespace.as_ref().map_or_else(|| self.name.clone(), |namespace| qualified(namespace, &self.name))
    }
}

impl Names {
    /// The tool that the model calls by this name.
    pub(super) fn called(&self, name: &str) -> Called {
        let unknown = || Called { name: name.to_owned(), namespace: None, is_custom: false };
        self.0.get(name).cloned().unwrap_or_else(unknown)
    }

    fn add(&mut self, seen: &str, called: &Called) -> Result<(), Fault> {
        match self.0.insert(seen.to_owned(), called.clone()) {
            Some(other) if other != *called => {
                let fault = format!("two tools would be called `{seen}`; give one of them another name");
                Err(Fault::invalid(Some("tools"), fault))
            }
            _ => Ok(()),
        }
    }
}

/// The name that the model sees of a tool in a namespace: of at most 64 letters, digits, `_` and `-`, as providers want it, and the
/// same every time.
pub(super) fn qualified(namespace: &str, name: &str) -> String {
    let between = if namespace.ends_with(BETWEEN) { "" } else { BETWEEN };
    plain(&format!("{namespace}{between}{name}")).into_owned()
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a tool")]
pub(super) struct WireTool {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    parameters: Value,
    strict: Option<bool>,
    format: Option<Value>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    defer_loading: bool,
    /// Those of a namespace.
    #[serde(default)]
    tools: Vec<WireTool>,
}

/// The tools that the caller runs.
pub(super) fn tools(wire: Vec<WireTool>, names: &mut Names, told: &mut Told) -> Result<Vec<Tool>, Fault> {
    let mut tools = Vec::with_capacity(wire.len());
    add(wire, None, &mut tools, names, told)?;
    Ok(tools)
}

fn add(
    wire: Vec<WireTool>,
    namespace: Option<&str>,
    tools: &mut Vec<Tool>,
    names: &mut Names,
    told: &mut Told,
) -> Result<(), Fault> {
    for WireTool { kind, name, description, parameters, strict, format, defer_loading, tools: inner } in wire {
        let is_custom = kind == "custom";
        let name = match (&*kind, name) {
            ("function" | "custom" | "namespace", Some(name)) => name,
            ("function" | "custom" | "namespace", None) => {
                return Err(Fault::invalid(Some("tools"), format!("a tool of type {kind:?} lacks its name")));
            }
            _ => {
                told.left_out(&format!("a tool of type {kind:?}"), "it would run at OpenAI's servers");
                continue;
            }
        };
        if kind == "namespace" {
            if namespace.is_some() {
                return Err(Fault::invalid(Some("tools"), "a namespace stands within another one"));
            }
            add(inner, Some(&name), tools, names, told)?;
            continue;
        }
        if defer_loading {
            told.left_out("`tools.defer_loading`", "every tool is offered from the beginning");
        }
        let seen = namespace.map_or_else(|| name.clone(), |namespace| qualified(namespace, &name));
        names.add(&seen, &Called { name, namespace: namespace.map(str::to_owned), is_custom })?;
        tools.push(if is_custom {
            let (description, parameters) = (Some(of_text(description, format.as_ref())), takes_text());
            Tool { name: seen, description, parameters, ..Tool::default() }
        } else {
            Tool { name: seen, description, parameters, strict, cache_control: None }
        });
    }
    Ok(())
}

/// The schema of a tool that takes a text.
fn takes_text() -> Value {
    json!({
        "type": "object", "properties": {"input": {"type": "string", "description": "The whole input of the tool."}},
        "required": ["input"], "additionalProperties": false,
    })
}

/// What a tool that takes a text is said to do, with the grammar of the text where there is one.
fn of_text(description: Option<String>, format: Option<&Value>) -> String {
    let mut said = description.unwrap_or_default();
    if let Some(grammar) = format.and_then(|format| format.get("definition")).and_then(Value::as_str) {
        let syntax = format.and_then(|format| format.get("syntax")).and_then(Value::as_str).unwrap_or("given");
        said.push_str(&format!("\n\n`input` has to fit this grammar ({syntax}):\n{grammar}"));
    }
    said
}

/// The choice among tools. One among some of them leaves the others out. `offers`: whether the request offers any.
pub(super) fn choice(
    wire: Option<&Value>,
    tools: &mut Vec<Tool>,
    names: &Names,
    offers: bool,
) -> Result<Option<ToolChoice>, Fault> {
    let choice = chosen(wire, tools, names)?;
    if offers && tools.is_empty() && choice == Some(ToolChoice::Required) {
        let words = "tool_choice demands a call, and none of the tools that it may be of is run by whoever asks";
        return Err(Fault::invalid(Some("tool_choice"), words));
    }
    Ok(choice)
}

fn chosen(wire: Option<&Value>, tools: &mut Vec<Tool>, names: &Names) -> Result<Option<ToolChoice>, Fault> {
    let Some(wire) = wire.filter(|wire| !wire.is_null()) else { return Ok(None) };
    let text = |name: &str| wire.get(name).and_then(Value::as_str);
    let kind = wire.as_str().or_else(|| text("type"));
    let seen = |choice: &Value| {
        let name = choice.get("name")?.as_str()?;
        let namespace = choice.get("namespace").and_then(Value::as_str);
        Some(namespace.map_or_else(|| name.to_owned(), |namespace| qualified(namespace, name)))
    };
    Ok(Some(match kind {
        Some("auto") => ToolChoice::Auto,
        Some("none") => ToolChoice::None,
        Some("required") => ToolChoice::Required,
        Some("function" | "custom") if wire.is_object() => match seen(wire) {
            Some(name) if names.0.contains_key(&name) => ToolChoice::Tool { name },
            _ => return Err(Fault::invalid(Some("tool_choice"), "tool_choice names none of the tools")),
        },
        Some("allowed_tools") => {
            let allowed: Vec<_> =
                wire.get("tools").and_then(Value::as_array).into_iter().flatten().filter_map(seen).collect();
            tools.retain(|tool| allowed.contains(&tool.name));
            if text("mode") == Some("required") { ToolChoice::Required } else { ToolChoice::Auto }
        }
        Some(other) if wire.is_object() => {
            let fault = format!("tool_choice wants a tool of type {other:?}, which no provider here runs");
            return Err(Fault::invalid(Some("tool_choice"), fault));
        }
        _ => {
            let fault = "tool_choice is none of auto, none, required and a tool";
            return Err(Fault::invalid(Some("tool_choice"), fault));
        }
    }))
}

/// The text for a tool that takes one. Where the model did not write the object that it was asked for, all it wrote.
pub(super) fn input_of(arguments: &str) -> String {
    match json::from_str::<Value>(arguments) {
        Ok(Value::Object(object)) if object.is_empty() => String::new(),
        Ok(object) => object["input"].as_str().unwrap_or(arguments).to_owned(),
        Err(_) => arguments.to_owned(),
    }
}
