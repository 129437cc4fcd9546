//! The offering side: takes calls from the fleet and makes them at the local server.

mod incoming;
mod instance;
mod offers;
mod peers;
mod running;
mod sending;

pub(crate) use self::{instance::Instance, offers::Offers};
