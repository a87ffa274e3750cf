//! Target `mqtt` of cargo-fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepstate_fuzz_bodies::mqtt(data));
