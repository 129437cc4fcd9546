//! `cargo fuzz run -s none json`: see [`bellrope_fuzz_targets::json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::json(input));
