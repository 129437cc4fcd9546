//! An estimate of the tokens of a request, for providers that cannot count.

use std::io::{self, Write};

use serde::Serialize;

use crate::input_tokens::InputTokens;
use crate::json::end_of_string;
use crate::message::{ChatRequest, Content, Part};

/// Bytes of text to a token: what English and code come to in the usual tokenizers, a little more than less.
pub const BYTES_A_TOKEN: u64 = 4;
/// What stands around each message, each part and each tool.
const AROUND: InputTokens = InputTokens { likely: 4, most: 4 };
/// What a picture is counted as. Providers go by its size, which is not known here.
const PICTURE: InputTokens = InputTokens { likely: 1_600, most: 4_800 };
/// A text without a blank is data rather than words from this length on, in bytes.
const DATA: usize = 8 * 1024;
/// One that stands where data stands, from this one on.
const LEAST_DATA: usize = 64;
/// What stands between two texts is looked through for numbers from this length on, in bytes.
const FEW_NUMBERS: usize = 16;

/// About how many tokens a request has, with its instructions, tools, calls, results and pictures. It is an estimate, and
/// no provider's count: good for a gauge, and not for a bill.
///
/// ```
/// use bellrope_gateway::{ChatRequest, inbound::estimate_tokens};
///
/// assert_eq!(estimate_tokens(&ChatRequest::user("Hello, who is there?")), 9);
/// ```
pub fn estimate_tokens(request: &ChatRequest) -> u64 {
    weigh_tokens(request).likely
}

/// How many tokens a request may have.
pub(crate) fn weigh_tokens(request: &ChatRequest) -> InputTokens {
    let system = request.system.as_deref().map_or_else(InputTokens::default, text);
    let tools = request.tools.iter().map(|tool| {
        let description = tool.description.as_deref().map_or_else(InputTokens::default, text);
        AROUND + text(&tool.name) + description + json(&tool.parameters)
    });
    let messages = request.messages.iter().map(|message| {
        AROUND
            + match &message.content {
                Content::Text(said) => text(said),
                Content::Parts(parts) => parts.iter().map(part).sum(),
            }
    });
    system + tools.sum::<InputTokens>() + messages.sum::<InputTokens>()
}

/// How many tokens a request may have of which only its bytes are known. Data in it, such as a picture, counts as one, and so
/// does the address of one. A list of tokens has as many as it has numbers.
pub(crate) fn estimate_tokens_of(json: &[u8]) -> InputTokens {
    let (mut tokens, mut known, mut bytes, mut from, mut at) = (InputTokens::default(), 0, 0, 0, 0);
    // The name of the field that is read, and of the one before.
    let mut names: [&[u8]; 2] = [b""; 2];
    while at < json.len() {
        let begin = memchr::memchr(b'"', &json[at..]).map_or(json.len(), |found| at + found);
        let between = &json[at..begin];
        if between.len() >= FEW_NUMBERS && matches!(names[0], b"input" | b"prompt") {
            known += numbers(between);
            bytes += at - from;
            tokens.most += most_of(&json[from..at]);
            from = begin;
        }
        if begin == json.len() {
            break;
        }
        let begin = begin + 1;
        let end = end_of_string(json, begin);
        let (text, rest) = (&json[begin..end.max(begin)], json.get(end + 1..).unwrap_or_default());
        if rest.trim_ascii_start().starts_with(b":") {
            names = [text, names[0]];
        } else if is_place_of_data(names, rest, text) && is_base64(text) {
            bytes += begin - from;
            tokens.most += most_of(&json[from..begin]);
            from = end.max(begin);
            tokens = tokens + PICTURE;
        } else if is_address_of_picture(names, text) {
            tokens = tokens + PICTURE;
        }
        at = (end + 1).min(json.len());
    }
    let rest = &json[from.min(json.len())..];
    let words = ((bytes + rest.len()) as u64).div_ceil(BYTES_A_TOKEN);
    tokens + InputTokens { likely: words + known, most: most_of(rest) + known }
}

/// How many numbers stand here.
fn numbers(text: &[u8]) -> u64 {
    let begins = |(at, byte): (usize, &u8)| byte.is_ascii_digit() && (at == 0 || !text[at - 1].is_ascii_digit());
    text.iter().enumerate().filter(|place| begins(*place)).count() as u64
}

/// How many tokens a text has at most in the usual tokenizers: one for two bytes, for each digit and the blank behind it, and
/// two for a letter of three bytes, as of Chinese.
fn most_of(text: &[u8]) -> u64 {
    sixths_of(text).div_ceil(6)
}

/// The same in sixths of a token.
fn sixths_of(text: &[u8]) -> u64 {
    let digits = pairs(text, |this, _| this.is_ascii_digit());
    let blanks = pairs(text, |this, next| this.is_ascii_digit() && next == b' ');
    let foreign = pairs(text, |this, _| this >= 0x80);
    3 * (text.len() as u64 + digits + blanks) + foreign
}

/// How many bytes are so with the one behind them.
fn pairs(text: &[u8], is_one: impl Fn(u8, u8) -> bool) -> u64 {
    // In parts that fit a byte, so that many are looked at in one step.
    let parts = text.chunks(255).zip(text.get(1..).unwrap_or_default().chunks(255));
    let part =
        |(these, next): (&[u8], &[u8])| these.iter().zip(next).map(|(a, b)| u8::from(is_one(*a, *b))).sum::<u8>();
    parts.map(|pair| u64::from(part(pair))).sum()
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
        b"file_data" => text.len() >= DATA,
        b"data" => text.len() >= LEAST_DATA && (says_what(before) || next().is_some_and(says_what)),
        _ => false,
    }
}

/// Whether a text in the first of these fields says where a picture is: the provider fetches it.
fn is_address_of_picture([name, before]: [&[u8]; 2], text: &[u8]) -> bool {
    let is_inside = matches!(name, b"url") && matches!(before, b"image_url" | b"type");
    (name == b"image_url" || is_inside) && text.starts_with(b"http") || name == b"file_id"
}

/// Whether a text is base64, perhaps behind the beginning of a data URL.
fn is_base64(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte);
    text.iter().skip(128).all(is_digit)
}

fn part(part: &Part) -> InputTokens {
    match part {
        Part::Text { text: said, .. } | Part::Reasoning { text: said, .. } => text(said),
        Part::Image { .. } => PICTURE,
        Part::ToolUse { name, input, .. } => AROUND + text(name) + json(input),
        Part::ToolResult { content, images, .. } => {
            AROUND + text(content) + images.iter().map(|_| PICTURE).sum::<InputTokens>()
        }
    }
}

/// The tokens of a value as JSON, which is not written for that.
fn json(value: &impl Serialize) -> InputTokens {
    struct Measured(u64, u64);

    impl Write for Measured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            self.1 += sixths_of(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut measured = Measured(0, 0);
    // What was read as JSON can be written as such.
    let _ = serde_json::to_writer(&mut measured, value);
    InputTokens { likely: measured.0.div_ceil(BYTES_A_TOKEN), most: measured.1.div_ceil(6) }
}

fn text(text: &str) -> InputTokens {
    InputTokens { likely: (text.len() as u64).div_ceil(BYTES_A_TOKEN), most: most_of(text.as_bytes()) }
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
            let expected = (text.len() as u64).div_ceil(BYTES_A_TOKEN) + 2 * PICTURE.likely;
            assert!(estimate_tokens_of(body.as_bytes()).likely.abs_diff(expected) < 60, "{picture:.60}");
            let most = estimate_tokens_of(body.as_bytes()).most;
            assert!(most.abs_diff(text.len() as u64 / 2 + 2 * PICTURE.most) < 120, "{most} {picture:.60}");
        }
        for odd in ["", "\"", "{\"a\":\"b", &"\"".repeat(20_001), &url] {
            assert!(estimate_tokens_of(odd.as_bytes()).most <= odd.len() as u64, "{odd:.20}");
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
                assert!(estimate_tokens_of(body.as_bytes()).likely >= least, "{field} {text:.20}");
            }
        }
    }

    #[test]
    fn a_small_picture_and_the_address_of_one_count_as_one_too() {
        for picture in [
            json!({"image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}),
            json!({"image_url": "data:image/png;base64,iVBORw0KGgo="}),
            json!({"image_url": {"url": "https://example.com/a.png"}}),
            json!({"type": "input_image", "image_url": "https://example.com/a.png"}),
            json!({"source": {"type": "url", "url": "https://example.com/a.png"}}),
            json!({"type": "input_image", "file_id": "file-1"}),
            json!({"source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo/".repeat(9)}}),
        ] {
            let tokens = estimate_tokens_of(picture.to_string().as_bytes());
            assert!((1_600..1_700).contains(&tokens.likely) && tokens.most >= 4_800, "{picture}: {tokens:?}");
        }
        let call = json!({"input": {"path": "a", "url": "https://example.com"}});
        assert!(estimate_tokens_of(call.to_string().as_bytes()).most < 60);
    }

    #[test]
    fn a_list_of_tokens_has_as_many_as_it_has_numbers() {
        for count in [30_u64, 3_000, 20_000] {
            let list: Vec<u64> = (0..count).map(|number| number * 7 % 200_000).collect();
            for body in [json!({"input": list}), json!({"prompt": [list]}), json!({"input": list, "model": "embed"})] {
                let InputTokens { likely, most } = estimate_tokens_of(body.to_string().as_bytes());
                assert!((count..count + 20).contains(&likely) && (count..count + 20).contains(&most), "{count} {most}");
            }
        }
        // They are texts elsewhere.
        let schema = json!({"enum": (0..1_000).collect::<Vec<u64>>()}).to_string();
        assert!(estimate_tokens_of(schema.as_bytes()).most > 1_500);
    }

    #[test]
    fn dense_texts_have_no_more_than_is_said() {
        let rows = [
            // A digit, and the blank before it, may be a token each.
            ("1 2 3 4 ".repeat(2_500), 20_000),
            ("0123456789".repeat(100), 1_000),
            // Letters of other scripts are one or two.
            ("\u{949f}".repeat(1_000), 2_000),
            ("The quick brown fox jumps over it. ".repeat(100), 1_000),
        ];
        for (text, least) in rows {
            let request = ChatRequest::user(&text);
            let body = json!({"messages": [{"role": "user", "content": text}]}).to_string();
            for tokens in [weigh_tokens(&request), estimate_tokens_of(body.as_bytes())] {
                assert!(tokens.most >= least && tokens.most >= tokens.likely, "{tokens:?} {text:.20}");
                assert!(tokens.most <= body.len() as u64 + 4, "{tokens:?} {text:.20}");
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
