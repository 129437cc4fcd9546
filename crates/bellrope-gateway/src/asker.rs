//! Who asks, and by which way.

use std::fmt;

/// The longest name, in bytes: it is kept with every request.
const MAX_NAME: usize = 48;

/// Who asks for an answer, and by which way, as far as it is known. Never part of the JSON.
///
/// ```
/// use bellrope_gateway::{Asker, AskerKind};
///
/// let asker = Asker::new(AskerKind::Process, "my\neditor", "ai.chat");
/// assert_eq!((asker.name(), asker.endpoint), ("myeditor", "ai.chat"));
/// assert_eq!(Asker::default().name(), "unknown");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asker {
    /// How far its name can be believed.
    pub kind: AskerKind,
    name: String,
    /// Whether this process has the request in its books already, in the name of this asker.
    pub(crate) is_booked: bool,
    /// Whether it asks on somebody's behalf who keeps books, too: what an answer took then says who answered.
    pub(crate) keeps_books: bool,
    /// The message type or the path that was asked; empty for a call within the process.
    pub endpoint: &'static str,
}

/// How far the name of an [`Asker`] can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum AskerKind {
    /// It has the token of this name: nobody else has.
    Token,
    /// It is a process of this name, by the kernel. A process chooses its name.
    Process,
    /// It says that this is its name.
    Program,
    /// Nothing is known.
    #[default]
    Unknown,
}

impl Asker {
    /// Of a name only letters, digits and plain signs are kept, and at most 48 of them.
    #[must_use]
    pub fn new(kind: AskerKind, name: &str, endpoint: &'static str) -> Self {
        let plain = |c: &char| c.is_ascii_alphanumeric() || "._-+:@/".contains(*c);
        let name: String = name.chars().filter(plain).take(MAX_NAME).collect();
        let kind = if name.is_empty() { AskerKind::Unknown } else { kind };
        Self { kind, name, is_booked: false, keeps_books: false, endpoint }
    }

    /// The name; `unknown` if there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.name.is_empty() { AskerKind::Unknown.word() } else { &self.name }
    }
}

impl AskerKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Token, Self::Process, Self::Program, Self::Unknown];

    /// The kind in one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Process => "process",
            Self::Program => "program",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for AskerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
