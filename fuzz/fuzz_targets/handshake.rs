//! `cargo fuzz run -s none handshake`: see [`bellrope_fuzz_targets::handshake`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::handshake(input));
