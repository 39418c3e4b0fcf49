//! What it checks is in `src/operations.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pakv_fuzz::operations::run(data));
