//! Names of tools that a provider does not take: the model sees others, and whoever asks gets back those that it gave.

use std::collections::HashMap;

use crate::ids::plain;
use crate::message::{ChatRequest, Chunk, Content, Part, ToolChoice};
use crate::providers::formats::{ProviderServer, WireFormat};

/// The names that were changed: those that the model sees, and those of whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Renamed(HashMap<String, String>);

impl Renamed {
    /// Changes the names of a request that a server of this format does not take, in its tools and in the conversation: the same
    /// name the same way every time.
    pub(crate) fn of(request: &mut ChatRequest, format: &dyn WireFormat, server: ProviderServer) -> Self {
        let (longest, is_strict) = (format.longest_name(), format.takes_plain_names_only(server));
        let mut renamed = Self::default();
        let mut fit = |name: &mut String| {
            let is_taken = name.len() <= longest && (!is_strict || name.bytes().all(is_plain));
            // One that is missing is told by who writes the request.
            if !is_taken && !name.is_empty() {
                let seen = plain(name).into_owned();
                renamed.0.insert(seen.clone(), std::mem::replace(name, seen));
            }
        };
        request.tools.iter_mut().for_each(|tool| fit(&mut tool.name));
        if let Some(ToolChoice::Tool { name }) = &mut request.tool_choice {
            fit(name);
        }
        for message in &mut request.messages {
            let Content::Parts(parts) = &mut message.content else { continue };
            for part in parts {
                if let Part::ToolUse { name, .. } = part {
                    fit(name);
                }
            }
        }
        renamed
    }

    /// Whether no name was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A piece of the answer, with the name that whoever asks knows.
    pub(crate) fn back(&self, mut chunk: Chunk) -> Chunk {
        if let Chunk::ToolCall(call) = &mut chunk
            && let Some(name) = &mut call.name
            && let Some(own) = self.0.get(name)
        {
            name.clone_from(own);
        }
        chunk
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::message::ToolCallDelta;
    use crate::providers::formats::ProviderKind;

    const LONG: &str = "mcp__a_server_with_a_long_name__a_tool_whose_name_is_as_long_as_claude_takes_them";

    fn request(name: &str) -> ChatRequest {
        serde_json::from_value(json!({
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": name, "input": {}}]},
            ],
            "tools": [{"name": name}, {"name": "look"}], "tool_choice": {"tool": {"name": name}},
        }))
        .unwrap()
    }

    fn server(at_inventor: bool) -> ProviderServer {
        ProviderServer { at_inventor, message_extras: true, stream_options: true }
    }

    #[test]
    fn a_name_that_a_provider_does_not_take_is_another_there_and_itself_again_in_the_answer() {
        for (kind, at_inventor, name) in [
            (ProviderKind::OpenAi, false, LONG),
            (ProviderKind::OpenAiResponses, true, LONG),
            (ProviderKind::OpenAi, true, "files.read"),
            (ProviderKind::Anthropic, false, "files.read"),
        ] {
            let mut asked = request(name);
            let renamed = Renamed::of(&mut asked, kind.format(), server(at_inventor));
            let seen = asked.tools[0].name.clone();
            assert!(seen != name && seen.len() <= 64 && seen.bytes().all(is_plain), "{seen}");
            let written = serde_json::to_string(&asked).unwrap();
            assert_eq!((written.matches(&*seen).count(), written.contains(name)), (3, false), "{written}");
            assert_eq!(asked.tools[1].name, "look");
            let call = |name: &str| {
                Chunk::ToolCall(ToolCallDelta { index: 0, id: None, name: Some(name.into()), arguments: String::new() })
            };
            assert_eq!(renamed.back(call(&seen)), call(name));
            assert_eq!(renamed.back(call("look")), call("look"));
            let mut again = request(name);
            Renamed::of(&mut again, kind.format(), server(at_inventor));
            assert_eq!(again.tools[0].name, seen, "the same every time");
        }
    }

    #[test]
    fn a_name_that_is_taken_stays() {
        for (kind, at_inventor, name) in [
            (ProviderKind::OpenAi, false, "files.read"),
            (ProviderKind::OpenAi, true, "files_read"),
            (ProviderKind::Anthropic, true, LONG),
        ] {
            let mut asked = request(name);
            assert!(Renamed::of(&mut asked, kind.format(), server(at_inventor)).is_empty());
            assert_eq!(asked.tools[0].name, name);
        }
    }
}
