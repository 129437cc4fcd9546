//! What implements a service is shared by all threads of a server, and outlives who gave it.

use std::cell::Cell;

#[bellrope::service]
trait Counts {
    fn next(&self) -> u64;
    #[blocking]
    fn slowly(&self) -> u64;
}

struct Unshared(Cell<u64>);

#[bellrope::service]
impl Counts for Unshared {
    fn next(&self) -> u64 {
        self.0.replace(self.0.get() + 1)
    }

    fn slowly(&self) -> u64 {
        self.0.get()
    }
}

struct Borrowed<'a>(&'a str);

#[bellrope::service]
impl Counts for Borrowed<'_> {
    fn next(&self) -> u64 {
        self.0.len() as u64
    }

    fn slowly(&self) -> u64 {
        self.0.len() as u64
    }
}

fn main() {}
