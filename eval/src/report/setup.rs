//! Which rows may be averaged: those that differ in sample and variant only.

use crate::{Row, datasets::APART, row::short};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the rows of one table have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Setup {
    /// `needle`, `longbench`, `babilong` or `ruler`.
    pub benchmark: String,
    /// The model's name.
    pub model: String,
    /// The protocol or template of the prompts.
    pub protocol: String,
    /// `cpu`, `cuda` or `endpoint`.
    pub backend: String,
    /// SHA-256 over the model's files; for an endpoint, its address.
    pub model_digest: String,
    /// The version of the results.
    pub version: String,
}

impl Setup {
    fn of(row: &Row) -> Self {
        Self {
            benchmark: row.benchmark.clone(),
            model: row.model.clone(),
            protocol: row.protocol.clone(),
            backend: row.backend.clone(),
            model_digest: row.model_digest.clone(),
            version: row.version.clone(),
        }
    }

    /// Benchmark and model, and whatever else tells it from the others of the same benchmark and model.
    fn title(&self, all: &[Setup]) -> String {
        let rivals: Vec<_> = all
            .iter()
            .filter(|other| other.benchmark == self.benchmark && other.model == self.model)
            .collect();
        let differ =
            |part: fn(&Setup) -> &str| rivals.iter().any(|other| part(other) != part(self));
        let mut title = format!("{} · {}", self.benchmark, self.model);
        if differ(|setup| &setup.protocol) || self.protocol.starts_with(APART) {
            title += &format!(" · {} prompts", self.protocol);
        }
        if differ(|setup| &setup.backend) {
            title += &format!(" · on {}", self.backend);
        }
        if differ(|setup| &setup.model_digest) {
            title += &format!(" · model files {}", self.files());
        }
        if differ(|setup| &setup.version) {
            title += &format!(" · version {}", self.version);
        }
        title
    }

    /// The model's digest, shortened; for an endpoint, its address.
    pub fn files(&self) -> String {
        if self.backend == "endpoint" {
            self.model_digest.clone()
        } else {
            short(&self.model_digest)
        }
    }
}

/// Rows that belong into one table, and its title.
pub struct Group<'a> {
    /// What they have in common.
    pub setup: Setup,
    /// Told apart from the other groups' titles.
    pub title: String,
    /// The rows.
    pub rows: Vec<&'a Row>,
}

/// All rows in groups, ordered by benchmark and model.
pub fn groups(rows: &[Row]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<Setup, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        groups.entry(Setup::of(row)).or_default().push(row);
    }
    let setups: Vec<Setup> = groups.keys().cloned().collect();
    groups
        .into_iter()
        .map(|(setup, rows)| Group {
            title: setup.title(&setups),
            setup,
            rows,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    fn titles(change: fn(&mut Row)) -> Vec<String> {
        let (one, mut other) = (row("1", Ok("yes")), row("2", Ok("yes")));
        change(&mut other);
        groups(&[one, other])
            .into_iter()
            .map(|group| group.title)
            .collect()
    }

    #[test]
    fn rows_that_must_not_be_averaged_are_apart() {
        assert_eq!(titles(|_| ()), ["needle · m"]);
        assert_eq!(
            titles(|row| row.protocol = "chat".into()),
            ["needle · m · chat prompts", "needle · m · plain prompts"]
        );
        assert_eq!(
            titles(|row| row.protocol = "question apart, plain".into()),
            [
                "needle · m · plain prompts",
                "needle · m · question apart, plain prompts"
            ]
        );
        assert_eq!(
            titles(|row| row.backend = "cuda".into()),
            ["needle · m · on cpu", "needle · m · on cuda"]
        );
        assert_eq!(
            titles(|row| row.model_digest = "fedcba".into()),
            [
                "needle · m · model files 0123456789abcdef",
                "needle · m · model files fedcba"
            ]
        );
        assert_eq!(
            titles(|row| row.version = "1".into())[0],
            "needle · m · version 1"
        );
        assert_eq!(
            titles(|row| row.benchmark = "ruler".into()),
            ["needle · m", "ruler · m"]
        );
    }
}
