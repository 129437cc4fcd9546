//! What was asked for a response that is kept, as the items of its input.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::answer::Script;
use super::tools::input_of;
use crate::inbound::fault::Fault;
use crate::message::{Content, Message, Part, Role};

/// The most items that are told at once, and how many are if nothing else is said.
const MOST: usize = 100;
const USUAL: usize = 20;

/// Which items of an input are asked for: as OpenAI has it, the last ones first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ItemsPage {
    /// How many at the most, 1 to 100; 20 if absent.
    pub limit: Option<usize>,
    /// The id of the item behind which they begin.
    pub after: Option<String>,
    /// Whether the first ones come first.
    pub is_ascending: bool,
}

/// One page of the items of a conversation, as the JSON of a list. `script`: what has written the answer to it.
pub(super) fn list(asked: &[Message], script: &Script, page: &ItemsPage) -> Result<Vec<u8>, Fault> {
    let limit = page.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Fault::invalid(Some("limit"), format!("limit is a number from 1 to {MOST}")));
    }
    let mut items = Items { script, items: Vec::new(), custom: HashSet::new() };
    asked.iter().for_each(|message| items.add(message));
    let mut items = items.items;
    if !page.is_ascending {
        items.reverse();
    }
    let begin = match &page.after {
        None => 0,
        Some(after) => {
            let at = items.iter().position(|item| item["id"] == after.as_str());
            let unknown = || Fault::invalid(Some("after"), "after is the id of no item of this response");
            at.ok_or_else(unknown)? + 1
        }
    };
    let has_more = items.len() - begin > limit;
    let data: Vec<_> = items.into_iter().skip(begin).take(limit).collect();
    let id = |item: Option<&Value>| item.map(|item| item["id"].clone());
    let list = json!({
        "object": "list", "first_id": id(data.first()), "last_id": id(data.last()), "has_more": has_more, "data": data,
    });
    // A tree with text keys: writing it cannot fail.
    Ok(serde_json::to_vec(&list).unwrap_or_default())
}

/// Items as they are made.
struct Items<'a> {
    script: &'a Script,
    items: Vec<Value>,
    /// The ids of calls of tools that take a text.
    custom: HashSet<&'a str>,
}

impl<'a> Items<'a> {
    fn add(&mut self, message: &'a Message) {
        let role = match message.role {
            Role::System => "system",
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
        };
        let parts = match &message.content {
            Content::Text(text) => return self.say(role, &[text_of(role, text)]),
            Content::Parts(parts) => parts,
        };
        let mut said = Vec::new();
        for part in parts {
            let item = match part {
                Part::Text { text, .. } => {
                    said.push(text_of(role, text));
                    continue;
                }
                Part::Image { url, detail, .. } => {
                    let detail = detail.as_deref().unwrap_or("auto");
                    said.push(json!({"type": "input_image", "image_url": url, "detail": detail}));
                    continue;
                }
                other => self.other(other),
            };
            self.say(role, &std::mem::take(&mut said));
            self.push(item);
        }
        self.say(role, &said);
    }

    fn say(&mut self, role: &str, content: &[Value]) {
        if !content.is_empty() {
            self.push(json!({"type": "message", "status": "completed", "role": role, "content": content}));
        }
    }

    fn other(&mut self, part: &'a Part) -> Value {
        match part {
            Part::Reasoning { text, details } => {
                let summary: Vec<_> =
                    (!text.is_empty()).then(|| json!({"type": "summary_text", "text": text})).into_iter().collect();
                let encrypted = details.as_ref().and_then(|details| details.get("encrypted_content"));
                let mut item = json!({"type": "reasoning", "summary": summary});
                if let Some(encrypted) = encrypted {
                    item["encrypted_content"] = encrypted.clone();
                }
                item
            }
            Part::ToolUse { id, name, input, .. } => {
                let called = self.script.called(name);
                let text = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
                let mut item = if called.is_custom {
                    self.custom.insert(id);
                    json!({"type": "custom_tool_call", "input": input_of(&text)})
                } else {
                    json!({"type": "function_call", "arguments": text})
                };
                item["call_id"] = id.as_str().into();
                item["name"] = called.name.into();
                item["status"] = "completed".into();
                if let Some(namespace) = called.namespace {
                    item["namespace"] = namespace.into();
                }
                item
            }
            Part::ToolResult { tool_use_id, content, images, .. } => {
                let is_custom = self.custom.contains(tool_use_id.as_str());
                let kind = if is_custom { "custom_tool_call_output" } else { "function_call_output" };
                let pictures =
                    images.iter().map(|url| json!({"type": "input_image", "image_url": url, "detail": "auto"}));
                let output = match images.is_empty() {
                    true => Value::from(content.as_str()),
                    false => std::iter::once(text_of("user", content)).chain(pictures).collect(),
                };
                json!({"type": kind, "call_id": tool_use_id, "output": output, "status": "completed"})
            }
            // They are said in messages.
            Part::Text { .. } | Part::Image { .. } => Value::Null,
        }
    }

    fn push(&mut self, mut item: Value) {
        let kind = match item["type"].as_str() {
            Some("message") => "msg",
            Some("reasoning") => "rs",
            Some("custom_tool_call" | "custom_tool_call_output") => "ctc",
            _ => "fc",
        };
        let own = self.script.id.strip_prefix("resp_").unwrap_or(&self.script.id);
        item["id"] = format!("{kind}_in_{own}{:04x}", self.items.len()).into();
        self.items.push(item);
    }
}

fn text_of(role: &str, text: &str) -> Value {
    let kind = if role == "assistant" { "output_text" } else { "input_text" };
    json!({"type": kind, "text": text})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::responses::request;

    fn listed(page: &ItemsPage) -> Result<Value, Fault> {
        let body = json!({
            "tools": [{"type": "custom", "name": "patch"},
                {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}]}],
            "input": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": "https://host/a.png", "detail": "low"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "QUJD"},
                {"type": "function_call", "call_id": "a", "namespace": "files", "name": "look", "arguments": "{\"x\": 1}"},
                {"type": "function_call_output", "call_id": "a", "output": "a bell"},
                {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "x"},
                {"type": "custom_tool_call_output", "call_id": "b", "output": "done"},
                {"role": "assistant", "content": [{"type": "output_text", "text": "A bell."}]},
            ],
        });
        let turn = request::read(body.to_string().as_bytes(), &[]).unwrap();
        let mut script = Script::new(turn.echo, turn.names);
        script.id = "resp_7".to_owned();
        list(&turn.chat.messages, &script, page).map(|list| serde_json::from_slice(&list).unwrap())
    }

    #[test]
    fn an_input_is_told_as_it_was_asked() {
        let all = listed(&ItemsPage { is_ascending: true, ..ItemsPage::default() }).unwrap();
        let mut items = all["data"].as_array().unwrap().clone();
        let ids: Vec<_> = items.iter_mut().map(|item| item.as_object_mut().unwrap().remove("id").unwrap()).collect();
        let expected = [
            json!({"type": "message", "status": "completed", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}),
            json!({"type": "message", "status": "completed", "role": "user", "content": [{"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": "https://host/a.png", "detail": "low"}]}),
            json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "QUJD"}),
            json!({"type": "function_call", "status": "completed", "call_id": "a", "namespace": "files", "name": "look", "arguments": "{\"x\": 1}"}),
            json!({"type": "function_call_output", "status": "completed", "call_id": "a", "output": "a bell"}),
            json!({"type": "custom_tool_call", "status": "completed", "call_id": "b", "name": "patch", "input": "x"}),
            json!({"type": "custom_tool_call_output", "status": "completed", "call_id": "b", "output": "done"}),
            json!({"type": "message", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": "A bell."}]}),
        ];
        assert_eq!(items, expected);
        assert_eq!((&all["first_id"], &all["last_id"], &all["has_more"]), (&ids[0], &ids[7], &json!(false)));
        assert!(ids.iter().collect::<HashSet<_>>().len() == 8 && ids[0] == "msg_in_70000", "{ids:?}");
    }

    #[test]
    fn pages_follow_one_another_in_either_order() {
        for is_ascending in [true, false] {
            let all = listed(&ItemsPage { is_ascending, ..ItemsPage::default() }).unwrap();
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = listed(&ItemsPage { limit: Some(3), after, is_ascending }).unwrap();
                seen.extend(page["data"].as_array().unwrap().clone());
                after = page["last_id"].as_str().map(str::to_owned);
                if page["has_more"] == false {
                    break;
                }
            }
            assert_eq!(&seen, all["data"].as_array().unwrap());
        }
        let refused = |page: ItemsPage| listed(&page).unwrap_err().status;
        assert_eq!(refused(ItemsPage { limit: Some(0), ..ItemsPage::default() }), 400);
        assert_eq!(refused(ItemsPage { limit: Some(101), ..ItemsPage::default() }), 400);
        assert_eq!(refused(ItemsPage { after: Some("x".into()), ..ItemsPage::default() }), 400);
    }
}
