//! Writes generated filler to stdout: `cargo run --release -p headkv-haystack --example filler -- SEED BYTES > village.txt`
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1);
    let mut number = |name: &str| {
        let text = numbers.next();
        let text = text.ok_or_else(|| format!("{name} is missing: filler SEED BYTES"))?;
        text.parse::<u64>()
            .map_err(|_| format!("{name} is a number, not {text}"))
    };
    let (seed, bytes) = (number("SEED")?, number("BYTES")?);
    let text = headkv_haystack::text::generate(seed, usize::try_from(bytes)?);
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
