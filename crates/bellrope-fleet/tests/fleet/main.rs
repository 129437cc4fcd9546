//! Fleets of real servers and a real `nats-server`. Without that program the tests are skipped, and say so.

mod calls;
mod deaths;
mod foreign;
mod history;
mod refusals;
mod servers;
