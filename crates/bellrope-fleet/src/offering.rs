//! The offering side: takes calls from the fleet and makes them at the local server.

mod guests;
mod incoming;
mod instance;
mod offers;
mod peers;
mod replay;
mod running;
mod shares;

pub(crate) use self::{guests::Guests, instance::Instance, offers::Offers};
