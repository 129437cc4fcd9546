//! `cargo fuzz run -s none frame`: see [`bellrope_proto_fuzz::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_proto_fuzz::frame(input));
