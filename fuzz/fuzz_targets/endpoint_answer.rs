#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    headkv_fuzz::damage::endpoint_answer(bytes);
});
