//! `cargo fuzz run -s none sse`: see [`bellrope_gateway_fuzz::sse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_gateway_fuzz::sse(input));
