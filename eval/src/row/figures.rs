//! The figures of a row that was read: what cannot be is refused, so that no average takes it in.

use serde::{Deserialize, Deserializer, de::Error};

/// What a figure can be.
struct Figure {
    what: &'static str,
    range: &'static str,
    can_be: fn(f64) -> bool,
}

const PART: Figure = Figure {
    what: "a score of",
    range: "0 to 1",
    can_be: |value| (0.0..=1.0).contains(&value),
};
const SECONDS: Figure = Figure {
    what: "a time in seconds of",
    range: "0 or more",
    can_be: |value| value.is_finite() && value >= 0.0,
};
const PERCENT: Figure = Figure {
    what: "a depth in percent of",
    range: "0 to 100",
    can_be: |value| (0.0..=100.0).contains(&value),
};

impl Figure {
    fn check<E: Error>(&self, value: f64) -> Result<f64, E> {
        if (self.can_be)(value) {
            return Ok(value);
        }
        let Self { what, range, .. } = self;
        // As `1e308`, not as 309 digits.
        Err(E::custom(format_args!(
            "{what} {value:?}, where {range} can be"
        )))
    }

    fn read<'de, D: Deserializer<'de>>(&self, from: D) -> Result<f64, D::Error> {
        self.check(f64::deserialize(from)?)
    }

    fn read_if_any<'de, D: Deserializer<'de>>(&self, from: D) -> Result<Option<f64>, D::Error> {
        let value = Option::<f64>::deserialize(from)?;
        value.map(|value| self.check(value)).transpose()
    }
}

pub(super) fn part<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    PART.read(from)
}

pub(super) fn part_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    PART.read_if_any(from)
}

pub(super) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    SECONDS.read(from)
}

pub(super) fn seconds_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    SECONDS.read_if_any(from)
}

pub(super) fn percent_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    PERCENT.read_if_any(from)
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
