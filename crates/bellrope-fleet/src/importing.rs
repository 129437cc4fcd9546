//! The importing side: a handler for each message type of the fleet, which forwards its calls.

mod attempt;
mod calls;
mod discovery;
mod importer;

pub(crate) use self::{
    discovery::{Imports, Types},
    importer::Importer,
};
