//! `cargo fuzz run -s none postcard`: see [`bellrope_fuzz_targets::postcard`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bellrope_fuzz_targets::postcard(input));
