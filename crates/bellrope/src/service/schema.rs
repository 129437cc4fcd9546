//! What the values of a service look like, so that both sides can tell whether they mean the same.
//!
//! Nobody writes a schema: it is found by having serde read a value of the type, and looking at what it asks for. So it says
//! what travels, and not what a type is called in the sources or what is written about it.

mod announced;
mod asking;
mod checked;
mod contents;
mod difference;
mod distances;
mod found;
mod listed;
mod model;
mod offers;
mod other_values;
mod reading;
mod refused;
mod said;
mod steps;
mod tracing;
mod variants;
mod ways;
mod writing;

pub use self::model::{Form, Schema, Shape, Type};
pub(crate) use self::{
    difference::between,
    model::SchemaQuestion,
    tracing::{KnownTypes, schema_of},
};

/// The message type by which a server hands out the [schema](Schema) of a method: `{"method": "Files.read"}` as JSON.
pub const SCHEMA: &str = "bellrope.schema";
