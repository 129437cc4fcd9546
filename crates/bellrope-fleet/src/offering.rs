//! The offering side: takes calls from the fleet and makes them at the local server.

mod guests;
mod incoming;
mod instance;
mod offers;
mod peers;
mod replay;
mod running;
mod sending;
mod shares;
#[cfg(feature = "fuzzing")]
mod strangers;

#[cfg(feature = "fuzzing")]
pub(crate) use self::strangers::OfferingSide;
pub(crate) use self::{guests::Guests, instance::Instance, offers::Offers};
