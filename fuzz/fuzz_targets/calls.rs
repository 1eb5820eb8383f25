//! Calls of the public functions, as libFuzzer makes their bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kldiv_fuzz::call(data));
