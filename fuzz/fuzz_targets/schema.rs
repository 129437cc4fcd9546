//! `cargo fuzz run -s none schema`: see [`bellrope_fuzz_targets::schema`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::schema(input));
