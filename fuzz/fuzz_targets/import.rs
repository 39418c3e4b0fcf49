//! What it checks is in `src/import.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pakv_fuzz::import::run(data));
