//! Servers that start by themselves, and end by themselves. Tests of this program start processes: the program itself, in
//! the part of a server or of a client.

mod detached;
mod endings;
mod failures;
mod parts;
mod races;
mod versions;
