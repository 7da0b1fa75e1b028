//! The figures of a row that was read: what cannot be is refused, so that no average takes it in.

use serde::{Deserialize, Deserializer, de::Error};

/// 0 to 1.
pub(super) fn part<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    read(from, "a score of", "0 to 1", |value| {
        (0.0..=1.0).contains(&value)
    })
}

pub(super) fn part_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    struct Part(#[serde(deserialize_with = "part")] f64);
    Ok(Option::<Part>::deserialize(from)?.map(|part| part.0))
}

/// A finite time.
pub(super) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    read(from, "a time in seconds of", "0 or more", |value| {
        value.is_finite() && value >= 0.0
    })
}

pub(super) fn seconds_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    struct Seconds(#[serde(deserialize_with = "seconds")] f64);
    Ok(Option::<Seconds>::deserialize(from)?.map(|seconds| seconds.0))
}

/// 0 to 100.
fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    read(from, "a depth in percent of", "0 to 100", |value| {
        (0.0..=100.0).contains(&value)
    })
}

pub(super) fn percent_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    struct Percent(#[serde(deserialize_with = "percent")] f64);
    Ok(Option::<Percent>::deserialize(from)?.map(|percent| percent.0))
}

fn read<'de, D: Deserializer<'de>>(
    from: D,
    what: &str,
    range: &str,
    can_be: fn(f64) -> bool,
) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    if can_be(value) {
        return Ok(value);
    }
    // As `1e308`, not as 309 digits.
    Err(D::Error::custom(format_args!(
        "{what} {value:?}, where {range} can be"
    )))
}

#[cfg(test)]
mod tests {
    use crate::row::{Row, tests::row};

    #[test]
    fn figures_that_cannot_be_are_refused() {
        let whole = serde_json::to_value(row("1", Ok("yes"))).unwrap();
        let read = |field: &str, value: f64| {
            let mut changed = whole.clone();
            changed[field] = value.into();
            serde_json::from_value::<Row>(changed).map_err(|e| e.to_string())
        };
        for value in [7.0, -5.0, 1e308, -0.001] {
            for field in ["score", "f1", "rouge1", "rouge_l"] {
                let message = read(field, value).unwrap_err();
                assert!(message.contains("where 0 to 1 can be"), "{message}");
                assert!(message.len() < 60, "{message}");
            }
        }
        for field in ["prompt_seconds", "decode_seconds"] {
            assert!(read(field, -1.0).unwrap_err().contains("0 or more can be"));
            assert!(read(field, 1.5).is_ok());
        }
        for depth in [-1.0, 100.5, 1e30] {
            let message = read("depth", depth).unwrap_err();
            assert!(message.contains("where 0 to 100 can be"), "{message}");
        }
        assert_eq!(read("depth", 100.0).unwrap().depth, Some(100.0));
        assert_eq!(read("score", 1.0).unwrap(), row("1", Ok("yes")));
    }
}
