//! `cargo fuzz run -s none server`: see [`bellrope_fuzz_targets::server`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::server(input));
