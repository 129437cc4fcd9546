//! `cargo fuzz run -s none answers`: see [`bellrope_gateway_fuzz::answers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_gateway_fuzz::answers(input));
