//! What the events of an answer say of the calls in it, whatever the format.

use super::form::Form;
use crate::json::TextPiece;

/// What one event says of a call.
#[derive(Debug, Default)]
pub(in crate::providers::formats) struct CallPiece {
    pub(in crate::providers::formats) place: Place,
    pub(in crate::providers::formats) id: Option<String>,
    /// What to take for an id if none comes.
    pub(in crate::providers::formats) spare_id: Option<String>,
    pub(in crate::providers::formats) name: Option<String>,
    /// Whether the name is whole, as in formats that send it once.
    pub(in crate::providers::formats) is_named: bool,
    pub(in crate::providers::formats) arguments: Arguments,
}

/// Which call a piece belongs to, as far as the server says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::providers::formats) enum Place {
    /// The one with this index.
    Index(u64),
    /// The item with this id, which is not the call's.
    Item(String),
    /// The one at this place of the event's list, where no usable index is given.
    InList(usize),
    /// The latest one.
    #[default]
    Latest,
}

/// What a piece says of the arguments.
#[derive(Debug, Default)]
pub(in crate::providers::formats) enum Arguments {
    #[default]
    None,
    /// More of their text.
    More(TextPiece),
    /// All of their text, whether or not it came before.
    Whole(String),
    /// All of their text, unless more comes: then that is all.
    Start(String),
}

impl Arguments {
    /// Whether they are a whole object by themselves.
    pub(super) fn is_whole(&self) -> bool {
        let text = match self {
            Self::None => return false,
            Self::More(text) => text.as_str(),
            Self::Whole(text) | Self::Start(text) => text,
        };
        let mut form = Form::default();
        form.push(text);
        form.is_whole()
    }
}
