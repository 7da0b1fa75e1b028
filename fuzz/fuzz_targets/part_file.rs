#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| headkv_tests::damage::part_file(bytes));
