//! Numbers of bytes as people write them.

/// A number of bytes, with or without a unit.
///
/// # Errors
/// What to write instead.
pub fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err("use a number and KiB, MiB or GiB, such as 8GiB".into()),
    };
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|_| "use a whole number and a unit, such as 8GiB".to_string())?;
    let bytes = number.checked_mul(unit).filter(|bytes| *bytes > 0);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| "0, or too large a number".into())
}

/// As [`bytes`]; 0 is allowed.
///
/// # Errors
/// As [`bytes`].
pub fn bytes_or_none(text: &str) -> Result<usize, String> {
    match text.trim() {
        "0" => Ok(0),
        text => bytes(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("8GiB"), Ok(8 << 30));
        assert_eq!(bytes("512 kb"), Ok(512_000));
        assert_eq!(bytes("100"), Ok(100));
        for wrong in ["", "GiB", "-1", "1.5GiB", "0", "9x", "99999999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes_or_none("0"), Ok(0));
        assert_eq!(bytes_or_none("1MiB"), Ok(1 << 20));
    }
}
