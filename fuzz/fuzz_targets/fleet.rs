//! `cargo fuzz run -s none fleet`: see [`bellrope_fuzz_targets::fleet`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::fleet(input));
