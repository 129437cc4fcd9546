//! The bodies of answers, and the headers that all answers have.

use std::convert::Infallible;

use bellrope_gateway::AnswerRoom;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Bytes,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};

/// The body of an answer.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// The header that says what of a request was left out, changed or put in other words on its way to the provider.
pub(super) const NOTES: &str = "x-bellrope-notes";
/// The longest value of it, in bytes: clients bound the head of an answer, too.
const MAX_NOTES_HEADER: usize = 4 * 1024;

/// A whole answer that holds its room until it has gone out.
struct Roomy {
    bytes: Bytes,
    _room: AnswerRoom,
}

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) fn full_with_room(body: impl Into<Bytes>, room: AnswerRoom) -> AnswerBody {
    full(Bytes::from_owner(Roomy { bytes: body.into(), _room: room }))
}

pub(super) fn full(body: impl Into<Bytes>) -> AnswerBody {
    Full::new(body.into()).boxed_unsync()
}

pub(super) fn response(status: StatusCode, media_type: &'static str, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An answer whose header [`NOTES`] says what of the request was not sent as it came. Of notes that are too long for a
/// header it has the first.
pub(super) fn noted(mut response: Response<AnswerBody>, notes: &[String]) -> Response<AnswerBody> {
    let mut value = String::new();
    for note in notes {
        let plain = note.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
        let separator = if value.is_empty() { "" } else { "; " };
        if value.len() + separator.len() + note.len() > MAX_NOTES_HEADER {
            break;
        }
        value.push_str(separator);
        value.extend(plain);
    }
    // It holds what a header may hold.
    if let Some(value) = HeaderValue::from_str(&value).ok().filter(|value| !value.is_empty()) {
        response.headers_mut().insert(NOTES, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fault 75.
    #[test]
    fn notes_are_a_header_of_plain_characters_and_bounded_length() {
        let of = |notes: &[String]| {
            let response = noted(response(StatusCode::OK, "text/plain", full(Vec::new())), notes);
            response.headers().get(NOTES).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a\r\nb".to_owned(), "\u{fc}".to_owned()]).as_deref(), Some("a??b; ?"));
        let many = vec!["x".repeat(256); 32];
        assert_eq!(of(&many).unwrap().len(), 256 + 14 * 258);
    }
}
