//! Ids for calls whose provider gave none.

/// What tells one answer from others: a hash of its own id and time, where the provider gives them.
#[derive(Debug, Clone, Copy)]
pub(in crate::providers::formats) struct AnswerHash(u64);

impl Default for AnswerHash {
    fn default() -> Self {
        // The parameters of FNV-1a with 64 bits.
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl AnswerHash {
    /// The hash with more text in it.
    pub(in crate::providers::formats) fn with(self, text: &str) -> Self {
        // A byte that is in no text keeps `ab`, `c` apart from `a`, `bc`.
        let bytes = text.bytes().chain([0xff]);
        Self(bytes.fold(self.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }
}

/// An id that depends on the answer and the call alone, so that it is the same for a stream and a whole answer, and
/// differs between the turns of a conversation. Every format accepts its letters.
pub(super) fn made_id(answer: AnswerHash, number: usize, name: &str, arguments: &str) -> String {
    let AnswerHash(hash) = answer.with(&number.to_string()).with(name).with(arguments);
    format!("call_{hash:016x}")
}
