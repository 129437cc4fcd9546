//! Rings, connections and what becomes of calls, without clock, runtime or process: everything in this program runs in
//! threads of one process and looks at nothing but its own memory.

mod both;
mod compact_ring;
mod connection;
mod described;
mod hostile_memory;
mod ring;
mod ring_model;
mod rules;
mod simulation;
mod transfers;
