//! `cargo fuzz run -s none answers`: see [`bellrope_fuzz_targets::answers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::answers(input));
