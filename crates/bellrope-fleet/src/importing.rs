//! The importing side: a handler for each message type of the fleet, which forwards its calls.

mod attempt;
mod calls;
mod choice;
mod discovery;
mod importer;
mod programs;
mod schemas;
#[cfg(feature = "fuzzing")]
mod strangers;

#[cfg(feature = "fuzzing")]
pub(crate) use self::strangers::ImportingSide;
pub(crate) use self::{
    choice::{Choices, KnownInstance},
    discovery::{Imports, Types, in_front},
    importer::Importer,
};
