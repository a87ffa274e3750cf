//! Target `keep` of cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepstate_fuzz_bodies::keep(data));
