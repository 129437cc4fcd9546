//! `cargo fuzz run -s none config`: see [`bellrope_gateway_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_gateway_fuzz::config(input));
