//! `cargo fuzz run -s none handshake`: see [`bellrope_proto_fuzz::handshake`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_proto_fuzz::handshake(input));
