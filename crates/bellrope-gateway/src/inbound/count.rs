//! An estimate of the tokens of a request, for providers that cannot count.

use std::io::{self, Write};

use serde::Serialize;

use crate::json::end_of_string;
use crate::message::{ChatRequest, Content, Part};

/// Bytes of text to a token: what English and code come to in the usual tokenizers, a little more than less.
pub const BYTES_A_TOKEN: u64 = 4;
/// What stands around each message, each part and each tool.
const AROUND: u64 = 4;
/// What a picture is counted as. Providers go by its size, which is not known here.
const PICTURE: u64 = 1_600;
/// A text without a blank is data rather than words from this length on, in bytes.
const DATA: usize = 8 * 1024;

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

/// About how many tokens a request has of which only its bytes are known. Data in it, such as a picture, counts as one.
pub(crate) fn estimate_tokens_of(json: &[u8]) -> u64 {
    let (mut data, mut pictures, mut at) = (0, 0, 0);
    // The name of the field that is read, and of the one before.
    let mut names: [&[u8]; 2] = [b""; 2];
    while json.len() - at >= DATA
        && let Some(found) = memchr::memchr(b'"', &json[at..])
    {
        let begin = at + found + 1;
        let end = end_of_string(json, begin);
        let (text, rest) = (&json[begin..end.max(begin)], json.get(end + 1..).unwrap_or_default());
        if rest.trim_ascii_start().starts_with(b":") {
            names = [text, names[0]];
        } else if text.len() >= DATA && is_place_of_data(names, rest, text) && is_base64(text) {
            data += text.len();
            pictures += 1;
        }
        at = (end + 1).min(json.len());
    }
    ((json.len() - data) as u64).div_ceil(BYTES_A_TOKEN) + pictures * PICTURE
}

/// Whether a text in the first of these fields is read as data: a data URL where formats have addresses and files, or Anthropic's
/// `data`, which stands beside what it is of. Elsewhere it is words to a model, whatever it looks like.
fn is_place_of_data([name, before]: [&[u8]; 2], behind: &[u8], text: &[u8]) -> bool {
    let says_what = |name: &[u8]| [&b"media_type"[..], b"type", b"format", b"filename"].contains(&name);
    let next = || {
        let rest = behind.trim_ascii_start().strip_prefix(b",")?.trim_ascii_start().strip_prefix(b"\"")?;
        rest.get(..memchr::memchr(b'"', rest)?)
    };
    match name {
        b"url" | b"image_url" => text.starts_with(b"data:"),
        b"file_data" => true,
        b"data" => says_what(before) || next().is_some_and(says_what),
        _ => false,
    }
}

/// Whether a text is base64, perhaps behind the beginning of a data URL.
fn is_base64(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte);
    text.iter().skip(128).all(is_digit)
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
    fn data_in_a_request_that_is_not_read_counts_as_a_picture() {
        let base64 = "iVBORw0KGgo/+\\/".repeat(10_000);
        let url = format!("data:image/png;base64,{base64}");
        let text = "Some words, and more. ".repeat(1_000);
        for picture in [
            format!("{{\"image_url\":\"{url}\"}}"),
            format!("{{\"image_url\":{{\"url\":\"{url}\"}}}}"),
            format!("{{\"filename\":\"a\",\"file_data\" : \"{url}\"}}"),
            format!("{{\"media_type\":\"image/png\",\"data\":\"{base64}\"}}"),
            format!("{{\"data\":\"{base64}\" , \"format\":\"wav\"}}"),
        ] {
            let body = format!("{{\"a\":[{picture}],\"b\":[\"{text}\",{picture}]}}");
            let expected = (text.len() as u64).div_ceil(BYTES_A_TOKEN) + 2 * PICTURE;
            assert!(estimate_tokens_of(body.as_bytes()).abs_diff(expected) < 60, "{picture:.60}");
        }
        for odd in ["", "\"", "{\"a\":\"b", &"\"".repeat(20_001), &url] {
            assert!(estimate_tokens_of(odd.as_bytes()) <= odd.len() as u64, "{odd:.20}");
        }
    }

    #[test]
    fn a_text_without_blanks_is_counted_as_the_text_that_it_is() {
        let url = format!("data:image/png;base64,{}", "QUJD".repeat(20_000));
        for text in
            ["acgt".repeat(20_000), "/usr/lib".repeat(9_000), r"\u949f".repeat(9_000), r"abc\n".repeat(9_000), url]
        {
            for field in ["content", "text", "prompt", "input", "arguments", "data"] {
                let body = format!("{{\"messages\":[{{\"role\":\"user\",\"{field}\":\"{text}\"}}]}}");
                let least = text.len() as u64 / BYTES_A_TOKEN;
                assert!(estimate_tokens_of(body.as_bytes()) >= least, "{field} {text:.20}");
            }
        }
    }

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
