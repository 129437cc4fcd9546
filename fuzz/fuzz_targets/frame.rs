//! `cargo fuzz run -s none frame`: see [`bellrope_fuzz_targets::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::frame(input));
