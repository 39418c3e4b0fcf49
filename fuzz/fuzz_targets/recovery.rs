//! What it checks is in `src/recovery.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pakv_fuzz::recovery::run(data));
