//! Cutting text, and reading it.

/// Where to cut a text so that at most so many bytes are left, and no character is cut.
pub(crate) fn boundary(text: &str, most: usize) -> usize {
    let mut at = text.len().min(most);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The bytes that this is in base64, in either alphabet, with or without its padding and with line ends anywhere. `None`: it is
/// none.
///
/// ```
/// assert_eq!(bellrope_gateway::text::from_base64("YmVsbA").as_deref(), Some(&b"bell"[..]));
/// ```
pub fn from_base64(data: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(data.len() / 4 * 3), 0, 0_u32);
    for byte in data.trim_end_matches(|c: char| c == '=' || c.is_ascii_whitespace()).bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            byte if byte.is_ascii_whitespace() => continue,
            _ => return None,
        };
        (held, bits) = (held << 6 | u32::from(value), bits + 6);
        if bits >= 8 {
            bits -= 8;
            // The byte above those bits.
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// Bytes in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The text that this is in base64. `None`: it is no text.
pub(crate) fn of_base64(data: &str) -> Option<String> {
    String::from_utf8(from_base64(data)?).ok()
}

/// The text of a file of this media type, whose content is in base64. `None`: it is none of text.
pub(crate) fn of_file(media_type: &str, data: &str) -> Option<String> {
    let kind = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_text = kind.starts_with("text/") || matches!(&*kind, "application/json" | "application/xml");
    is_text.then(|| of_base64(data)).flatten()
}

/// The text of a file that came as a data URL. `None`: it is none of text.
pub(crate) fn of_data_url(url: &str) -> Option<String> {
    let (media_type, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    of_file(media_type, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_text_is_read_however_it_is_written() {
        for (data, text) in [
            ("", ""),
            ("QQ==", "A"),
            ("QUI=", "AB"),
            ("QUJD", "ABC"),
            ("QUJ\r\nD\n", "ABC"),
            ("w7wg8J-YgA", "\u{fc} \u{1f600}"),
            ("w7wg8J+YgA==", "\u{fc} \u{1f600}"),
        ] {
            assert_eq!(of_base64(data).as_deref(), Some(text), "{data}");
        }
        for wrong in ["Q!", "QQ==QQ==", "/w==", "w7"] {
            assert_eq!(of_base64(wrong), None, "{wrong}");
        }
        assert_eq!(of_file("Text/Markdown; charset=utf-8", "QQ==").as_deref(), Some("A"));
        assert_eq!(of_file("application/pdf", "QQ=="), None);
        assert_eq!(of_data_url("data:text/plain;charset=utf-8;base64,QQ==").as_deref(), Some("A"));
        assert_eq!(of_data_url("data:image/png;base64,QQ=="), None);
    }
}
