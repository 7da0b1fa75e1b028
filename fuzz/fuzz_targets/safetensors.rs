#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    headkv_fuzz::damage::safetensors(bytes);
});
