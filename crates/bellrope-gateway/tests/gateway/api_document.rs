//! docs/api.md against the program: every cell of its tables of fields is tried.

use std::path::Path;

use bellrope_gateway::Way;
use bellrope_gateway::inbound::{Asked, ToolFormat, pass_request};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::fake::{Fake, soon};
use crate::pass::exact;
use crate::script::Format;
use crate::tools::gateway;

const PROVIDERS: [Format; 3] = [Format::ChatCompletions, Format::Responses, Format::Messages];

const SECTIONS: [(&str, ToolFormat); 4] = [
    ("Fields of chat completions", ToolFormat::ChatCompletions),
    ("Fields of responses", ToolFormat::Responses),
    ("Fields of messages", ToolFormat::Messages),
    ("Fields of completions", ToolFormat::Completions),
];

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of a section whose first cell is JSON.
fn rows(document: &str, title: &str) -> Vec<(Value, Vec<String>)> {
    let body = document.split(&format!("## {title}\n")).nth(1).unwrap_or_else(|| panic!("no section {title}"));
    let body = body.split("\n## ").next().unwrap();
    let rows = body.lines().filter(|line| line.starts_with("| `{"));
    rows.map(|line| {
        let (example, cells) = line.strip_prefix("| `").unwrap().split_once("` | ").unwrap();
        let example = serde_json::from_str(example).unwrap_or_else(|error| panic!("{error}: {example}"));
        let cells = cells.trim_end_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        (example, cells)
    })
    .collect()
}

/// The least request of a format.
fn least(format: ToolFormat) -> Value {
    match format {
        ToolFormat::Responses => json!({"model": "m", "input": "Hi"}),
        ToolFormat::Completions => json!({"model": "m", "prompt": "Hi"}),
        ToolFormat::Messages => {
            json!({"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]})
        }
        _ => json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
    }
}

/// All names and texts in an example.
fn words(value: &Value, words: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                words.push(name.clone());
                self::words(value, words);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| self::words(value, words)),
        Value::String(text) => words.push(text.clone()),
        _ => {}
    }
}

/// Names that stand in too many examples to name anything.
const COMMON: [&str; 5] = ["type", "text", "role", "user", "content"];

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|token| !token.is_empty())
}

struct Upstream {
    format: Format,
    fake: Fake,
}

impl Upstream {
    async fn start(format: Format) -> Self {
        Self { format, fake: Fake::streaming([&*format.answer("a")]).await }
    }

    /// What a request becomes: the body, and what is noted. Or why it is refused.
    async fn send(&self, tool: ToolFormat, body: &Value) -> Result<(Value, Vec<String>), String> {
        let asked = tool.read(body.to_string().as_bytes(), &[]).map_err(|fault| fault.to_string())?;
        let Asked { chat, .. } = asked;
        let gateway = gateway(&self.fake, self.format, self.fake.config(self.format));
        let response = soon(gateway.chat(chat)).await.map_err(|error| {
            assert_eq!(error.code(), "invalid_request", "{error}");
            error.to_string()
        })?;
        let sent = serde_json::from_str(&self.fake.requests().last().unwrap().body).unwrap();
        Ok((sent, response.notes))
    }

    /// The word for a request that goes to a provider of its own format as it came.
    async fn passed(&self, tool: ToolFormat, example: &Value) -> String {
        let mut request = least(tool);
        request.as_object_mut().unwrap().extend(example.as_object().unwrap().clone());
        let body = request.to_string();
        let Some(request) = pass_request(tool.into(), Bytes::from(body.clone()), &[]).unwrap() else {
            return self.tried(tool, example).await;
        };
        let gateway = gateway(&self.fake, self.format, exact(&self.fake, self.format));
        let way = soon(gateway.pass(request)).await;
        assert!(matches!(way, Way::Passed(_)), "{way:?}");
        let sent = self.fake.requests().last().unwrap().body.clone();
        if sent == body { "passed".to_owned() } else { format!("sent as {sent}") }
    }

    /// The word for what becomes of the fields of an example; or what names none of them.
    async fn tried(&self, tool: ToolFormat, example: &Value) -> String {
        let least = least(tool);
        let mut request = least.clone();
        request.as_object_mut().unwrap().extend(example.as_object().unwrap().clone());
        let mut named = Vec::new();
        words(example, &mut named);
        // The gateway's word for what all formats have under names of their own.
        for (of_format, own) in [("reasoning", "reasoning"), ("thinking", "reasoning"), ("image", "picture")] {
            if named.iter().any(|name| name.contains(of_format)) {
                named.push(own.to_owned());
            }
        }
        let is_named = |said: &str| {
            // A field within another one stands after its name.
            let is_of = |token: &str, word: &str| {
                token.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            };
            let is_in_example = |token| named.iter().any(|name| tokens(name).any(|word| is_of(token, word)));
            tokens(said).any(|token| !COMMON.contains(&token) && is_in_example(token))
        };
        let (plain, unasked) = match self.send(tool, &least).await {
            Ok(sent) => sent,
            Err(_) => return "refused".to_owned(),
        };
        assert!(unasked.is_empty(), "{unasked:?}");
        let (sent, notes) = match self.send(tool, &request).await {
            Ok(sent) => sent,
            Err(fault) => {
                // The gateway's own name of a field of another name.
                let is_named = is_named(&fault) || fault.starts_with("stop ");
                return if is_named { "refused".to_owned() } else { format!("refused by {fault}") };
            }
        };
        if !notes.is_empty() {
            let is_named = notes.iter().any(|note| is_named(note));
            return if is_named { "noted".to_owned() } else { format!("noted as {notes:?}") };
        }
        if example.as_object().unwrap().iter().all(|(name, value)| sent[name] == *value) {
            return "passed".to_owned();
        }
        if sent == plain { "here".to_owned() } else { "translated".to_owned() }
    }
}

#[tokio::test]
async fn every_cell_of_the_tables_of_fields_is_true() {
    let document = document();
    let mut wrong = Vec::new();
    for (title, tool) in SECTIONS {
        let rows = rows(&document, title);
        assert!(rows.len() > 15, "{title} has {} rows", rows.len());
        let upstreams = [
            Upstream::start(PROVIDERS[0]).await,
            Upstream::start(PROVIDERS[1]).await,
            Upstream::start(PROVIDERS[2]).await,
        ];
        for (example, cells) in rows {
            let mut seen = Vec::new();
            for upstream in &upstreams {
                seen.push(upstream.tried(tool, &example).await);
            }
            let own = match tool {
                ToolFormat::Responses => 1,
                ToolFormat::Messages => 2,
                _ => 0,
            };
            seen.push(upstreams[own].passed(tool, &example).await);
            if cells != seen {
                wrong.push(format!("| `{example}` | {} |", seen.join(" | ")));
            }
        }
    }
    assert!(wrong.is_empty(), "these rows should be:\n{}", wrong.join("\n"));
}

#[test]
fn every_path_is_in_the_document() {
    let document = document();
    for format in ToolFormat::ALL {
        assert!(document.contains(&format!("`POST {}`", format.path())), "{format:?}");
    }
}
