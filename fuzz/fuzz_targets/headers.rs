#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lifecycle::fuzzing::headers(data));
