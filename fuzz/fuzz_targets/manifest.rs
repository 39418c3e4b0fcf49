//! What it checks is in `src/manifest.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pakv_fuzz::manifest::run(data));
