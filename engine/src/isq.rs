//! Quantization of a model's weights as it loads.

use crate::Error;
use mistralrs_core::{IsqType, parse_isq_value};
use std::{fmt, str::FromStr};

/// A format of blocks that linear layers are quantized in while a model loads on the CPU; embeddings stay as they are.
///
/// A layer whose inputs are no whole blocks takes a format of smaller blocks, or stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isq(IsqType);

/// Formats that the CPU's kernels multiply, and their names.
const FORMATS: [(IsqType, &str); 10] = [
    (IsqType::Q4_0, "q4_0"),
    (IsqType::Q4_1, "q4_1"),
    (IsqType::Q5_0, "q5_0"),
    (IsqType::Q5_1, "q5_1"),
    (IsqType::Q8_0, "q8_0"),
    (IsqType::Q2K, "q2k"),
    (IsqType::Q3K, "q3k"),
    (IsqType::Q4K, "q4k"),
    (IsqType::Q5K, "q5k"),
    (IsqType::Q6K, "q6k"),
];

impl Isq {
    /// The runtime's name of it.
    pub(crate) fn kind(self) -> IsqType {
        self.0
    }
}

impl FromStr for Isq {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let parsed = parse_isq_value(name, None).ok();
        let known = parsed.filter(|parsed| FORMATS.iter().any(|(format, _)| format == parsed));
        known.map(Self).ok_or_else(|| Error::Isq(name.into()))
    }
}

impl fmt::Display for Isq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FORMATS.iter().find(|(format, _)| *format == self.0);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_runtimes_and_others_are_refused() {
        for (format, name) in FORMATS {
            for name in [name.to_string(), name.to_uppercase()] {
                assert_eq!(name.parse::<Isq>().unwrap(), Isq(format));
            }
            assert_eq!(Isq(format).to_string(), name);
        }
        assert_eq!("4".parse::<Isq>().unwrap(), Isq(IsqType::Q4K));
        for name in ["q8k", "hqq4", "afq4", "fp8", "", "q9"] {
            let message = name.parse::<Isq>().unwrap_err().to_string();
            assert!(message.contains("q4k"), "{message}");
        }
    }
}
