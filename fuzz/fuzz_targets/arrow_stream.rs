#![no_main]

// Arrow's own panics become errors; any other unwinds out of the target, which ends it.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        headkv_fuzz::damage::arrow_stream(bytes);
    }
);
