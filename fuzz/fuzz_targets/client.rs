//! `cargo fuzz run -s none client`: see [`bellrope_fuzz_targets::client`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::client(input));
