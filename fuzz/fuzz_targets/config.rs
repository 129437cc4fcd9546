//! `cargo fuzz run -s none config`: see [`bellrope_fuzz_targets::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::config(input));
