//! What it checks is in `src/shell_line.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pakv_fuzz::shell_line::run(data));
