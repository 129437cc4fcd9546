//! `cargo fuzz run -s none server`: see [`bellrope_proto_fuzz::server`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_proto_fuzz::server(input));
