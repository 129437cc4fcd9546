//! `cargo fuzz run -s none ring`: see [`bellrope_fuzz_targets::ring`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::ring(input));
