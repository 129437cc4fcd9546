//! `cargo fuzz run -s none stream`: see [`bellrope_fuzz_targets::stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::stream(input));
