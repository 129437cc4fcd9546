//! `cargo fuzz run -s none client`: see [`bellrope_proto_fuzz::client`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_proto_fuzz::client(input));
