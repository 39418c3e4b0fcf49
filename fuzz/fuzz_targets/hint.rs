//! What it checks is in `src/hint.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pakv_fuzz::hint::run(data));
