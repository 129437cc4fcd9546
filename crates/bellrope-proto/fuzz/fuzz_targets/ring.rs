//! `cargo fuzz run -s none ring`: see [`bellrope_proto_fuzz::ring`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_proto_fuzz::ring(input));
