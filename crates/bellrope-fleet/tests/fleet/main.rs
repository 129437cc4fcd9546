//! Fleets of real servers and a real `nats-server`. Without that program the tests are skipped, and say so.

mod calls;
mod cases;
mod choice;
mod deaths;
mod foreign;
mod history;
mod hostile;
mod model;
mod networks;
mod partitions;
mod refusals;
mod schemas;
mod servers;
mod slow;
mod variants;
mod who_asks;
