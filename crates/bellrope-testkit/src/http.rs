//! HTTP responses as a test reads them off a socket.

/// The status, the head and the body of a response that was read to the end of its connection. Chunks are joined.
///
/// # Panics
/// If it is no response.
#[must_use]
#[track_caller]
pub fn response(text: &str) -> (u16, String, String) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { joined(body) } else { body.to_owned() };
    (status, head.to_owned(), body)
}

/// The data of a chunked body.
fn joined(mut body: &str) -> String {
    let mut data = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        data.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").unwrap();
    }
    data
}
