//! What writes an answer in a tool's format.

use serde::Serialize;
use serde_json::Value;

use super::fault::Fault;
use crate::message::{ChatResponse, Chunk, ErrorInfo};

/// Writes one answer in a tool's format: either as a whole, or as server-sent events that end with the terminal chunk.
pub trait AnswerWriter: Send {
    /// Is told about how many tokens the request has, for what has to be said of them where no provider counts them.
    fn expect(&mut self, _input_tokens: u64) {}

    /// A whole answer.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    fn whole(&mut self, response: ChatResponse) -> serde_json::Result<Vec<u8>>;

    /// Hands the items of an answer that is whole, which the next request may name by their ids, to `keep`, one at a time: as values
    /// they take many times their text. Those of more than 64 KiB of text are left out.
    fn items(&self, _keep: &mut dyn FnMut(&Value)) {}

    /// Appends the events that come before the first piece.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Appends the events of one piece.
    fn chunk(&mut self, chunk: Chunk, out: &mut Vec<u8>);

    /// Bytes of the answer that are held back, until they can go out or for the last event.
    fn held(&self) -> usize {
        0
    }

    /// Whether a fault that comes before the first piece of a stream is to be told in the stream, because the tool reads it
    /// there alone.
    fn tells_in_stream(&self, _fault: &Fault) -> bool {
        false
    }

    /// Appends the one event that ends an answer which failed before its first piece.
    fn fail(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        let info = ErrorInfo {
            code: fault.code().to_owned(),
            message: fault.message().to_owned(),
            retryable: fault.retryable,
            ..ErrorInfo::default()
        };
        self.chunk(Chunk::Error(info), out);
    }

    /// Appends what keeps a silent connection alive and is nothing to the reader.
    fn ping(&mut self, out: &mut Vec<u8>) {
        comment("waiting", out);
    }
}

/// A comment in a stream.
pub(super) fn comment(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b": ");
    out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    out.extend_from_slice(b"\n\n");
}

/// An event without a name.
pub(super) fn data(object: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    // Plain structs with text keys, and into memory: writing them cannot fail.
    let _ = serde_json::to_writer(&mut *out, object);
    out.extend_from_slice(b"\n\n");
}

/// An event whose name stands before it, and within it as `type`.
pub(super) fn named(name: &str, object: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    data(object, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_one_line_whatever_it_says() {
        let mut out = Vec::new();
        comment("a\r\nb\n\ndata: c", &mut out);
        assert_eq!(out, b": a  b  data: c\n\n");
    }
}
