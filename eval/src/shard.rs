//! A run that is spread over several machines.

use crate::Error;
use std::str::FromStr;

/// One part of a run: `1/4` is the first of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 1, count: 1 }
    }
}

impl Shard {
    /// Whether the job of that number belongs to this shard.
    pub fn owns(self, job: usize) -> bool {
        job % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let numbers = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err(Error::Option(format!(
                "shard `{text}` is not i/n with i from 1 to n, such as 1/4"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_has_one_owner() {
        let shards = ["1/3", "2/3", "3/3"].map(|text| text.parse::<Shard>().unwrap());
        for job in 0..9 {
            assert_eq!(shards.iter().filter(|shard| shard.owns(job)).count(), 1);
        }
    }

    #[test]
    fn wrong_ones_are_named() {
        for wrong in ["0/2", "3/2", "1", "a/b"] {
            let message = wrong.parse::<Shard>().unwrap_err().to_string();
            assert!(message.contains("is not i/n"), "{message}");
        }
    }
}
