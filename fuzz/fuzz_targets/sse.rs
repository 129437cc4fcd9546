//! `cargo fuzz run -s none sse`: see [`bellrope_fuzz_targets::sse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::sse(input));
