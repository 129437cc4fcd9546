//! An estimate of the tokens of a request, for providers that cannot count.

use std::io::{self, Write};

use serde::Serialize;

use crate::message::{ChatRequest, Content, Part};

/// Bytes of text to a token: what English and code come to in the usual tokenizers, a little more than less.
const BYTES_A_TOKEN: u64 = 4;
/// What stands around each message, each part and each tool.
const AROUND: u64 = 4;
/// What a picture is counted as. Providers go by its size, which is not known here.
const PICTURE: u64 = 1_600;

/// About how many tokens a request has, with its instructions, tools, calls, results and pictures. It is an estimate, and
/// no provider's count: good for a gauge, and not for a bill.
///
/// ```
/// use bellrope_gateway::{ChatRequest, inbound::estimate_tokens};
///
/// assert_eq!(estimate_tokens(&ChatRequest::user("Hello, who is there?")), 9);
/// ```
pub fn estimate_tokens(request: &ChatRequest) -> u64 {
    let system = request.system.as_deref().map_or(0, text);
    let tools = request.tools.iter().map(|tool| {
        let description = tool.description.as_deref().map_or(0, text);
        AROUND + text(&tool.name) + description + json(&tool.parameters)
    });
    let messages = request.messages.iter().map(|message| {
        AROUND
            + match &message.content {
                Content::Text(said) => text(said),
                Content::Parts(parts) => parts.iter().map(part).sum(),
            }
    });
    system + tools.sum::<u64>() + messages.sum::<u64>()
}

fn part(part: &Part) -> u64 {
    match part {
        Part::Text { text: said, .. } | Part::Reasoning { text: said, .. } => text(said),
        Part::Image { .. } => PICTURE,
        Part::ToolUse { name, input, .. } => AROUND + text(name) + json(input),
        Part::ToolResult { content, images, .. } => AROUND + text(content) + PICTURE * images.len() as u64,
    }
}

/// The tokens of a value as JSON, which is not written for that.
fn json(value: &impl Serialize) -> u64 {
    struct Length(u64);

    impl Write for Length {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut length = Length(0);
    // What was read as JSON can be written as such.
    let _ = serde_json::to_writer(&mut length, value);
    length.0.div_ceil(BYTES_A_TOKEN)
}

fn text(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_A_TOKEN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_a_provider_reads_is_counted() {
        let mut request: ChatRequest =
            serde_json::from_value(json!({"messages": [{"role": "user", "content": "Hi"}]})).unwrap();
        let mut last = estimate_tokens(&request);
        let mut grows = |request: &ChatRequest| {
            let now = estimate_tokens(request);
            assert!(now > last, "{now} is no more than {last}");
            last = now;
        };
        request.system = Some("Be brief.".into());
        grows(&request);
        request.tools.push(serde_json::from_value(json!({"name": "ls", "parameters": {"type": "object"}})).unwrap());
        grows(&request);
        for part in [
            json!({"type": "text", "text": "a"}),
            json!({"type": "reasoning", "text": "hm"}),
            json!({"type": "image", "url": "data:"}),
            json!({"type": "tool_use", "name": "ls", "input": {"a": 1}}),
            json!({"type": "tool_result", "content": "b"}),
        ] {
            let message = json!({"role": "assistant", "content": [part]});
            request.messages.push(serde_json::from_value(message).unwrap());
            grows(&request);
        }
    }
}
