//! bellrope
fn main() {}
