//! The commands of the program, a module each. `serve` stands beside this one, and what measures in `bellrope_measure`.

pub(crate) mod acp;
pub(crate) mod breaker;
pub(crate) mod call;
pub(crate) mod chat;
pub(crate) mod config;
pub(crate) mod doctor;
#[cfg(feature = "fleet")]
pub(crate) mod fleet;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod list;
pub(crate) mod manual;
pub(crate) mod models;
#[cfg(not(feature = "fleet"))]
pub(crate) mod no_fleet;
pub(crate) mod stop;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod usage;
